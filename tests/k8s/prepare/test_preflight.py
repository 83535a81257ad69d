"""What is made beside a server to try its successor: the same where it can fail, and nobody takes it for the server."""

from __future__ import annotations

from typing import Any

import pytest

from k8s.objects import pods, schema
from k8s.pipeline.model_annotation import ANNOTATION, preflight
from k8s.prepare import preflight as made
from k8s.rules.whole_set import matches
from tests.k8s.conftest import Checkout
from tests.k8s.prepare import models

pytestmark = pytest.mark.slow

NAME = "llama-factory-inference"


def found(checkout: Checkout, kind: str, name: str, env: str = "staging") -> Any:
    objects = checkout.check(env)[0].objects
    (one,) = (one.body for one in objects if (one.kind, one.namespace, one.name) == (kind, "llm-inference", name))
    return one


def both(checkout: Checkout, env: str = "staging") -> tuple[Any, Any]:
    return found(checkout, "Deployment", NAME, env), found(checkout, "Deployment", preflight(NAME), env)


def test_it_has_the_servers_image_account_secrets_and_security(checkout: Checkout) -> None:
    server, trial = (one["spec"]["template"]["spec"] for one in both(checkout))
    for key in ("serviceAccountName", "automountServiceAccountToken", "securityContext", "tolerations", "enableServiceLinks"):
        assert trial[key] == server[key]
    for group in ("initContainers", "containers"):
        for mine, theirs in zip(trial[group], server[group], strict=True):
            for key in ("name", "image", "securityContext", "volumeMounts"):
                assert mine[key] == theirs[key]
            assert [one for one in mine["env"] if one["name"] != "MODEL_DOWNLOAD"] == theirs["env"]
    secrets = [[one["secret"] for one in spec["volumes"] if "secret" in one] for spec in (server, trial)]
    assert secrets[0] == secrets[1]


def test_it_asks_for_no_gpu_no_volume_and_little_else(checkout: Checkout) -> None:
    _, trial = both(checkout)
    spec = trial["spec"]["template"]["spec"]
    assert "nvidia.com" not in str([one["resources"] for one in (*spec["initContainers"], *spec["containers"])])
    assert not [one for one in spec["volumes"] if "ephemeral" in one or "persistentVolumeClaim" in one]
    assert spec["containers"][0]["resources"] == {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
    assert {"name": "MODEL_DOWNLOAD", "value": "no"} in spec["initContainers"][0]["env"]


def test_it_lands_where_the_server_would(checkout: Checkout) -> None:
    server, trial = (one["spec"]["template"]["spec"]["affinity"] for one in both(checkout))
    assert trial["nodeAffinity"] == server["nodeAffinity"]
    assert "nvidia.com/cuda.driver-version.major" in str(trial["nodeAffinity"])


def test_servers_that_keep_away_from_each_other_do_not_keep_it_away(checkout: Checkout) -> None:
    term = "{labelSelector: {matchLabels: {app.kubernetes.io/component: inference}}, topologyKey: kubernetes.io/hostname}"
    apart = f"      affinity: {{podAntiAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: [{term}]}}}}\n"
    checkout.edit("deployment.yaml", "      tolerations:", f"{apart}      tolerations:")
    assert "podAntiAffinity" in str(both(checkout)[0])
    assert "podAntiAffinity" not in str(both(checkout)[1])


def test_nothing_takes_its_pods_for_the_servers(checkout: Checkout) -> None:
    """A Service may select by another label than the Deployment does."""
    labels = ("name: llama-factory-inference", "component: inference")
    old, new = (f"    app.kubernetes.io/{label}\n  ports" for label in labels)
    checkout.edit("service.yaml", old, new)
    objects = checkout.check()[0].objects
    pod = both(checkout)[1]["spec"]["template"]["metadata"]["labels"]
    for one in objects:
        selector = one.body.get("spec", {}).get("selector") if one.kind in {"Service", "Deployment"} else None
        if one.namespace != "llm-inference" or not selector or made.is_one(one):
            continue
        assert not matches(selector if one.kind == "Deployment" else {"matchLabels": selector}, pod), one.title


def test_it_is_let_out_where_the_server_is(checkout: Checkout) -> None:
    server, trial = both(checkout)
    objects = [one for one in checkout.check()[0].objects if one.kind == "NetworkPolicy" and one.namespace == "llm-inference"]

    def rules(labels: Any) -> list[Any]:
        chosen = [one.body["spec"] for one in objects if matches(one.body["spec"]["podSelector"], labels)]
        return sorted((rule for spec in chosen for rule in spec.get("egress", ())), key=str)

    labels = [one["spec"]["template"]["metadata"]["labels"] for one in (server, trial)]
    assert rules(labels[0]) == rules(labels[1])
    assert rules(labels[0])


def test_what_it_reads_of_config_maps_are_copies(checkout: Checkout) -> None:
    server, trial = (pods.config_maps(one["spec"]["template"]["spec"]) for one in both(checkout))
    assert trial == {preflight(name) for name in server}
    for name in server:
        assert found(checkout, "ConfigMap", preflight(name))["data"] == found(checkout, "ConfigMap", name)["data"]


def test_at_rest_it_has_no_pod_and_names_no_model(checkout: Checkout) -> None:
    models.named(checkout.root, "staging")
    server, trial = both(checkout)
    assert trial["spec"]["replicas"] == 0
    assert ANNOTATION not in str(trial["metadata"]) + str(trial["spec"]["template"]["metadata"])
    assert server["metadata"]["name"] == trial["metadata"]["annotations"]["pinwheel.io/preflight-of"]


def test_a_sidecar_and_other_init_containers_are_left_out(checkout: Checkout) -> None:
    more = (
        "        - name: migrate\n          image: llama-factory-train\n          resources: {limits: {memory: 1Gi}}\n"
        "          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}\n"
    )
    checkout.edit("deployment.yaml", "      containers:\n", f"{more}      containers:\n")
    spec = both(checkout)[1]["spec"]["template"]["spec"]
    assert [one["name"] for one in spec["initContainers"]] == ["fetch"]


def test_what_is_wrong_with_the_server_is_said_once(checkout: Checkout) -> None:
    checkout.edit("deployment.yaml", "runAsNonRoot: true", "runAsNonRoot: false")
    assert all(preflight(NAME) not in line for line in checkout.findings())
    assert checkout.findings()


def test_a_quota_counts_it(checkout: Checkout) -> None:
    text = (checkout.manifests / "inference" / "quota.yaml").read_text()
    (checkout.manifests / "inference" / "quota.yaml").write_text(text + "    limits.memory: 192Gi\n")
    # Four servers are 192 GiB to the byte.
    (line,) = checkout.findings()
    assert f"{preflight(NAME)} 1 × 1073741824" in line


def test_a_set_that_was_rendered_before_is_not_given_another(checkout: Checkout) -> None:
    rendered = checkout.check()[0]
    assert made.add(rendered.objects) == rendered.objects


@pytest.mark.parametrize("length", [9, 53, 63])
def test_its_names_fit(length: int) -> None:
    assert len(preflight("n" * length)) <= 63


def test_every_object_fits_the_schema(checkout: Checkout) -> None:
    kinds = schema.schema("1.32")
    own = [one for one in checkout.check()[0].objects if made.is_one(one)]
    assert len(own) == 4
    assert [finding for one in own for finding in kinds.walk(one).findings] == []
