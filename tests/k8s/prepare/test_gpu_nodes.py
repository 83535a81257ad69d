"""Which nodes a pod may land on: added where an image of ours asks for a GPU, joined with what its author wrote."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from common import paths
from k8s import check
from k8s.envs import environment
from k8s.objects import schema, strict_yaml
from k8s.prepare.gpu_nodes import DRIVER, MAJOR, MINOR
from lockfiles import images_lock
from lockfiles.model import Gpu
from tests.k8s.conftest import API, NEEDS, NEW, Checkout
from tests.k8s.prepare.test_image_paths import kinds
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import NAME, go
from tests.k8s.simulator.wire import Fault

pytestmark = pytest.mark.slow

GPU = {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}}
NEWER = {"key": DRIVER, "operator": "Gt", "values": ["579"]}
TURING = [
    NEWER,
    {"key": MAJOR, "operator": "In", "values": ["7"]},
    {"key": MINOR, "operator": "Gt", "values": ["4"]},
]
LATER = [NEWER, {"key": MAJOR, "operator": "In", "values": ["8", "9", "10", "12"]}]
OURS = [{"matchExpressions": TURING}, {"matchExpressions": LATER}]
ZONE = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}
NOT_SPOT = {"key": "spot", "operator": "DoesNotExist"}
OWN_NODE = {"key": "metadata.name", "operator": "In", "values": ["n1"]}


def container(image: str = API, resources: dict[str, Any] | None = None, name: str = "c") -> dict[str, Any]:
    return {"name": name, "image": image, "resources": GPU if resources is None else resources}


def affinity(*terms: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}, **more}}


def about(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def rendered(checkout: Checkout, kind: str, pod: dict[str, Any], env: str = "staging") -> dict[str, Any]:
    """The pod's spec as it is sent; it fits the schema, and all that is said of it is nothing about nodes."""
    checkout.add(strict_yaml.dump([kinds(pod)[kind]]))
    done, found = checkout.check(env)
    assert [one.text() for one in found if "node" in one.text() or "affinity" in one.path] == []
    (one,) = [one for one in done.objects if one.name == "x"]
    assert schema.schema("1.32").walk(one).findings == []
    body: Any = one.body
    while "containers" not in body:
        body = next(body[key] for key in ("spec", "template", "jobTemplate") if key in body)
    assert isinstance(body, dict)
    return body


def terms(pod: dict[str, Any]) -> Any:
    return pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]


def findings(checkout: Checkout, pod: dict[str, Any]) -> list[str]:
    checkout.add(strict_yaml.dump([kinds(pod)["Deployment"]]))
    return [text for text in checkout.findings() if "GPU" not in text]


@pytest.mark.parametrize("kind", kinds({}))
def test_every_kind_with_pods_is_bound(checkout: Checkout, kind: str) -> None:
    pod = rendered(checkout, kind, {"containers": [container()]})
    assert pod["affinity"] == affinity(*OURS)


def test_the_set_of_the_project_carries_it_and_says_so(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    text = checkout.check("production")[0].text()
    bodies = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in yaml.safe_load_all(text)
        if one["kind"] == "Deployment"
    }
    assert terms(bodies[NAME]) == OURS
    assert "affinity" not in bodies["llama-factory-webui"]  # Its image needs a GPU's driver only where it gets a GPU.
    check.run_check([str(checkout.manifests)], "production")
    assert (
        f"nodes        Deployment llm-inference/{NAME}: {API} asks for driver 580 or newer and compute "
        "capability 7.5+, 8.x, 9.x, 10.x, 12.x\n"
    ) in capsys.readouterr().out


def test_the_same_manifests_give_the_same_bytes_and_pinning_them_again_changes_nothing(checkout: Checkout) -> None:
    first = checkout.check("staging")[0].text()
    assert checkout.check("staging")[0].text() == first
    for file in checkout.manifests.rglob("*.yaml"):
        file.unlink()
    checkout.add(first)
    again, found = checkout.check("staging")
    assert [one.text() for one in found] == []
    assert again.text() == first


