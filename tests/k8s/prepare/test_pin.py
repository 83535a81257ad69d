from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k8s.envs import environment
from k8s.envs.environment import Environment
from k8s.objects import schema, strict_yaml
from k8s.objects.findings import Finding
from k8s.objects.manifests import Identity, Manifest
from k8s.prepare import pin
from k8s.prepare.rendered import Pin, image_lines
from oci.reference import ImageRef
from tests.k8s.conftest import API, CPU, NEW, OLD, Checkout

OTHER = "sha256:" + "e" * 64
TRAIN = "llama-factory-train"
DIGESTS = {API: OLD, f"{API}-cpu": CPU}
HEAD = "target: {cluster: {context: c}}\nregistry: registry.example.com/llm\nkubernetes: '1.32'\nproof: none\n"


def env(text: str = HEAD) -> Environment:
    return environment.parse(text, "test", "test.yaml")


def pinned(image: str, one: Environment) -> tuple[Manifest, tuple[Finding, ...]]:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [{"name": "c", "image": image}]},
    }
    (result,), _, refused = pin.pin([schema.schema("1.32").walk(Manifest("f.yaml", body, {}))], one, DIGESTS)
    return result, refused


def image_of(manifest: Manifest) -> str:
    image = manifest.body["spec"]["containers"][0]["image"]
    assert isinstance(image, str)
    return image


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        (API, f"registry.example.com/llm/{API}@{OLD}"),
        (f"quay.io/other/tool@{OTHER}", f"quay.io/other/tool@{OTHER}"),
        (f"quay.io/other/tool:v3@{OTHER}", f"quay.io/other/tool:v3@{OTHER}"),
        (f"registry.example.com/llm/{API}@{OLD}", f"registry.example.com/llm/{API}@{OLD}"),
        (f"Registry.example.com:443/llm/{API}:v1@{OLD}", f"registry.example.com/llm/{API}@{OLD}"),
    ],
)
def test_pins_our_names_and_keeps_foreign_digests(written: str, sent: str) -> None:
    manifest, refused = pinned(written, env())
    assert (image_of(manifest), refused) == (sent, ())


@pytest.mark.parametrize(
    ("written", "what", "fix"),
    [
        ("nginx", "no digest is known for nginx", f"the lock holds {API}, {API}-cpu"),
        ("nginx:1.27", "nginx:1.27 is not pinned", "write it with its digest"),
        ("quay.io/argo/exec", "quay.io/argo/exec is not pinned", "write it with its digest"),
        (f"{API}:latest", f"{API}:latest is not pinned", f"write the bare name `{API}`"),
        (f"my-registry/{API}:latest", "is not pinned", f"write the bare name `{API}`"),
        (f"my-registry.example/{API}", "is not pinned", f"write the bare name `{API}`"),
        (f"registry.example.com/llm/{API}@{OTHER}", f"is pinned to {OTHER}, images.lock says {OLD}", f"write `{API}`"),
        (f"Registry.Example.Com/llm/{API}@{OTHER}", f"is pinned to {OTHER}, images.lock says {OLD}", f"write `{API}`"),
        (f"registry.example.com:443/llm/{API}@{OTHER}", f"is pinned to {OTHER}, images.lock says {OLD}", f"write `{API}`"),
        (f"{API}@sha256:12", "is not an image reference", "write a name"),
        ("Not An Image", "is not an image reference", "write a name"),
        ("{{inputs.parameters.image}}", "is not an image reference", "write a name"),
        ("", "is not an image reference", "write a name"),
        (f"{API}-cpu", "is for environments without a GPU", f"write `{API}`"),
        (f"elsewhere.example/x/{API}-cpu@{CPU}", "is for environments without a GPU", f"write `{API}`"),
    ],
)
def test_refuses_what_is_not_pinned(written: str, what: str, fix: str) -> None:
    manifest, (finding,) = pinned(written, env())
    assert image_of(manifest) == written
    assert (finding.file, finding.title, finding.path) == ("f.yaml", "Pod n/p", "spec.containers[0].image")
    assert what in finding.what
    assert fix in finding.fix


@pytest.mark.parametrize("written", [API, f"{API}-cpu"])
def test_without_a_gpu_what_serves_is_the_build_for_the_cpu(written: str) -> None:
    manifest, refused = pinned(written, env(HEAD + "accelerator: none\n"))
    assert (image_of(manifest), refused) == (f"registry.example.com/llm/{API}-cpu@{CPU}", ())


