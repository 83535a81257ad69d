"""A private authority, or plain HTTP, reaches the pods of the registry, rolls them when it changes, and serves the operator."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.errors import PolicyError, RegistryError, UsageError
from common.files import sha256_bytes
from k8s import deploy
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget, DirectoryTarget, Environment
from k8s.objects import pods
from k8s.objects.manifests import Manifest
from k8s.prepare import checked, gate
from k8s.training import artifact, parser, submit
from k8s.training.dataset import DataFile
from lockfiles.models.lockfile import PinnedModel
from oci.client import access
from oci.client.access import Access
from oci.reference import ImageRef
from tests.k8s.conftest import REPO, Checkout
from tests.k8s.envs.test_environment import GOOD
from tests.k8s.prepare import models
from tests.oci.conftest import QUICK
from tests.oci.double import Double, serving
from tests.oci.real import CERTIFICATE
from tests.oci.test_access import other_ca
from tests.registry.signing import OWN

NAME = "pinwheel-registry"
HASH = "pinwheel/config-sha256"
# What speaks to the registry: the containers, by the place of their object.
SPEAKERS = {
    ("llm-inference", "Deployment"): {"fetch"},
    ("llm-training", "WorkflowTemplate"): {"download", "register"},
}


@pytest.fixture
def ca(checkout: Checkout) -> Checkout:
    """The environment `staging`, whose registry has an authority of its own."""
    (checkout.root / "ca.crt").write_bytes(CERTIFICATE.read_bytes())
    say(checkout, "\n  host: r.example:5000/llm\n  ca: ca.crt")
    return checkout


def say(checkout: Checkout, registry: str, env: str = "staging") -> None:
    file = checkout.root / f"k8s/envs/{env}.yaml"
    before = environment.load(env).registry
    file.write_text(file.read_text().replace(f"registry: {before}\n", f"registry: {registry}\n"))


def told(objects: tuple[Manifest, ...]) -> dict[str, dict[str, str]]:
    return {one.namespace: one.body["data"] for one in objects if (one.kind, one.name) == ("ConfigMap", NAME)}


def spaces(objects: tuple[Manifest, ...]) -> list[str]:
    return [one.namespace for one in objects if one.kind == "Deployment"]


def hashes(objects: tuple[Manifest, ...], kind: str = "Deployment") -> list[Any]:
    found = [template for one in objects if one.kind == kind for template in pods.templates(one)]
    notes = []
    for template in found:
        body: Any = template.manifest.body
        for step in template.path:
            body = body[step]
        notes.append(body.get("metadata", {}).get("annotations", {}).get(HASH))
    return notes


def test_a_private_authority_reaches_each_namespace_whose_pods_speak_to_the_registry(ca: Checkout) -> None:
    rendered, findings = ca.check()
    assert not findings
    data = {"host": "r.example:5000", "ca.crt": CERTIFICATE.read_text()[CERTIFICATE.read_text().index("-----BEGIN") :]}
    assert told(rendered.objects) == {"llm-inference": data, "llm-training": data}
    places = [one.title for one in rendered.objects]
    assert places.index(f"ConfigMap llm-inference/{NAME}") < places.index("Deployment llm-inference/llama-factory-inference")
    for one in rendered.objects:
        if one.name == NAME:
            assert one.metadata["labels"]["app.kubernetes.io/part-of"] == "pinwheel"  # else it would never be pruned


def test_plain_http_reaches_them_too(checkout: Checkout) -> None:
    say(checkout, "\n  host: r.example:5000/llm\n  plain-http: true")
    rendered, findings = checkout.check()
    assert not findings
    assert told(rendered.objects)["llm-training"] == {"host": "r.example:5000", "plain-http": "true"}


def test_of_a_registry_that_the_system_knows_pods_are_told_nothing_and_what_they_were_told_before_goes(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What is said on this machine is no affair of theirs.
    (tmp_path / "host").write_text("registry.example.com")
    (tmp_path / "plain-http").write_text("true")
    monkeypatch.setenv(access.VARIABLE, str(tmp_path))
    rendered, findings = checkout.check()
    only = {"host": "registry.example.com"}
    assert (told(rendered.objects), findings) == ({"llm-inference": only, "llm-training": only}, ())


def test_who_speaks_to_the_registry_mounts_it_and_nobody_else_does(checkout: Checkout) -> None:
    rendered, _ = checkout.check()
    found: dict[tuple[str, str], set[str]] = {}
    for one in rendered.objects:
        for template in pods.templates(one):
            volumes = {volume["name"]: volume for volume in pods.items(template.spec, "volumes")}
            for _, container in template.containers():
                for mount in pods.items(container, "volumeMounts"):
                    source = volumes.get(str(mount["name"]), {}).get("configMap", {})
                    if source.get("name") == NAME:
                        step = str(container["name"])
                        if one.kind == "WorkflowTemplate":
                            step = one.body["spec"]["templates"][template.path[-1]]["name"]
                        found.setdefault((one.namespace, one.kind), set()).add(step)
                        assert (mount["mountPath"], mount["readOnly"], source["optional"]) == (
                            "/etc/pinwheel/registry",
                            True,
                            True,
                        )
                        assert {"name": "PINWHEEL_REGISTRY", "value": "/etc/pinwheel/registry"} in container["env"]
    assert found == SPEAKERS


def test_another_authority_rolls_the_pods_that_use_it(ca: Checkout) -> None:
    first = ca.check()[0].objects
    (ca.root / "ca.crt").write_text(other_ca())
    second = ca.check()[0].objects
    before, after = (dict(zip(spaces(one), hashes(one), strict=True)) for one in (first, second))
    assert before["llm-inference"] != after["llm-inference"]
    assert before["llm-dev-ui"] == after["llm-dev-ui"]
    steps, changed = hashes(first, "WorkflowTemplate"), hashes(second, "WorkflowTemplate")
    assert [one != other for one, other in zip(steps, changed, strict=True)] == [False, True, False, False, True, False]


def test_the_same_file_gives_the_same_bytes(ca: Checkout) -> None:
    assert ca.check()[0].text() == ca.check()[0].text()


@pytest.mark.parametrize("wrong", ["absent", "no certificate"])
def test_a_file_that_is_no_authority_is_refused_before_anything_is_judged(ca: Checkout, wrong: str) -> None:
    (ca.root / "ca.crt").unlink()
    if wrong != "absent":
        (ca.root / "ca.crt").write_text("x")
    with pytest.raises(UsageError, match=r"registry\.ca.*\(ca\.crt\)"):
        ca.check()


def test_a_set_that_was_rendered_before_is_filled_anew(ca: Checkout) -> None:
    ca.add(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {NAME}, namespace: llm-inference}}\ndata: {{host: x}}\n")
    rendered, findings = ca.check()
    assert not findings
    assert [one.file for one in rendered.objects if one.name == NAME] == [
        "k8s/manifests/added.yaml",
        "k8s/manifests/training/configmap-registry.yaml",
    ]
    assert told(rendered.objects)["llm-inference"] == told(rendered.objects)["llm-training"]


def test_a_rendered_directory_holds_it_in_a_file_of_its_own(checkout: Checkout) -> None:
    models.named(checkout.root, "rendered")
    (checkout.root / "ca.crt").write_bytes(CERTIFICATE.read_bytes())
    say(checkout, "\n  host: 127.0.0.1:5000\n  ca: ca.crt", "rendered")
    deploy.deploy("rendered")
    names = sorted(file.name for file in (checkout.root / "dist/rendered/inference").iterdir())
    assert names.index("configmap-registry.yaml") < names.index("deployment.yaml")


def test_the_example_of_vllm_is_told_as_well(ca: Checkout) -> None:
    env = environment.load("staging")
    rendered, _ = checked.check([REPO / "examples/vllm-serve"], env, checked.locked_images(required=False))
    assert list(told(rendered.objects)) == ["llm-inference"]


@pytest.fixture
def secure() -> Iterator[Double]:
    """A registry with TLS, whose certificate nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_suffix(".key"))
    with serving(context) as state:
        yield state


