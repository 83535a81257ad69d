"""Which model is served, and what happens to the workloads that need one while there is none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common import paths
from common.errors import PolicyError, RegistryError, UsageError
from k8s import deploy
from k8s.envs import environment
from k8s.envs.environment import Environment
from k8s.envs.proof import Model
from k8s.objects import manifests
from k8s.objects.manifests import Identity, Manifest
from k8s.pipeline.model_annotation import ANNOTATION
from k8s.prepare import checked, gate, served_model
from oci import attachments, statement
from oci.client.client import Client
from oci.client.target import Registry
from oci.descriptor import MANIFEST, canonical
from oci.envelope import SIMPLE
from oci.reference import ImageRef
from tests.k8s.conftest import Checkout
from tests.k8s.prepare import models
from tests.oci.conftest import QUICK
from tests.oci.double import Double, digest_of, serving
from tests.registry.signing import OTHER, OWN, sealed

WORKLOAD = "Deployment llm-inference/llama-factory-inference"
HANGING = {f"{kind} llm-inference/llama-factory-inference" for kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget")}
REFERENCE = f"registry.example.com/llm/{models.MODEL}"
BASE = """target: {cluster: {context: c}}
registry: registry.example.com/llm
kubernetes: "1.32"
proof: {key: k.pub}
deploy-keys: d.pub
"""


def settled(checkout: Checkout, env: str = "rendered") -> tuple[dict[str, Manifest], Environment]:
    one = environment.load(env)
    rendered = checked.from_git(one, checked.locked_images(required=True), lambda _target, _readers: {})
    return {made.title: made for made in rendered.objects}, one


def test_the_environments_model_stands_in_the_pod_template_and_nowhere_else(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.keep("inference")
    reference = models.named(checkout.root, "rendered")
    objects, env = settled(checkout)
    assert served_model.named_in(objects[WORKLOAD]) == reference
    assert [title for title, one in objects.items() if reference in str(one.body)] == [WORKLOAD]
    assert f"{WORKLOAD}: {reference} ({env.file})" in " ".join(capsys.readouterr().out.split())


def test_another_model_is_another_pod_template_and_nothing_else_changes(checkout: Checkout) -> None:
    checkout.keep("inference")
    models.named(checkout.root, "rendered")
    first, _ = settled(checkout)
    models.named(checkout.root, "rendered", models.OTHER)
    second, _ = settled(checkout)
    assert {title for title, one in first.items() if second[title].body != one.body} == {WORKLOAD}


def test_without_a_model_what_serves_one_has_no_pods_and_all_else_is_there(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.keep("inference")
    models.without(checkout.root, "rendered")
    whole, _ = checkout.check("rendered")
    objects, _ = settled(checkout)
    assert set(objects) == {one.title for one in whole.objects}
    assert objects[WORKLOAD].body["spec"]["replicas"] == 0
    assert not served_model.named_in(objects[WORKLOAD])
    assert f"{WORKLOAD}: none yet, so no pods" in " ".join(capsys.readouterr().out.split())


def test_with_a_model_the_autoscaler_says_how_many_pods_there_are(checkout: Checkout) -> None:
    checkout.keep("inference")
    models.named(checkout.root, "rendered")
    objects, _ = settled(checkout)
    assert "replicas" not in objects[WORKLOAD].body["spec"]


def test_a_recorded_set_without_a_model_keeps_what_is_served_now_and_one_with_a_model_its_own(checkout: Checkout) -> None:
    """Put back after a failed deploy: what the pipeline proved since the release would be taken off the air."""
    checkout.keep("inference")
    models.without(checkout.root, "rendered")
    env = environment.load("rendered")
    idle = checked.from_git(env, checked.locked_images(required=True), lambda _target, _readers: {})
    (identity,) = [one.identity for one in idle.objects if one.title == WORKLOAD]
    (kept,) = [one for one in served_model.kept(idle, {identity: REFERENCE}).objects if one.title == WORKLOAD]
    assert (served_model.named_in(kept), kept.body["spec"].get("replicas")) == (REFERENCE, None)
    assert served_model.kept(idle, {}).objects == idle.objects
    reference = models.named(checkout.root, "rendered", models.OTHER)
    serving_set = checked.from_git(environment.load("rendered"), checked.locked_images(required=True), lambda *_: {})
    (own,) = [one for one in served_model.kept(serving_set, {identity: REFERENCE}).objects if one.title == WORKLOAD]
    assert served_model.named_in(own) == reference


def test_a_set_that_reads_no_model_is_as_it_was_and_a_model_for_it_is_mentioned(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.keep("webui")
    models.without(checkout.root, "rendered")
    before, _ = settled(checkout)
    assert not capsys.readouterr().err
    models.named(checkout.root, "rendered")
    after, env = settled(checkout)
    assert {title: one.body for title, one in before.items()} == {title: one.body for title, one in after.items()}
    assert f"`model` in {env.file} changes nothing" in " ".join(capsys.readouterr().err.split())


def _two() -> list[Manifest]:
    """The serving Deployment, and a second one like it."""
    read, _ = manifests.load([paths.K8S / "manifests" / "inference"])
    (first,) = [one for one in read if one.title == WORKLOAD]
    return [first, manifests.with_value(first, ("metadata", "name"), "second")]


@pytest.mark.parametrize("default", [True, False])
def test_each_workload_serves_the_model_that_the_environment_names_for_it(checkout: Checkout, default: bool) -> None:
    models.without(checkout.root, "staging")
    env = environment.load("staging")
    reference = ImageRef.parse(f"{env.registry}/{models.MODEL}")
    other = ImageRef.parse(f"{env.registry}/{models.OTHER}")
    env = dataclasses.replace(env, model=Model(reference) if default else None, models={"llm-inference/second": Model(other)})
    asked: list[str] = []

    def live(_target: object, readers: Sequence[Manifest]) -> dict[Identity, str]:
        asked.extend(one.name for one in readers)
        return {one.identity: "live" for one in readers}

    first, second = (served_model.named_in(one) for one in served_model.settle(_two(), env, live).objects)
    assert second == str(other)
    assert first == (str(reference) if default else "live")
    # The cluster is asked only for what the environment does not name.
    assert asked == ([] if default else ["llama-factory-inference"])


def test_a_model_for_a_workload_that_reads_none_is_mentioned(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    env = environment.load("rendered")
    reference = ImageRef.parse(f"{env.registry}/{models.MODEL}")
    env = dataclasses.replace(env, model=None, models={"llm-inference/absent": Model(reference)})
    served_model.settle(_two(), env, lambda *_: {})
    assert f"`models` in {env.file} names llm-inference/absent" in " ".join(capsys.readouterr().err.split())


def test_the_gate_looks_at_every_model_with_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    env = environment.parse(
        BASE + f"model: {{reference: {REFERENCE}, key: a.pub}}\nmodels:\n"
        f"  llm-inference/second: {{reference: {REFERENCE.replace(models.MODEL, models.OTHER)}, key: b.pub}}\n"
        f"  llm-inference/third: {{reference: {REFERENCE}, key: a.pub}}\n",
        "production",
        "f",
    )
    looked: list[tuple[str, str]] = []

    def look(model: Model, _env: Environment) -> tuple[tuple[str, str], ...]:
        assert model.signers
        looked.append((str(model.reference), model.signers.named()))
        return ()

    monkeypatch.setattr(gate, "_signed", look)
    assert gate.check_model(env) == ()
    assert looked == [(REFERENCE, "a.pub"), (REFERENCE.replace(models.MODEL, models.OTHER), "b.pub")]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (f"models: {{second: {{reference: {REFERENCE}, key: k}}}}\n", "models.second: write namespace/name"),
        (f"models: {{a/b: {{reference: {REFERENCE}}}}}\n", "models.a/b.key: production serves no model"),
        (f"models: {{a/b: {{reference: {models.MODEL}, key: k}}}}\n", "is not in the environment's registry"),
        ("models: {a/b: x}\n", "models.a/b: expected a mapping"),
    ],
)
def test_a_model_of_a_workload_that_cannot_be_meant_is_refused(written: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        environment.parse(BASE + written, "production", "f")
    assert message in refused.value.line()


# --- the environment's key ---


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("model: none\n", "model: expected a mapping, got 'none'"),
        ("model: {}\n", "model.reference: missing"),
        ("model: {key: k.pub}\n", "model.reference: missing"),
        ("model: {reference: [1]}\n", "model.reference: expected a string"),
        (f"model: {{reference: {REFERENCE}, name: x}}\n", "model.name: unknown key"),
        (f"model: {{reference: {REFERENCE}, key: }}\n", "model.key: missing"),
        (
            "model: {reference: registry.example.com/llm/models/x:1}\n",
            "is not by digest alone: write registry.example.com/llm/",
        ),
        (f"model: {{reference: '{REFERENCE.replace('@', ':v1@')}'}}\n", "is not by digest alone"),
        ("model: {reference: 'registry.example.com/llm/models/x@sha256:abc'}\n", "is no reference"),
        ("model: {reference: 'UPPER@@'}\n", "is no reference"),
        (f"model: {{reference: {REFERENCE.replace('example.com', 'example.org')}}}\n", "is not in the environment's registry"),
        (f"model: {{reference: {REFERENCE.replace('/llm/', '/llm-other/')}}}\n", "is not in the environment's registry"),
        (f"model: {{reference: {models.MODEL}}}\n", "is not in the environment's registry"),
    ],
)
def test_a_model_that_cannot_be_meant_is_refused(written: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        environment.parse(BASE + written, "staging", "k8s/envs/staging.yaml")
    assert message in refused.value.line()
    assert "k8s/envs/staging.yaml" in refused.value.line()


def test_production_does_not_serve_a_model_whose_signature_nobody_verified() -> None:
    with pytest.raises(UsageError, match=r"model\.key: production serves no model whose signature nobody verified"):
        environment.parse(BASE + f"model: {{reference: {REFERENCE}}}\n", "production", "f")
    env = environment.parse(BASE + f"model: {{reference: {REFERENCE}, key: m.pub}}\n", "production", "f")
    assert env.model is not None
    assert env.model.signers
    assert (str(env.model.reference), env.model.signers.named()) == (REFERENCE, "m.pub")


# --- the gate ---

CONFIG = b"{}"
ARTIFACT = canonical(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.cncf.model.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.cncf.model.config.v1+json",
            "digest": digest_of(CONFIG),
            "size": len(CONFIG),
        },
        "annotations": {"pinwheel.io/template": "qwen3_nothink"},
        "layers": [
            {
                "mediaType": f"application/vnd.cncf.model.{kind}.v1.raw",
                "digest": digest_of(file.encode()),
                "size": len(file),
                "annotations": {"org.cncf.model.filepath": file},
            }
            for kind, file in (("weight", "model.safetensors"), ("weight.config", "config.json"))
        ],
    }
)
DIGEST = digest_of(ARTIFACT)
REPOSITORY = "team/models/team-tiny"


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with serving() as state:
        state.blobs[REPOSITORY][digest_of(CONFIG)] = CONFIG
        state.manifests[REPOSITORY][DIGEST] = (MANIFEST, ARTIFACT)
        yield state


@pytest.fixture
def gated(checkout: Checkout, double: Double) -> Checkout:
    """The environment `rendered`, whose registry is the double, with our public key for models."""
    (checkout.root / "model.pub").write_bytes(OWN.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    checkout.keep("inference")
    file = models.file_of(checkout.root, "rendered")
    file.write_text(file.read_text().replace("registry: 127.0.0.1:5000", f"registry: {double.address}/team"))
    models.named(checkout.root, "rendered", f"models/team-tiny@{DIGEST}", key="model.pub")
    return checkout


def sign(double: Double, key: ec.EllipticCurvePrivateKey = OWN, *, of: str = DIGEST, named: str = "", on: str = DIGEST) -> None:
    """Attach a signature to a model, as cosign does; it may speak `of` another digest, or of another repository."""
    envelope = sealed(SIMPLE, statement.make_signature(named or f"{double.address}/{REPOSITORY}", of), key)
    with Client(Registry.parse(f"{double.address}/team"), QUICK, writes=True) as client:
        attachments.write(client, REPOSITORY, on, "sig", (), (envelope,))


def test_a_signed_model_is_deployed_and_its_signature_told(
    gated: Checkout, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    sign(double)
    assert deploy.deploy("rendered").result == "rendered"
    assert f"signed {double.address}/{REPOSITORY}@{DIGEST}: by key" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("attack", ["unsigned", "another key", "signature of another model"])
def test_a_model_without_our_signature_is_refused_in_one_line_and_nothing_is_written(
    gated: Checkout, double: Double, attack: str
) -> None:
    if attack == "another key":
        sign(double, OTHER)
    elif attack == "signature of another model":
        sign(double, of="sha256:" + "7" * 64)
    with pytest.raises(PolicyError, match="the model does not carry the signature rendered asks for: signature") as refused:
        deploy.deploy("rendered")
    assert refused.value.exit_code == 15
    assert f"{double.address}/{REPOSITORY}@{DIGEST}; signers: model.pub" in refused.value.line()
    assert not (gated.root / "dist/rendered").exists()


def test_a_model_that_is_not_in_the_registry_is_refused(gated: Checkout, double: Double) -> None:
    del double.manifests[REPOSITORY][DIGEST]
    with pytest.raises(RegistryError):
        deploy.deploy("rendered")
    assert not (gated.root / "dist/rendered").exists()


def test_a_registry_that_serves_another_model_under_the_digest_is_refused(gated: Checkout, double: Double) -> None:
    sign(double)
    double.manifests[REPOSITORY][DIGEST] = (MANIFEST, ARTIFACT + b" ")
    with pytest.raises(RegistryError, match="the registry serves"):
        deploy.deploy("rendered")


def test_a_model_that_was_copied_from_another_place_is_refused_here_as_by_the_pods(gated: Checkout, double: Double) -> None:
    sign(double, named=f"{double.address}/other/team-tiny")
    with pytest.raises(PolicyError, match="signed for another place, and the pods would refuse it"):
        deploy.deploy("rendered")
    assert not (gated.root / "dist/rendered").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"artifactType": "application/vnd.oci.image.config.v1+json"}, "its artifactType is not a model's"),
        ({"layers": []}, "no whole model: config.json, weights or template are missing"),
        ({"annotations": {}}, "no whole model: config.json, weights or template are missing"),
    ],
)
def test_what_is_signed_and_is_no_whole_model_is_refused_here_as_by_the_pods(
    gated: Checkout, double: Double, changed: dict[str, object], said: str
) -> None:
    image = canonical({**json.loads(ARTIFACT), **changed})
    double.manifests[REPOSITORY][digest_of(image)] = (MANIFEST, image)
    sign(double, of=digest_of(image), on=digest_of(image))
    env = environment.load("rendered")
    assert env.model
    reference = dataclasses.replace(env.model.reference, digest=digest_of(image))
    with pytest.raises(PolicyError, match=said):
        gate.check_model(dataclasses.replace(env, model=dataclasses.replace(env.model, reference=reference)))


def test_a_missing_public_key_is_named(gated: Checkout) -> None:
    (gated.root / "model.pub").unlink()
    with pytest.raises(UsageError, match=r"no public key can be read.*model\.pub"):
        deploy.deploy("rendered")


def test_without_a_key_the_pods_alone_verify_and_that_is_said(
    gated: Checkout, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    models.named(gated.root, "rendered", f"models/team-tiny@{DIGEST}")
    assert deploy.deploy("rendered").result == "rendered"
    assert "nobody verifies the model's signature before the pods do" in " ".join(capsys.readouterr().err.split())


def test_what_the_gate_found_goes_into_the_record_with_the_images(gated: Checkout, double: Double) -> None:
    sign(double)
    ((reference, said),) = gate.check_model(environment.load("rendered"))
    assert reference == f"{double.address}/{REPOSITORY}@{DIGEST}"
    assert said.startswith("model signed by key ")
    assert gate.check_model(dataclasses.replace(environment.load("rendered"), model=None)) == ()


# --- the model is part of what is judged ---


def test_the_set_is_judged_with_its_model(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    checkout.keep("inference")
    reference = models.named(checkout.root, "rendered")
    checkout.edit("service.yaml", "targetPort: http", "targetPort: web")
    with pytest.raises(PolicyError, match="1 finding in 1 file"):
        settled(checkout)
    assert f"{WORKLOAD}: {reference}" in " ".join(capsys.readouterr().out.split())


def test_what_has_no_pods_is_judged_as_well(checkout: Checkout) -> None:
    checkout.keep("inference")
    models.without(checkout.root, "staging")
    checkout.edit("deployment.yaml", "maxSurge: 0", "maxSurge: 1")
    with pytest.raises(PolicyError, match="1 finding in 1 file"):
        settled(checkout, "staging")


@pytest.mark.parametrize("named", [True, False])
def test_a_model_that_a_manifest_names_itself_is_refused(
    checkout: Checkout, capsys: pytest.CaptureFixture[str], named: bool
) -> None:
    checkout.keep("inference")
    models.without(checkout.root, "rendered")
    if named:
        models.named(checkout.root, "rendered", models.OTHER)
    file = checkout.manifests / "inference/deployment.yaml"
    (manifest,) = yaml.safe_load_all(file.read_text())
    manifest["spec"]["template"]["metadata"].setdefault("annotations", {})[ANNOTATION] = REFERENCE
    file.write_text(yaml.safe_dump(manifest))
    with pytest.raises(PolicyError, match="1 finding in 1 file"):
        settled(checkout)
    assert "a model is named in a manifest" in capsys.readouterr().err


@pytest.mark.parametrize("metadata", ["text", [1]])
def test_a_template_that_can_hold_no_model_is_a_finding(
    checkout: Checkout, capsys: pytest.CaptureFixture[str], metadata: object
) -> None:
    checkout.keep("inference")
    models.named(checkout.root, "rendered")
    file = checkout.manifests / "inference/deployment.yaml"
    (manifest,) = yaml.safe_load_all(file.read_text())
    manifest["spec"]["template"]["metadata"] = metadata
    file.write_text(yaml.safe_dump(manifest))
    with pytest.raises(PolicyError):
        settled(checkout)
    assert "spec.template.metadata: expected map" in " ".join(capsys.readouterr().err.split())
