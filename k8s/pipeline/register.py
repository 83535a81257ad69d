"""Put the exported model into the registry, with its card, its logs and a signature.

    python -m pinwheel_pipeline.register [--config /config] [--key FILE] [--write /tmp/model]

Reads `run.json`, `base-model.json`, `train.yaml` and `export.yaml` of the run; takes `paths.export` as it is: safetensors,
configuration, tokenizer. Pushes an artifact by CNCF's ModelPack to `model` of the run, signs it as cosign does (the key: PEM,
ECDSA over P-256, no passphrase), tags it with the run's version, reads all of it back, and writes the reference by digest to
/tmp/model. The login is `$DOCKER_CONFIG/config.json`. The same export has the same digest: a second run pushes nothing.

Exit codes: 2 settings, 10 this machine, 14 the registry, 15 the export is not a whole and safe model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import PolicyError, RegistryError, UsageError
from common.files import sha256_bytes
from oci import attachments, envelope, signature
from oci.client.blob import Blob
from oci.client.client import Client
from oci.client.target import Registry
from oci.descriptor import MANIFEST, canonical
from oci.envelope import PublicKey
from oci.reference import ImageRef

from . import artifact, card, experiment, plain
from .artifact import DOC, WEIGHT, WEIGHT_CONFIG, Layer
from .experiment import Base, Run
from .program import PATIENCE, say, start

# Not a mounted file: Argo mounts all volumes of a step's container into the one of its own that stands beside it.
KEY_VARIABLE = "MODEL_SIGNING_KEY"
# Every loader needs a vocabulary: one of these files.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_DOCUMENTS = re.compile(r"(?:LICENSE|NOTICE|USE_POLICY)(?:\.(?:txt|md))?|Modelfile", re.IGNORECASE)
# Steps whose logs are complete; the log of this step is still being written.
_LOGS = ("download", "train", "export")
_RESULTS = ("all_results.json", "train_results.json", "trainer_log.jsonl")
_INPUTS = ("run.json", "base-model.json", "train.yaml", "export.yaml")
_PRECISIONS = {"BF16": "bf16", "F16": "fp16", "F32": "fp32", "F8_E4M3": "fp8", "I8": "int8", "U8": "uint8"}
_INDEX = "model.safetensors.index.json"

Content = Path | bytes


def main(argv: list[str]) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="register")
    parser.add_argument("--config", type=Path, default=Path("/config"))
    parser.add_argument("--key", type=Path)
    parser.add_argument("--write", type=Path, default=Path("/tmp/model"))  # noqa: S108 - of the pod alone, as Argo reads it
    options = parser.parse_args(argv)
    run, base = experiment.read_run(options.config), experiment.read_base(options.config)
    # Find out now, before gigabytes are sent, whether the key can sign.
    key = private_key(options.key)
    files = collect(run.export)
    size, precision = weigh([file for kind, file in files.values() if kind == WEIGHT], run.export)
    contents: dict[str, tuple[str, Content]] = {path: (kind, file) for path, (kind, file) in files.items()}
    contents |= {path: (DOC, data) for path, data in documents(run, base, options.config, size, precision).items()}
    layers = tuple(describe(path, kind, content) for path, (kind, content) in sorted(contents.items()))
    config = configuration(run, layers, size, precision, card.licence(run.base))
    manifest = assemble(run, layers, config)
    model = run.model.pin(sha256_bytes(manifest))
    with Client(Registry(model.registry, f"{model.repository}/"), PATIENCE, writes=True) as client:
        for layer in layers:
            new = _push(client, model, layer.path, layer.digest, layer.size, contents[layer.path][1])
            say(f"{'pushed' if new else 'already there:'} {layer.path}, {layer.size} bytes")
        _push(client, model, "configuration", sha256_bytes(config), len(config), config)
        client.put_manifest(model.repository, model.digest, manifest)
        attached = attachments.read(client, model.repository, model.digest, ("sig",))
        if not signature.is_signed(attached, model, key.public_key()):
            signature.attach(client, model, attached, lambda data: envelope.sign(key, data))
        # The tag comes last, so that it never names an unsigned manifest.
        client.put_manifest(model.repository, run.version, manifest)
        read_back(client, model, run.version, manifest, layers, key.public_key())
    options.write.write_text(str(model), encoding="utf-8")
    say(f"registered {model} as {run.version}, signed")
    return 0


def private_key(file: Path | None) -> ec.EllipticCurvePrivateKey:
    """The key to sign with: of a file, else of the variable, which nothing that is started later sees.

    Raises:
        UsageError: there is none, or it is no such key.
    """
    if file:
        return envelope.private_key(file.read_bytes(), str(file))
    pem = os.environ.pop(KEY_VARIABLE, "")
    if not pem:
        raise UsageError(f"no key to sign with: {KEY_VARIABLE} is empty", fix="put it into the Secret model-signing-key")
    return envelope.private_key(pem.encode(), KEY_VARIABLE)


def _push(client: Client, model: ImageRef, name: str, digest: str, size: int, content: Content) -> bool:
    """Send a blob; returns False if the registry has it already."""
    if client.exists(model.repository, digest, size):
        return False
    with Blob(name, digest, size, content, fix="run the step again") as blob:
        client.upload(model.repository, blob, lambda _: None)
    return True


def collect(export: Path) -> dict[str, tuple[str, Path]]:
    """The files of an exported model by path, each with its kind.

    Raises:
        PolicyError: it is not a whole model, or holds other files.
    """
    try:
        plain.check_folder(export)
    except FileNotFoundError:
        raise PolicyError(f"{export} does not exist: the export wrote nothing") from None
    files: dict[str, tuple[str, Path]] = {}
    for file in sorted(export.rglob("*")):
        path = str(file.relative_to(export))
        if file.is_dir() and not file.is_symlink():
            continue
        # The export's own README is an empty template: the card replaces it.
        if path == "README.md" and not file.is_symlink():
            continue
        if path.endswith("adapter_config.json"):
            raise PolicyError(f"{export} holds an adapter, not a model: export it first (llamafactory-cli export)")
        kind = WEIGHT if path.endswith(".safetensors") else DOC if _DOCUMENTS.fullmatch(path) else WEIGHT_CONFIG
        problem = artifact.unsafe(path) or artifact.refused_ending(kind, path) or ("" if file.is_file() else "it is no file")
        if file.is_symlink() or problem:
            raise PolicyError(f"{export} holds {path!r}: {problem or 'it is a link'}")
        files[path] = (kind, file)
    for needed in ("config.json", "tokenizer_config.json"):
        if needed not in files:
            raise PolicyError(f"{export} has no {needed}: it is no whole model")
    if not any(name in _VOCABULARIES or name.endswith(".tiktoken") for name in files):
        raise PolicyError(f"{export} has no tokenizer ({', '.join(_VOCABULARIES)}): it is no whole model")
    return files


def weigh(weights: list[Path], export: Path) -> tuple[str, str]:
    """Count the parameters, and check that all shards are there.

    Returns:
        how many there are, as ModelPack writes it (`8.03b`), and the precision of most of them (`bf16`).

    Raises:
        PolicyError: shards are missing or left over, or are no safetensors files.
    """
    tensors_by_file = {file.name: artifact.tensors(file) for file in weights}
    index = export / _INDEX
    try:
        if index.exists():
            listed = json.loads(plain.read(index) or b"")["weight_map"]
            listed_by_file: dict[str, set[str]] = {}
            for tensor, name in listed.items():
                listed_by_file.setdefault(name, set()).add(tensor)
        else:
            listed_by_file = {"model.safetensors": set(tensors_by_file.get("model.safetensors", {}))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise PolicyError(f"{_INDEX} makes no sense: {type(problem).__name__}") from None
    for name in sorted({*listed_by_file, *tensors_by_file}):
        if name not in tensors_by_file:
            raise PolicyError(f"{export} has no {name}: the model is not whole")
        if name not in listed_by_file:
            raise PolicyError(f"{export} holds {name}, which belongs to no index: it is left over from another export")
        if not listed_by_file[name] <= set(tensors_by_file[name]):
            raise PolicyError(
                f"{name} lacks tensors that {_INDEX} names, such as {min(listed_by_file[name] - set(tensors_by_file[name]))}"
            )
    counts: Counter[str] = Counter()
    for tensors in tensors_by_file.values():
        for header in tensors.values():
            counts[header["dtype"]] += prod(header["shape"])
    if not counts.total():
        raise PolicyError(f"{export} holds no parameters")
    ((dtype, _),) = counts.most_common(1)
    total = counts.total()
    unit, letter = next((pair for pair in ((1e12, "t"), (1e9, "b"), (1e6, "m"), (1e3, "k")) if total >= pair[0]), (1, ""))
    return f"{total / unit:.3g}{letter}", _PRECISIONS.get(dtype, dtype.lower())


def documents(run: Run, base: Base, config: Path, size: str, precision: str) -> dict[str, bytes]:
    """The documents beside the model: card, inputs, results, logs."""
    inputs = {name: (config / name).read_bytes() for name in _INPUTS}
    documents_by_path = {f"training/{name}": data for name, data in inputs.items()}
    files = [(f"training/{name}", run.output / name) for name in _RESULTS]
    files += [(f"logs/{name}.log", run.logs / f"{name}.log") for name in _LOGS]
    files += [("training/dataset_info.json", run.data / "dataset_info.json")]
    for path, file in files:
        data = plain.read(file)
        if data is not None:
            documents_by_path[path] = data
    facts = card.Facts(
        lock=sha256_bytes(inputs["base-model.json"]),
        size=size,
        precision=precision,
        license=card.licence(run.base),
        metrics=card.metrics(run.output),
        train=inputs["train.yaml"].decode(errors="replace"),
        export=inputs["export.yaml"].decode(errors="replace"),
    )
    documents_by_path["README.md"] = card.text(run, base, facts).encode()
    return documents_by_path


def describe(path: str, kind: str, content: Content) -> Layer:
    """A file's layer."""
    if isinstance(content, bytes):
        return Layer(kind, path, sha256_bytes(content), len(content))
    with os.fdopen(plain.opened(content), "rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        return Layer(kind, path, digest, os.fstat(file.fileno()).st_size)


def configuration(run: Run, layers: tuple[Layer, ...], size: str, precision: str, licence: dict[str, str]) -> bytes:
    """ModelPack's configuration (docs/config.md). It holds no time: the same model gives the same bytes."""
    descriptor: dict[str, Any] = {
        "name": run.model.repository.rpartition("/")[2],
        "version": run.version,
        "revision": run.source,
    }
    if "license" in licence:
        descriptor["licenses"] = [licence["license"]]
    model_config = {"architecture": "transformer", "format": "safetensors", "paramSize": size, "precision": precision}
    # Raw layers: the layer's content is the file itself.
    modelfs = {"type": "layers", "diffIds": [layer.digest for layer in layers]}
    return canonical({"descriptor": descriptor, "config": model_config, "modelfs": modelfs})


def assemble(run: Run, layers: tuple[Layer, ...], config: bytes) -> bytes:
    """The manifest (OCI image specification, "Guidelines for Artifact Usage")."""
    annotations = {
        artifact.TEMPLATE: run.template,
        "org.opencontainers.image.version": run.version,
        "org.opencontainers.image.revision": run.source,
        "pinwheel.io/experiment": run.experiment,
    }
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact.ARTIFACT,
            "config": {"mediaType": artifact.CONFIG, "digest": sha256_bytes(config), "size": len(config)},
            "layers": [layer.json() for layer in layers],
            "annotations": annotations,
        }
    )


def read_back(client: Client, model: ImageRef, tag: str, manifest: bytes, layers: tuple[Layer, ...], public: PublicKey) -> None:
    """Check that the registry holds what was pushed, whole and signed.

    Raises:
        RegistryError: it does not.
        PolicyError: it does not hold the signature.
    """
    if any(client.manifest(model.repository, name) != manifest for name in (tag, model.digest)):
        raise RegistryError("the registry holds another manifest than was pushed", where=str(model), fix="do not trust it")
    for layer in layers:
        if not client.exists(model.repository, layer.digest, layer.size):
            raise RegistryError(f"the registry does not hold {layer.path}, which was pushed", where=str(model))
    signature.verify(client, model, public)


if __name__ == "__main__":
    start("register", main)