def reaching(checkout: Checkout, double: Double, ca: str) -> Environment:
    public = OWN.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (checkout.root / "own.pub").write_bytes(public)
    (checkout.root / "ca.crt").write_text(ca)
    reference = f"{double.address}/models/x@sha256:{'a' * 64}"
    text = GOOD.replace("r.example/llm", f"{{host: '{double.address}', ca: ca.crt}}").replace("none", "{key: own.pub}")
    return environment.parse(f"{text}model: {{reference: '{reference}', key: own.pub}}\n", "e", "e.yaml")


def test_the_gate_asks_the_registry_by_the_environments_authority(checkout: Checkout, secure: Double) -> None:
    data = b'{"schemaVersion": 2}'
    ref = ImageRef.parse(f"{secure.address}/x").pin(sha256_bytes(data))
    secure.manifests["x"][ref.digest] = ("application/vnd.oci.image.manifest.v1+json", data)
    env = reaching(checkout, secure, CERTIFICATE.read_text())
    with pytest.raises(PolicyError, match="without the proof e asks for"):
        gate.check([ref], env)
    with pytest.raises(RegistryError, match="models/x"):
        gate.check_model(env)
    before = len(secure.asked)
    distrusting = reaching(checkout, secure, other_ca())
    with pytest.raises(RegistryError, match="certificate is not trusted"):
        gate.check([ref], distrusting)
    with pytest.raises(RegistryError, match="certificate is not trusted"):
        gate.check_model(distrusting)
    assert len(secure.asked) == before