def test_without_a_gpu_the_image_for_gpus_needs_no_digest(checkout: Checkout) -> None:
    checkout.lock({f"{API}-cpu": CPU, TRAIN: NEW})
    rendered, found = checkout.check("rendered")
    assert found == ()
    assert {(one.written, one.pinned.digest) for one in rendered.pins} == {(API, CPU), (TRAIN, NEW)}


def test_a_kind_without_schema_is_refused(checkout: Checkout) -> None:
    text = "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: w, namespace: ns}\n"
    checkout.add(text + f"spec: {{template: {{spec: {{containers: [{{name: c, image: {API}}}]}}}}}}\n")
    (found,) = checkout.findings()
    assert "added.yaml:2: Rollout ns/w: kind: no schema for argoproj.io/v1alpha1 Rollout in Kubernetes 1.32" in found


def test_a_removed_version_names_the_one_to_write(checkout: Checkout) -> None:
    checkout.edit("hpa.yaml", "autoscaling/v2", "autoscaling/v2beta2")
    (found,) = [text for text in checkout.findings() if "no schema" in text]
    assert "write apiVersion autoscaling/v1 or autoscaling/v2" in found


def pin_of(name: str, path: str = "") -> Pin:
    identity = Identity("apps", "Deployment", "n", name)
    return Pin(f"Deployment n/{name}", identity, (path,), API, ImageRef("r.example", API, "", NEW))


def line_of(before: str) -> str:
    one = pin_of("d")
    (line,) = image_lines([one], {(one.identity, one.path): before} if before else {})
    return line


def test_pinning_names_the_old_and_the_new_digest() -> None:
    assert line_of("") == f"image        r.example/{API}  new → bbbbbbbbbbbb  (Deployment n/d)"
    assert f"r.example/{API}  aaaaaaaaaaaa → bbbbbbbbbbbb  (" in line_of(f"r.example/{API}@{OLD}")
    assert f"r.example/{API}:latest → bbbbbbbbbbbb  (" in line_of(f"r.example/{API}:latest")
    assert "  bbbbbbbbbbbb as before  (" in line_of(f"r.example/{API}@{NEW}")


def test_one_image_of_many_containers_is_one_line() -> None:
    pins = [pin_of(name, path) for name in "dcba" for path in ("containers", "initContainers")]
    assert image_lines(pins[:2], {}) == [f"image        r.example/{API}  new → bbbbbbbbbbbb  (Deployment n/d)"]
    assert image_lines(pins[:4], {})[0].endswith("(Deployment n/d, Deployment n/c)")
    (line,) = image_lines(pins, {})
    assert line.endswith("(4 objects, Deployment n/d the first)")


def test_an_image_that_changes_in_two_ways_is_two_lines() -> None:
    pins = [pin_of("a"), pin_of("b")]
    lines = image_lines(pins, {(pins[0].identity, pins[0].path): f"r.example/{API}@{OLD}"})
    assert [line.rpartition("(")[2] for line in lines] == ["Deployment n/a)", "Deployment n/b)"]


NAMES = st.sampled_from(
    [API, f"{API}-cpu", "nginx", "a/b", "x.example/y", "x.example:5000/y", "registry.example.com/llm/" + API]
)
TAGS = st.sampled_from(["", ":latest", ":1.2"])
TAILS = st.sampled_from(["", f"@{OLD}", f"@{OTHER}", "@sha256:00"])
REFERENCES = st.builds(lambda *parts: "".join(parts), NAMES, TAGS, TAILS) | st.text(max_size=20)


@given(st.lists(REFERENCES, max_size=4), st.sampled_from(["containers", "initContainers"]))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_unpinned_image_survives_and_pinning_twice_changes_nothing(images: list[str], group: str) -> None:
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    spec = {"containers": [{"name": "first", "image": API}], group: containers}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": spec}
    kinds = schema.schema("1.32")
    (once,), pins, refused = pin.pin([kinds.walk(Manifest("f", body, {}))], env(), DIGESTS)
    sent = [c["image"] for one in ("containers", "initContainers") for c in once.body["spec"].get(one, [])]
    assert len(pins) + len(refused) == len(sent)
    if not refused:
        assert all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in sent)
        (twice,), again, still = pin.pin([kinds.walk(once)], env(), DIGESTS)
        assert (twice.body, still) == (once.body, ())
        assert [one.pinned for one in again] == [one.pinned for one in pins]
        assert strict_yaml.dump([twice.body]) == strict_yaml.dump([once.body])
