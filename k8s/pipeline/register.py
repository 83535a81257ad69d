"""Put the exported model into the registry, with its card, its logs and a signature.

    python -m pinwheel_pipeline.register [--config /config] [--key /signing/model.key] [--write /tmp/model]

Reads `run.json`, `base-model.json`, `train.yaml` and `export.yaml` of the run; takes `paths.export` as it is: safetensors,
configuration, tokenizer. Pushes an artifact by CNCF's ModelPack to `model` of the run, signs it as cosign does (the key: PEM,
ECDSA over P-256, no passphrase), tags it with the run's version, reads all of it back, and writes the reference by digest to
/tmp/model. The login is `$DOCKER_CONFIG/config.json`. The same export has the same digest: a second run pushes nothing.

Exit codes: 2 settings, 10 this machine, 14 the registry, 15 what is no whole, safe model.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import stat
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from . import artifact, card, experiment, signature, transfer, wire
from .artifact import DOC, WEIGHT, WEIGHT_CONFIG, Layer
from .experiment import Base, Run
from .registry import Reference, Repository, digest_of
from .wire import POLICY, RefusedError

# Of these one names the vocabulary that every loader needs.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_DOCUMENTS = re.compile(r"(?:LICENSE|NOTICE|USE_POLICY)(?:\.(?:txt|md))?|Modelfile", re.IGNORECASE)
# Steps whose logs are whole by now; this step's own is being written.
_LOGS = ("download", "train", "export")
_OUTCOME = ("all_results.json", "train_results.json", "trainer_log.jsonl")
_INPUTS = ("run.json", "base-model.json", "train.yaml", "export.yaml")
_PRECISIONS = {"BF16": "bf16", "F16": "fp16", "F32": "fp32", "F8_E4M3": "fp8", "I8": "int8", "U8": "uint8"}
_INDEX = "model.safetensors.index.json"

Content = Path | bytes


def main(argv: list[str]) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="register")
    parser.add_argument("--config", type=Path, default=Path("/config"))
    parser.add_argument("--key", type=Path, default=Path("/signing/model.key"))
    parser.add_argument("--write", type=Path, default=Path("/tmp/model"))  # noqa: S108 - of the pod alone, as Argo reads it
    options = parser.parse_args(argv)
    run, base = experiment.read_run(options.config), experiment.read_base(options.config)
    # Before gigabytes go out: a key that cannot sign.
    public = signature.public_half(options.key)
    files = collect(run.export)
    size, precision = weigh([file for kind, file in files.values() if kind == WEIGHT], run.export)
    contents: dict[str, tuple[str, Content]] = {path: (kind, file) for path, (kind, file) in files.items()}
    contents |= {path: (DOC, data) for path, data in documents(run, base, options.config, size, precision).items()}
    layers = tuple(describe(path, kind, content) for path, (kind, content) in sorted(contents.items()))
    config = configuration(run, layers, size, precision, card.licence(run.base))
    manifest = assemble(run, layers, config)
    model = Reference(run.model.host, run.model.path, digest_of(manifest))
    repository = Repository(model, writes=True)
    for layer in layers:
        new = repository.upload(layer.digest, layer.size, contents[layer.path][1])
        wire.say(f"{'pushed' if new else 'was there:'} {layer.path}, {layer.size} bytes")
    repository.upload(digest_of(config), len(config), config)
    repository.put_manifest(model.digest, manifest)
    signature.attach(repository, model, options.key)
    # The tag comes last: what it names is signed.
    repository.put_manifest(run.version, manifest)
    read_back(repository, model, run.version, manifest, layers, public)
    options.write.write_text(str(model), encoding="utf-8")
    wire.say(f"registered {model} as {run.version}, signed")
    return 0


def collect(export: Path) -> dict[str, tuple[str, Path]]:
    """The files of an exported model by path, each with its kind.

    Raises:
        RefusedError: it is no whole model, or holds what does not belong to one.
    """
    if not export.is_dir():
        raise RefusedError(f"{export} does not exist: the export wrote nothing", POLICY)
    found: dict[str, tuple[str, Path]] = {}
    for file in sorted(export.rglob("*")):
        path = str(file.relative_to(export))
        if file.is_dir() and not file.is_symlink():
            continue
        # An export's own README is a template without content: the card takes its place.
        if path == "README.md" and not file.is_symlink():
            continue
        if path.endswith("adapter_config.json"):
            raise RefusedError(f"{export} holds an adapter, not a model: export it first (llamafactory-cli export)", POLICY)
        kind = WEIGHT if path.endswith(".safetensors") else DOC if _DOCUMENTS.fullmatch(path) else WEIGHT_CONFIG
        problem = artifact.unsafe(path) or artifact.refused_ending(kind, path) or ("" if file.is_file() else "it is no file")
        if file.is_symlink() or problem:
            raise RefusedError(f"{export} holds {path!r}: {problem or 'it is a link'}", POLICY)
        found[path] = (kind, file)
    for needed in ("config.json", "tokenizer_config.json"):
        if needed not in found:
            raise RefusedError(f"{export} has no {needed}: it is no whole model", POLICY)
    if not any(name in _VOCABULARIES or name.endswith(".tiktoken") for name in found):
        raise RefusedError(f"{export} has no tokenizer ({', '.join(_VOCABULARIES)}): it is no whole model", POLICY)
    return found


def weigh(weights: list[Path], export: Path) -> tuple[str, str]:
    """How many parameters there are, as ModelPack writes it, and of which precision; and that all shards are there.

    Raises:
        RefusedError: shards are missing or left over, or are none.
    """
    held = {file.name: artifact.tensors(file) for file in weights}
    index = export / _INDEX
    try:
        if index.exists():
            listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            wanted: dict[str, set[str]] = {}
            for tensor, name in listed.items():
                wanted.setdefault(name, set()).add(tensor)
        else:
            wanted = {"model.safetensors": set(held.get("model.safetensors", {}))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise RefusedError(f"{_INDEX} makes no sense: {type(problem).__name__}", POLICY) from None
    for name in sorted({*wanted, *held}):
        if name not in held:
            raise RefusedError(f"{export} has no {name}: the model is not whole", POLICY)
        if name not in wanted:
            raise RefusedError(f"{export} holds {name}, which belongs to no index: it is left over from another export", POLICY)
        if not wanted[name] <= set(held[name]):
            raise RefusedError(
                f"{name} lacks tensors that {_INDEX} names, such as {min(wanted[name] - set(held[name]))}", POLICY
            )
    counts: Counter[str] = Counter()
    for tensors in held.values():
        for one in tensors.values():
            counts[one["dtype"]] += prod(one["shape"])
    if not counts.total():
        raise RefusedError(f"{export} holds no parameters", POLICY)
    ((dtype, _),) = counts.most_common(1)
    total = counts.total()
    unit, letter = next((pair for pair in ((1e12, "t"), (1e9, "b"), (1e6, "m"), (1e3, "k")) if total >= pair[0]), (1, ""))
    return f"{total / unit:.3g}{letter}", _PRECISIONS.get(dtype, dtype.lower())


def documents(run: Run, base: Base, config: Path, size: str, precision: str) -> dict[str, bytes]:
    """What tells of the model: the card, the inputs, the outcome, the logs."""
    inputs = {name: (config / name).read_bytes() for name in _INPUTS}
    found = {f"training/{name}": data for name, data in inputs.items()}
    more = [(f"training/{name}", run.output / name) for name in _OUTCOME]
    more += [(f"logs/{name}.log", run.logs / f"{name}.log") for name in _LOGS]
    more += [("training/dataset_info.json", run.data / "dataset_info.json")]
    for path, file in more:
        data = _read(file)
        if data is not None:
            found[path] = data
    made = card.Made(
        lock=digest_of(inputs["base-model.json"]),
        size=size,
        precision=precision,
        license=card.licence(run.base),
        metrics=card.metrics(run.output),
        train=inputs["train.yaml"].decode(errors="replace"),
        export=inputs["export.yaml"].decode(errors="replace"),
    )
    found["README.md"] = card.text(run, base, made).encode()
    return found


def describe(path: str, kind: str, content: Content) -> Layer:
    """A file's layer."""
    if isinstance(content, bytes):
        return Layer(kind, path, digest_of(content), len(content))
    return Layer(kind, path, f"sha256:{transfer.sha256_of(content)}", content.stat().st_size)