def test_each_of_the_authors_terms_gets_the_expressions(checkout: Checkout) -> None:
    preferred = [{"weight": 1, "preference": {"matchExpressions": [ZONE]}}]
    own = affinity(
        {"matchExpressions": [ZONE]},
        {"matchFields": [OWN_NODE], "matchExpressions": [NOT_SPOT]},
        preferredDuringSchedulingIgnoredDuringExecution=preferred,
    )
    spread: dict[str, Any] = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    pod = rendered(checkout, "Deployment", {"containers": [container()], "affinity": {**own, **spread}})
    assert pod["affinity"] == {
        **affinity(
            {"matchExpressions": [ZONE, *TURING]},
            {"matchExpressions": [ZONE, *LATER]},
            {"matchFields": [OWN_NODE], "matchExpressions": [NOT_SPOT, *TURING]},
            {"matchFields": [OWN_NODE], "matchExpressions": [NOT_SPOT, *LATER]},
            preferredDuringSchedulingIgnoredDuringExecution=preferred,
        ),
        **spread,
    }


@pytest.mark.parametrize(
    ("selector", "own", "expected"),
    [
        ({}, [about(MAJOR, "In", "9")], [{"matchExpressions": [about(MAJOR, "In", "9")["matchExpressions"][0], *LATER]}]),
        ({}, [about(MAJOR, "Lt", "8")], [{"matchExpressions": [about(MAJOR, "Lt", "8")["matchExpressions"][0], *TURING]}]),
        ({}, [about(MINOR, "In", "0")], [{"matchExpressions": [about(MINOR, "In", "0")["matchExpressions"][0], *LATER]}]),
        ({MAJOR: "9"}, [], [{"matchExpressions": LATER}]),
        ({MAJOR: "7"}, [{"matchExpressions": [ZONE]}], [{"matchExpressions": [ZONE, *TURING]}]),
        ({"pool": "gpu", DRIVER: "590"}, [], OURS),
    ],
)
def test_what_the_authors_choice_leaves_no_room_for_is_left_out(
    checkout: Checkout, selector: dict[str, str], own: list[dict[str, Any]], expected: list[dict[str, Any]]
) -> None:
    pod: dict[str, Any] = {"containers": [container()], "nodeSelector": selector}
    if own:
        pod["affinity"] = affinity(*own)
    assert terms(rendered(checkout, "Deployment", pod)) == expected


ASKED = f"{API} asks for driver 580 or newer and compute capability 7.5+, 8.x, 9.x, 10.x, 12.x"


@pytest.mark.parametrize(
    "own",
    [
        about(DRIVER, "Lt", "580"),
        about(DRIVER, "In", "550", "570"),
        about(MAJOR, "In", "11"),
        about(MAJOR, "Gt", "12"),
        about(MAJOR, "NotIn", "7", "8", "9", "10", "12"),
        about(MAJOR, "In", "volta"),
        about(MAJOR, "Gt", "seven"),
        {"matchExpressions": [{"key": DRIVER, "operator": "DoesNotExist"}]},
        {"matchExpressions": [*about(MAJOR, "In", "7")["matchExpressions"], *about(MINOR, "Lt", "5")["matchExpressions"]]},
    ],
)
def test_an_authors_term_that_leaves_no_node_is_a_finding(checkout: Checkout, own: dict[str, Any]) -> None:
    (text,) = findings(checkout, {"containers": [container()], "affinity": affinity({"matchExpressions": [ZONE]}, own)})
    place = "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[1]: "
    assert place + f"matches only nodes that cannot run the image: {ASKED}: mend it, or leave it out" in text


def test_a_node_selector_that_leaves_no_node_is_a_finding(checkout: Checkout) -> None:
    (text,) = findings(checkout, {"containers": [container()], "nodeSelector": {DRIVER: "550"}})
    assert f"spec.template.spec.nodeSelector: selects only nodes that cannot run the image: {ASKED}" in text