ON_A_HUB = PinnedModel("base", "maker/base", "main", "c" * 40, "", ())


@pytest.mark.parametrize("to", ["cluster", "directory"])
def test_a_run_goes_to_the_registry_by_the_environments_authority(
    checkout: Checkout, secure: Double, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    data = artifact.FileArtifact(ImageRef.parse(f"{secure.address}/datasets/x").pin(sha256_bytes(b"{}")), (), b"{}")
    said: Any = SimpleNamespace(version="v", experiment="e")
    objects: Any = SimpleNamespace(files=lambda: {"workflow.yaml": {"kind": "Workflow"}}, template=None)

    def go(env: Environment) -> None:
        if to == "directory":
            target = DirectoryTarget(checkout.root / "out")
            submit._to_directory(said, env, target, objects, data, ON_A_HUB, dry_run=False)
            return
        kubectl: Any = SimpleNamespace(preflight=lambda _: None, get=lambda *_: None, target=ClusterTarget("c"))
        run: Any = SimpleNamespace(version="v", model=f"{env.registry}/models/x", train_image=f"{env.registry}/train")
        submit._Cluster(kubectl, env, run, objects, data, ON_A_HUB).submit(said, dry_run=False, again=False)

    monkeypatch.setattr(parser, "ask", lambda *_: None)
    for name in ("_same", "_secrets", "_send"):
        monkeypatch.setattr(submit._Cluster, name, lambda *_: None)
    monkeypatch.setattr(submit, "replace", lambda one, **_: one)
    with pytest.raises(RegistryError, match="certificate is not trusted"):
        go(reaching(checkout, secure, other_ca()))
    go(reaching(checkout, secure, CERTIFICATE.read_text()))
    assert data.reference.digest in secure.manifests["datasets/x"]


def test_a_dataset_is_pushed_and_a_model_looked_for_by_it(secure: Double) -> None:
    data = b"x"
    made = DataFile("configuration", len(data), sha256_bytes(data), data=data)
    reference = ImageRef.parse(f"{secure.address}/datasets/x").pin(sha256_bytes(b"{}"))
    one = artifact.FileArtifact(reference, (made,), b"{}")
    reached = Access(secure.address, CERTIFICATE.read_text())
    artifact.push(one, QUICK, reached)
    assert reference.digest in secure.manifests["datasets/x"]
    assert artifact.model_reference(secure.address, "x", "1", QUICK, reached) == ""
    with pytest.raises(RegistryError, match="certificate is not trusted"):
        artifact.push(one, QUICK, Access(secure.address, other_ca()))
    with pytest.raises(RegistryError, match="certificate is not trusted"):
        artifact.model_reference(secure.address, "x", "1", QUICK, Access(secure.address, other_ca()))
