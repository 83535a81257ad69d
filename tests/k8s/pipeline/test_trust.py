"""Attacks on the model's way into a pod: each is refused, and nothing is served."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import ExitCode, PinwheelError
from common.files import sha256_bytes
from k8s.pipeline import artifact, fetch
from oci.descriptor import MANIFEST, canonical
from tests.k8s.pipeline.conftest import OTHER, OWN, Run, model_files, push
from tests.oci.double import Double

# Each registers and fetches a whole model.
pytestmark = pytest.mark.slow

REPOSITORY = "models/team-tiny"


def sig(model: str) -> str:
    return model.rpartition("@")[2].replace(":", "-") + ".sig"


def sign(double: Double, model: str, said: str, key: ec.EllipticCurvePrivateKey) -> None:
    """Attach a signature by hand: of what it says, under the tag of a model."""
    place, _, digest = said.rpartition("@")
    body = {"identity": {"docker-reference": place}, "image": {"docker-manifest-digest": digest}}
    payload = canonical({"critical": {**body, "type": "cosign container image signature"}, "optional": None})
    signed = base64.b64encode(key.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()
    double.blobs[REPOSITORY][sha256_bytes(payload)] = payload
    layer = {
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": sha256_bytes(payload),
        "size": len(payload),
    }
    layers = [{**layer, "annotations": {"dev.cosignproject.cosign/signature": signed}}]
    data = canonical({"schemaVersion": 2, "mediaType": MANIFEST, "config": {}, "layers": layers})
    double.manifests[REPOSITORY][sig(model)] = (MANIFEST, data)


def tampered(double: Double, model: str) -> None:
    kind, data = double.manifests[REPOSITORY][sig(model)]
    body = json.loads(data)
    name = "dev.cosignproject.cosign/signature"
    old = bytearray(base64.b64decode(body["layers"][0]["annotations"][name]))
    old[-1] ^= 1
    body["layers"][0]["annotations"][name] = base64.b64encode(old).decode()
    double.manifests[REPOSITORY][sig(model)] = (kind, canonical(body))


UNTRUSTED: dict[str, tuple[Callable[[Double, str], object], str]] = {
    "unsigned": (lambda double, model: double.manifests[REPOSITORY].pop(sig(model)), "it is not signed"),
    "signed by another key": (lambda double, model: sign(double, model, model, OTHER), "by the key that is trusted here"),
    "a signature that was altered": (tampered, "by the key that is trusted here"),
}


@pytest.mark.parametrize(("spoil", "says"), UNTRUSTED.values(), ids=UNTRUSTED)
def test_a_model_without_a_signature_that_holds_is_refused(
    run: Run, double: Double, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Double, str], object], says: str
) -> None:
    model = run.register()
    spoil(double, model)
    double.asked.clear()
    with pytest.raises(PinwheelError, match=says) as problem:
        run.fetch(model, monkeypatch)
    assert problem.value.exit_code == ExitCode.POLICY
    # Not a byte of the weights was asked for.
    assert not double.count("GET", sha256_bytes(model_files()["model-00001-of-00002.safetensors"]))
    assert not list((run.root / "models").iterdir())


def test_the_signature_of_another_model_is_refused(run: Run, double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run.register()
    run.put("export/generation_config.json", b'{"temperature":0.5}')
    second = run.register()
    held = double.manifests[REPOSITORY]
    held[sig(second)] = held[sig(first)]
    with pytest.raises(PinwheelError, match="it is signed as .*, which is another one"):
        run.fetch(second, monkeypatch)


def test_the_signature_for_another_place_is_refused(run: Run, double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    model = run.register()
    elsewhere = model.replace("models/", "models-of-others/")
    double.blobs["models-of-others/team-tiny"] = double.blobs[REPOSITORY]
    double.manifests["models-of-others/team-tiny"] = double.manifests[REPOSITORY]
    with pytest.raises(PinwheelError, match="it is signed as"):
        run.fetch(elsewhere, monkeypatch)


def test_a_second_signature_beside_one_of_another_key_holds(run: Run, double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    model = run.register(key="other")
    assert run.register() == model
    assert len(json.loads(double.manifests[REPOSITORY][sig(model)][1])["layers"]) == 2
    run.fetch(model, monkeypatch, key="own")


def test_without_a_key_nothing_is_taken_unless_that_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    model = run.register()
    (run.root / "own.pub").unlink()
    with pytest.raises(PinwheelError, match="no public key to check") as problem:
        run.fetch(model, monkeypatch)
    assert problem.value.exit_code == ExitCode.POLICY
    with pytest.raises(PinwheelError, match="may be `none` or nothing"):
        run.fetch(model, monkeypatch, trust="None")
    run.fetch(model, monkeypatch, trust="none")


def test_with_a_key_a_signature_is_asked_for_even_where_none_is_said(
    run: Run, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = run.register()
    del double.manifests[REPOSITORY][sig(model)]
    with pytest.raises(PinwheelError, match="it is not signed"):
        run.fetch(model, monkeypatch, trust="none")


@pytest.mark.parametrize("name", ["own.key", "inference.yaml"])
def test_what_is_no_public_key_is_refused(run: Run, name: str) -> None:
    with pytest.raises(PinwheelError, match="this is a private key|not a public key"):
        fetch.read_public(run.root / name)


UNSAFE = {
    "a path that leads out": "../../etc/cron.d/x.json",
    "an absolute path": "/etc/x.json",
    "a path with a backslash": "..\\x.json",
    "a hidden file": ".git/config.json",
    "code": "modeling_tiny.py",
    "a pickle": "pytorch_model.bin",
    "a path in a file": "config.json/x.json",
    "a control character": "a\nb.json",
    "the ending of what is in the making": "x.json.part",
    "a very long path": "a/" * 130 + "x.json",
}


@pytest.mark.parametrize("path", UNSAFE.values(), ids=UNSAFE)
def test_a_model_that_names_an_unsafe_path_is_refused(
    run: Run, double: Double, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    files = {**model_files(), path: b"{}"}
    model = push(double, REPOSITORY, files, artifact.WEIGHT_CONFIG)
    (run.root / "own.pub").unlink()
    with pytest.raises(PinwheelError, match="holds the file|path twice") as problem:
        run.fetch(model, monkeypatch, trust="none")
    assert problem.value.exit_code == ExitCode.POLICY
    assert not list((run.root / "models").iterdir())


NO_MODEL = {
    "an image": {"artifactType": "application/vnd.oci.image.manifest.v1+json"},
    "no layers": {"layers": None},
    "an archive": {
        "layers": [{"mediaType": "application/vnd.cncf.model.weight.v1.tar", "digest": "sha256:" + "a" * 64, "size": 1}]
    },
    "a template that is no name": {"annotations": {artifact.TEMPLATE: "x\ny: z"}},
    "too many files": {"layers": [{}] * 4001},
    "no template": {"annotations": {}},
}


@pytest.mark.parametrize("changes", NO_MODEL.values(), ids=NO_MODEL)
def test_what_is_no_model_is_refused(
    run: Run, double: Double, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    model = push(double, REPOSITORY, model_files(), artifact.WEIGHT_CONFIG, **changes)
    (run.root / "own.pub").unlink()
    with pytest.raises(PinwheelError, match="no model artifact|no whole model"):
        run.fetch(model, monkeypatch, trust="none")


def test_a_pickle_with_the_name_of_weights_is_refused(run: Run, double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**model_files(), "model-00001-of-00002.safetensors": b"\x80\x04\x95" + b"x" * 99}
    model = push(double, REPOSITORY, files, artifact.WEIGHT_CONFIG)
    (run.root / "own.pub").unlink()
    with pytest.raises(PinwheelError, match="it is a pickle"):
        run.fetch(model, monkeypatch, trust="none")
    assert not (run.root / "models/current").exists()


def test_a_registry_that_lies_about_a_shard_is_found_out(run: Run, double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    model = run.register()
    data = model_files()["model-00001-of-00002.safetensors"]
    double.blobs[REPOSITORY][sha256_bytes(data)] = data[:-1] + b"?"
    with pytest.raises(PinwheelError, match="are not those of sha256") as problem:
        run.fetch(model, monkeypatch)
    assert problem.value.exit_code == ExitCode.LOCK
    assert not (run.root / "models/current").exists()


def test_a_registry_that_lies_about_the_manifest_is_found_out(
    run: Run, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = run.register()
    digest = model.rpartition("@")[2]
    kind, data = double.manifests[REPOSITORY][digest]
    double.manifests[REPOSITORY][digest] = (kind, data.replace(b"qwen3", b"llama"))
    with pytest.raises(PinwheelError, match="serves other bytes") as problem:
        run.fetch(model, monkeypatch)
    assert problem.value.exit_code == ExitCode.REGISTRY


def test_a_manifest_without_end_does_not_fill_the_memory(run: Run, double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    model = run.register()
    digest = model.rpartition("@")[2]
    double.manifests[REPOSITORY][digest] = (MANIFEST, b"[" * ((8 << 20) + 1))
    with pytest.raises(PinwheelError, match="answers with more than 8 MiB"):
        run.fetch(model, monkeypatch)


def test_a_manifest_nested_without_end_is_refused() -> None:
    with pytest.raises(PinwheelError, match="no model artifact"):
        artifact.parse(b"[" * 100_000, "x")


def test_a_signature_that_is_no_manifest_is_refused(run: Run, double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    model = run.register()
    double.manifests[REPOSITORY][sig(model)] = ("x", b"[1]")
    with pytest.raises(PinwheelError, match="cannot be read as one") as problem:
        run.fetch(model, monkeypatch)
    assert problem.value.exit_code == ExitCode.POLICY


def test_a_signature_of_the_right_bytes_that_names_no_place_is_refused(
    run: Run, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = run.register()
    sign(double, model, f"@{model.rpartition('@')[2]}", OWN)
    with pytest.raises(PinwheelError, match="it is signed as .*, which is another one"):
        run.fetch(model, monkeypatch)