def test_a_node_selector_and_a_term_that_leave_no_node_together(checkout: Checkout) -> None:
    pod = {"containers": [container()], "nodeSelector": {MAJOR: "7"}, "affinity": affinity(about(MAJOR, "Gt", "7"))}
    (text,) = findings(checkout, pod)
    assert "nodeSelectorTerms[0]: matches only nodes that cannot run the image" in text


def test_an_empty_term_matches_nothing_and_is_not_made_to_match(checkout: Checkout) -> None:
    (text,) = findings(checkout, {"containers": [container()], "affinity": affinity({}, {"matchExpressions": [ZONE]})})
    assert "nodeSelectorTerms[0]: an empty term matches no node" in text


@pytest.mark.parametrize(
    "wrong",
    [
        {"affinity": [1]},
        {"affinity": {"nodeAffinity": "x"}},
        {"affinity": affinity({"matchExpressions": [{"key": MAJOR, "operator": "In", "values": 9}]})},
        {"affinity": affinity({"matchExpressions": "x"})},
        {"nodeSelector": ["x"]},
    ],
)
def test_what_is_not_of_the_schemas_form_is_refused_and_breaks_nothing(checkout: Checkout, wrong: dict[str, Any]) -> None:
    assert any("expected " in text for text in findings(checkout, {"containers": [container()], **wrong}))


@pytest.mark.parametrize(
    "pod",
    [
        {"containers": [container(resources={})]},
        {"containers": [container(resources={"limits": {"nvidia.com/gpu": "0"}})]},
        # A network card of the same maker.
        {"containers": [container(resources={"limits": {"nvidia.com/hostdev": "1"}})]},
        {"containers": [container(f"quay.io/other/tool@{NEW}")]},
        # Another's image that happens to be called like ours.
        {"containers": [container(f"quay.io/other/{API}@{NEW}")]},
        # The GPU goes to another's image.
        {"containers": [container(resources={}), container(f"quay.io/other/tool@{NEW}", name="d")]},
    ],
    ids=["no request", "none", "another device", "foreign", "namesake", "sidecar"],
)
def test_nothing_is_added_where_no_image_of_ours_gets_a_gpu(checkout: Checkout, pod: dict[str, Any]) -> None:
    assert "affinity" not in rendered(checkout, "Deployment", pod)


@pytest.mark.parametrize("resource", ["nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb"])
@pytest.mark.parametrize("group", ["requests", "limits"])
def test_shared_and_divided_gpus_count(checkout: Checkout, resource: str, group: str) -> None:
    pod = rendered(checkout, "Job", {"containers": [container(resources={group: {resource: 1}})]})
    assert pod["affinity"] == affinity(*OURS)


def test_without_a_gpu_a_pod_is_bound_to_nothing(checkout: Checkout) -> None:
    rendered, _ = checkout.check("rendered")
    (text,) = [strict_yaml.dump([one.body]) for one in rendered.objects if (one.kind, one.name) == ("Deployment", NAME)]
    assert "nvidia.com/gpu" not in text
    assert "affinity" not in text


def test_another_family_asks_for_what_its_own_image_says(checkout: Checkout) -> None:
    checkout.lock({API: NEW, f"{API}-cu128": NEW})
    older = {"key": DRIVER, "operator": "Gt", "values": ["524"]}
    pod = rendered(checkout, "StatefulSet", {"containers": [container(f"{API}-cu128")]})
    assert terms(pod) == [
        {"matchExpressions": [older, {"key": MAJOR, "operator": "In", "values": ["7", "8", "9", "10", "12"]}]}
    ]


def test_a_pod_of_two_families_needs_what_both_need(checkout: Checkout) -> None:
    checkout.lock({API: NEW, f"{API}-cu128": NEW})
    pod = rendered(
        checkout, "Deployment", {"initContainers": [container(f"{API}-cu128", name="i")], "containers": [container()]}
    )
    first, second = (term["matchExpressions"] for term in terms(pod))
    older = {"key": DRIVER, "operator": "Gt", "values": ["524"]}
    both = {"key": MAJOR, "operator": "In", "values": ["7", "8", "9", "10", "12"]}
    assert (first, second) == ([older, both, *TURING], [older, both, *LATER])


