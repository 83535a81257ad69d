"""Signatures of models in cosign's own form, made and checked with openssl alone.

The form: a "simple signing" payload (containers/image, docs/containers-signature.5.md) in a layer of the image manifest that
the tag `sha256-<hex>.sig` names, its signature (ECDSA over P-256 and SHA-256, DER) in an annotation in base64 (sigstore/cosign,
specs/SIGNATURE_SPEC.md). So `cosign verify --key` reads what is written here, and what cosign writes is read here.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .artifact import MANIFEST, canonical
from .registry import Reference, Repository, digest_of
from .wire import ENVIRONMENT, POLICY, USAGE, RefusedError

_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_ANNOTATION = "dev.cosignproject.cosign/signature"
_TYPE = "cosign container image signature"
# SubjectPublicKeyInfo of a P-256 key, DER, as far as it is the same for all (RFC 5480).
_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_MOST_SIGNATURES, _MOST_PAYLOAD = 50, 64 << 10
_LIMIT = 60.0


def public_half(key: Path) -> bytes:
    """The public key, PEM, of a private one.

    Raises:
        RefusedError: it is no unencrypted P-256 key.
    """
    # An empty passphrase: without it openssl would ask for one.
    done = _openssl(["pkey", "-in", str(key), "-passin", "pass:", "-pubout"])
    if done.returncode:
        fix = "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`"
        raise RefusedError(f"{key} is no private key without a passphrase: {fix}", USAGE)
    return _checked(done.stdout, str(key))


def read_public(file: Path) -> bytes:
    """A public key, PEM.

    Raises:
        RefusedError: there is none, or it is no P-256 key.
    """
    try:
        return _checked(file.read_bytes(), str(file))
    except OSError as problem:
        raise RefusedError(f"no public key to check the model's signature with ({file}: {problem.strerror})", POLICY) from None


def attach(repository: Repository, model: Reference, key: Path) -> bool:
    """Sign a model that was pushed; False where this key's signature is there already.

    Raises:
        RefusedError: the key cannot be used, or the registry fails.
    """
    public, payload = public_half(key), _payload(model)
    layers = _layers(repository, model)
    if any(_verdict(repository, one, model, public) == "" for one in layers):
        return False
    done = _openssl(["dgst", "-sha256", "-sign", str(key), "-passin", "pass:"], payload)
    if done.returncode:
        raise RefusedError(f"{key} does not sign: openssl ends with {done.returncode}", USAGE)
    annotations = {_ANNOTATION: base64.b64encode(done.stdout).decode()}
    described = {"mediaType": _PAYLOAD, "digest": digest_of(payload), "size": len(payload), "annotations": annotations}
    repository.upload(digest_of(payload), len(payload), payload)
    # What others signed stays beside it. The configuration is cosign's: it says nothing.
    layers = [*layers, described]
    diff = {"type": "layers", "diff_ids": [one["digest"] for one in layers]}
    config = canonical({"architecture": "", "os": "", "config": {}, "rootfs": diff})
    repository.upload(digest_of(config), len(config), config)
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": layers,
    }
    repository.put_manifest(_tag(model.digest), canonical(body))
    return True


def verify(repository: Repository, model: Reference, public: bytes) -> None:
    """Insist on a signature of exactly this model by this key.

    Raises:
        RefusedError: there is none.
    """
    verdicts = []
    for one in _layers(repository, model):
        verdicts.append(_verdict(repository, one, model, public))
        if not verdicts[-1]:
            return
    # The last word is the most telling: a signature by the right key that says something else.
    told = max(verdicts, key=lambda text: text.startswith("it is signed as"), default="it is not signed")
    raise RefusedError(f"{model} is refused: {told}", POLICY)


def _verdict(repository: Repository, layer: dict[str, Any], model: Reference, public: bytes) -> str:
    """Why a signature does not count, or nothing."""
    annotations = layer.get("annotations")
    digest, text = layer.get("digest"), annotations.get(_ANNOTATION) if isinstance(annotations, dict) else None
    if layer.get("mediaType") != _PAYLOAD or not isinstance(text, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", str(digest)):
        return "what is attached as its signature is none"
    try:
        signature = base64.b64decode(text, validate=True)
    except binascii.Error:
        return "its signature is not base64"
    payload = repository.blob(str(digest), _MOST_PAYLOAD)
    if not _holds(public, signature, payload):
        return "no signature of it is by the key that is trusted here"
    try:
        body = json.loads(payload)["critical"]
        said = f"{body['identity']['docker-reference']}@{body['image']['docker-manifest-digest']}"
        kind = body["type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "its signed payload is not cosign's"
    return "" if (said, kind) == (str(model), _TYPE) else f"it is signed as {said[:300]!r}, which is another one"


def _holds(public: bytes, signature: bytes, payload: bytes) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        key, file = Path(folder) / "key", Path(folder) / "signature"
        key.write_bytes(public)
        file.write_bytes(signature)
        return not _openssl(["dgst", "-sha256", "-verify", str(key), "-signature", str(file)], payload).returncode


def _payload(model: Reference) -> bytes:
    image = {"docker-manifest-digest": model.digest}
    identity = {"docker-reference": f"{model.host}/{model.path}"}
    return canonical({"critical": {"identity": identity, "image": image, "type": _TYPE}, "optional": None})


def _layers(repository: Repository, model: Reference) -> list[dict[str, Any]]:
    data = repository.find_manifest(_tag(model.digest))
    try:
        layers = json.loads(data)["layers"] if data else []
    except (ValueError, KeyError, TypeError, RecursionError):
        layers = None
    if not isinstance(layers, list) or len(layers) > _MOST_SIGNATURES or not all(isinstance(one, dict) for one in layers):
        raise RefusedError(f"{model}: what is attached as its signature is none", POLICY)
    return layers


def _tag(digest: str) -> str:
    return digest.replace(":", "-") + ".sig"


def _checked(pem: bytes, where: str) -> bytes:
    if b"PRIVATE KEY" in pem:
        raise RefusedError(
            f"{where} holds a private key where the public one belongs: replace both, it is no secret any more", POLICY
        )
    found = re.fullmatch(rb"\s*-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*", pem)
    try:
        der = base64.b64decode(b"".join(found[1].split()), validate=True) if found else b""
    except binascii.Error:
        der = b""
    if not der.startswith(_P256) or len(der) != len(_P256) + 64:
        raise RefusedError(f"{where} is no ECDSA key over P-256 in PEM form, the kind that cosign makes", USAGE)
    return pem


def _openssl(argv: list[str], data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["openssl", *argv], input=data, capture_output=True, timeout=_LIMIT, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as problem:
        raise RefusedError(f"openssl cannot be run ({type(problem).__name__}): it belongs to the image", ENVIRONMENT) from None
