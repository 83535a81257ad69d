"""Models and data sets as OCI artifacts, by CNCF's ModelPack specification (modelpack/model-spec, docs/spec.md, v1).

One layer is one file, as it is (`.raw`), under the path that its annotation says. Also here: which files may be part of a model
at all. A file that a loader would run, or unpickle, may not.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import PolicyError
from common.files import unsafe_path
from oci import safetensors
from oci.client.download import PART
from oci.descriptor import MANIFEST
from oci.envelope import read_json

from . import plain

ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHT, WEIGHT_CONFIG, DOC, DATASET = (
    f"application/vnd.cncf.model.{kind}.v1.raw" for kind in ("weight", "weight.config", "doc", "dataset")
)
FILEPATH = "org.cncf.model.filepath"
# ORAS, and programs that follow it, take a file's name from this annotation.
TITLE = "org.opencontainers.image.title"
# LLaMA-Factory's template that the model was trained with: ModelPack's configuration has no place for it, and takes no keys.
TEMPLATE = "pinwheel.io/template"
# Files that a loader reads beside the weights: configurations, vocabularies, chat templates.
CONFIG_ENDINGS = (".json", ".model", ".txt", ".jinja", ".tiktoken", ".bpe")
DATA_ENDINGS = (
    ".json",
    ".jsonl",
    ".csv",
    ".tsv",
    ".txt",
    ".parquet",
    ".arrow",
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".wav",
    ".mp3",
    ".mp4",
)
MOST_FILES = 4000
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of an artifact.

    Attributes:
        kind: its media type.
        path: relative, safe to write below a folder.
        digest: `sha256:…`.
        size: bytes.
    """

    kind: str
    path: str
    digest: str
    size: int

    def json(self) -> dict[str, Any]:
        """As a descriptor of a manifest."""
        annotations = {FILEPATH: self.path, TITLE: self.path}
        return {"mediaType": self.kind, "digest": self.digest, "size": self.size, "annotations": annotations}


@dataclass(frozen=True, slots=True)
class Artifact:
    """The content of a manifest: its files, the template of a model, and the digest of its configuration."""

    layers: tuple[Layer, ...]
    template: str
    config: str
    config_size: int


def unsafe(path: str) -> str:
    """Why nothing may be written to this path below a folder, or nothing."""
    if problem := unsafe_path(path, 255):
        return problem
    if any(part.startswith(".") for part in path.split("/")):
        return "it is hidden"
    if path.endswith(PART):
        return f"{PART} is the ending of what is still being fetched"
    return ""


def refused_ending(kind: str, path: str) -> str:
    """Why a file of this name may not be of this kind, or nothing."""
    allowed = {WEIGHT: (".safetensors",), WEIGHT_CONFIG: CONFIG_ENDINGS, DATASET: DATA_ENDINGS}.get(kind)
    if allowed is None or path.lower().endswith(allowed):
        return ""
    return "it is neither safetensors nor a configuration: it may be code or a pickle, which a loader would run"


def parse(data: bytes, where: str) -> Artifact:
    """Read a manifest.

    Raises:
        PolicyError: it is no manifest of a model or a data set, or names files that must not be written.
    """
    try:
        body = read_json(data)
        if body.get("artifactType") != ARTIFACT or body.get("mediaType", MANIFEST) != MANIFEST:
            raise ValueError("its artifactType is not a model's")
        listed = body["layers"]
        if not isinstance(listed, list) or len(listed) > MOST_FILES:
            raise ValueError(f"more than {MOST_FILES} files")
        layers = tuple(sorted((_layer(entry) for entry in listed), key=lambda layer: layer.path))
        config, annotations = body["config"], body.get("annotations") or {}
        if config["mediaType"] != CONFIG or not _DIGEST.fullmatch(config["digest"]) or type(config["size"]) is not int:
            raise ValueError("its configuration is not a model's")
        template = annotations.get(TEMPLATE, "")
        if not isinstance(template, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{0,64}", template):
            raise ValueError("its template is no name")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise PolicyError(f"{where} is no model artifact ({type(problem).__name__}: {problem})") from None
    paths = {layer.path for layer in layers}
    # Some disks do not tell capitals from small letters.
    if len({path.casefold() for path in paths}) != len(layers):
        raise PolicyError(f"{where} lists a path twice")
    for layer in layers:
        inside = any("/".join(layer.path.split("/")[:depth]) in paths for depth in range(1, layer.path.count("/") + 1))
        reason = unsafe(layer.path) or refused_ending(layer.kind, layer.path) or ("it lies in a file" if inside else "")
        if reason:
            raise PolicyError(f"{where} holds the file {layer.path!r}: {reason}")
    return Artifact(layers, template, config["digest"], config["size"])


def servable(model: Artifact, where: str) -> list[Layer]:
    """The files of a model that a server loads.

    Raises:
        PolicyError: it is an adapter, or lacks what a server needs.
    """
    layers = [layer for layer in model.layers if layer.kind in {WEIGHT, WEIGHT_CONFIG}]
    names = {layer.path for layer in layers}
    if adapters := sorted(name for name in names if name.endswith("adapter_config.json")):
        raise PolicyError(f"{where} holds {adapters[0]}: an adapter, which names another model to load")
    if "config.json" not in names or not any(layer.kind == WEIGHT for layer in layers) or not model.template:
        raise PolicyError(f"{where} is no whole model: config.json, weights or template are missing")
    return layers


def _layer(entry: dict[str, Any]) -> Layer:
    kind, digest, size, path = entry["mediaType"], entry["digest"], entry["size"], (entry.get("annotations") or {})[FILEPATH]
    if kind not in {WEIGHT, WEIGHT_CONFIG, DOC, DATASET}:
        raise ValueError(f"a layer of type {kind!r}: only raw files are taken")
    if not isinstance(path, str) or not _DIGEST.fullmatch(digest) or type(size) is not int or size < 0:
        raise ValueError(f"a layer that makes no sense: {path!r}")
    return Layer(kind, path, digest, size)


def tensors(file: Path) -> dict[str, dict[str, Any]]:
    """The tensors that a safetensors file names, each with dtype and shape.

    Raises:
        PolicyError: it is no safetensors file, whatever its name says; or no file.
    """
    with os.fdopen(plain.opened(file), "rb") as data:
        try:
            return safetensors.tensors(os.fstat(data.fileno()).st_size, lambda count: _first_bytes(data, count))
        except ValueError as problem:
            raise PolicyError(f"{file.name} is no safetensors file: {problem}", where=str(file.parent)) from None


def _first_bytes(data: BinaryIO, count: int) -> bytes:
    data.seek(0)
    return data.read(count)