def test_a_pod_of_two_families_that_no_node_can_run(checkout: Checkout) -> None:
    checkout.lock({API: NEW, f"{API}-cu128": NEW}, {**NEEDS, f"{API}-cu128": Gpu("12.8", 525, ("6.0",))})
    texts = findings(checkout, {"containers": [container(), container(f"{API}-cu128", name="d")]})
    (text,) = [text for text in texts if "no node" in text]
    assert f"containers[1].image: no node can run the images of this pod: {API} asks" in text


def test_an_image_that_asks_for_nothing_is_bound_to_nothing(checkout: Checkout) -> None:
    checkout.lock({API: NEW}, {})
    assert "affinity" not in rendered(checkout, "Deployment", {"containers": [container()]})


def test_a_cluster_without_the_labels_gets_nothing(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    file = environment.folder() / "staging.yaml"
    file.write_text(file.read_text() + "gpu-labels: none\n")
    checkout.edit("deployment.yaml", "      tolerations:", f'      nodeSelector: {{{DRIVER}: "550"}}\n      tolerations:')
    check.run_check([str(checkout.manifests)], "staging")
    assert "nodes " not in capsys.readouterr().out
    assert "nodeAffinity" not in checkout.check("staging")[0].text()


def test_what_is_asked_is_the_digests_whatever_the_lock_of_the_set_has_come_to(checkout: Checkout) -> None:
    assert [file.name for file in paths.LOCKFILES.iterdir()] == ["images.lock"]
    assert terms(rendered(checkout, "Deployment", {"containers": [container()]})) == OURS
    # Written as its digest, it is the same image.
    registry = environment.load("staging").registry
    (digest,) = [image.digest for image in images_lock.read() if image.name == API]
    assert terms(rendered(checkout, "Job", {"containers": [container(f"{registry}/{API}@{digest}")]})) == OURS


def node(server: ApiServer, name: str, labels: dict[str, str]) -> None:
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    code, _ = server.apply(("v1", "Node", "", name), body, "kubelet", force=False, dry_run=False)
    assert code == 201


@pytest.mark.host
def test_a_cluster_whose_nodes_carry_no_label_is_warned_of(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = f"no node of the cluster carries the label {DRIVER}: pods with a GPU wait until one does"
    node(server, "plain", {"zone": "a"})
    go(dry_run=True)
    said = capsys.readouterr().err
    assert warning in said
    assert "or write `gpu-labels: none` (k8s/envs/staging.yaml)" in said
    node(server, "gpu", {DRIVER: "580"})
    go(dry_run=True)
    assert warning not in capsys.readouterr().err


@pytest.mark.host
def test_who_may_not_list_nodes_may_deploy(checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.faults = [Fault(403, "GET", "Node")]
    assert go().result == "running"
    assert "no node" not in capsys.readouterr().err


@pytest.mark.host
def test_a_new_image_moves_the_pods_without_an_edit(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    go()
    assert terms(server.body("Deployment", NAME)["spec"]["template"]["spec"]) == OURS
    assert f"nodes        Deployment llm-inference/{NAME}: {ASKED}" in capsys.readouterr().out
    assert go().changed == ()
    checkout.lock({API: NEW}, {API: Gpu("14.0", 700, ("9.0",))})
    moved = [(f"Deployment llm-inference/{name}", "changed") for name in (NAME, f"{NAME}-preflight")]
    assert sorted(go().changed) == sorted(moved)
    (term,) = terms(server.body("Deployment", NAME)["spec"]["template"]["spec"])
    assert term == {
        "matchExpressions": [
            {"key": DRIVER, "operator": "Gt", "values": ["699"]},
            {"key": MAJOR, "operator": "In", "values": ["9"]},
        ]
    }
    assert "nvidia.com/gpu.compute.major" in capsys.readouterr().out


def test_a_training_whose_number_of_gpus_is_a_parameter_goes_to_nodes_that_can_run_it(checkout: Checkout) -> None:
    done, found = checkout.check("staging")
    assert found == ()
    assert "WorkflowTemplate llm-training/llama-factory-train" in [one.title for one in done.placements]