def configuration(run: Run, layers: tuple[Layer, ...], size: str, precision: str, licence: dict[str, str]) -> bytes:
    """ModelPack's configuration (docs/config.md). It has no time in it: the same model is the same bytes."""
    descriptor: dict[str, Any] = {"name": run.model.path.rpartition("/")[2], "version": run.version, "revision": run.source}
    if "license" in licence:
        descriptor["licenses"] = [licence["license"]]
    known = {"architecture": "transformer", "format": "safetensors", "paramSize": size, "precision": precision}
    # Raw layers: what a layer holds is the file itself.
    modelfs = {"type": "layers", "diffIds": [one.digest for one in layers]}
    return artifact.canonical({"descriptor": descriptor, "config": known, "modelfs": modelfs})


def assemble(run: Run, layers: tuple[Layer, ...], config: bytes) -> bytes:
    """The manifest (OCI image specification, "Guidelines for Artifact Usage")."""
    told = {
        artifact.TEMPLATE: run.template,
        "org.opencontainers.image.version": run.version,
        "org.opencontainers.image.revision": run.source,
        "pinwheel.io/experiment": run.experiment,
    }
    return artifact.canonical(
        {
            "schemaVersion": 2,
            "mediaType": artifact.MANIFEST,
            "artifactType": artifact.ARTIFACT,
            "config": {"mediaType": artifact.CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [one.json() for one in layers],
            "annotations": told,
        }
    )


def read_back(
    repository: Repository, model: Reference, tag: str, manifest: bytes, layers: tuple[Layer, ...], public: bytes
) -> None:
    """Insist that the registry holds what was pushed, whole and signed.

    Raises:
        RefusedError: it does not.
    """
    if repository.manifest(tag) != manifest or repository.manifest(model.digest) != manifest:
        raise RefusedError(f"{model.host} holds another manifest than was pushed: do not trust it", wire.REGISTRY)
    for layer in layers:
        if not repository.has(layer.digest, layer.size):
            raise RefusedError(f"{model.host} does not hold {layer.path}, which was pushed", wire.REGISTRY)
    signature.verify(repository, model, public)
    artifact.parse(manifest, str(model))


def _read(file: Path) -> bytes | None:
    """A file that an earlier step left, if it did.

    Raises:
        RefusedError: it is a link or a pipe: here it could lead to the key or the login, and into the registry.
    """
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as data:
            if stat.S_ISREG(os.fstat(data.fileno()).st_mode):
                return data.read()
    except FileNotFoundError:
        return None
    except OSError as problem:
        if problem.errno != errno.ELOOP:
            raise
    raise RefusedError(f"{file} is no file: a step that ran before put something else there", POLICY)


if __name__ == "__main__":
    wire.start("register", main)
