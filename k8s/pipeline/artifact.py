"""Models and data sets as OCI artifacts, by CNCF's ModelPack specification (modelpack/model-spec, docs/spec.md, v1).

One layer is one file, as it is (`.raw`), under the path that its annotation says. Also here: which files may be part of a model
at all. What a loader would run, or unpickle, may not.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .transfer import PART
from .wire import POLICY, RefusedError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHT, WEIGHT_CONFIG, DOC, DATASET = (
    f"application/vnd.cncf.model.{kind}.v1.raw" for kind in ("weight", "weight.config", "doc", "dataset")
)
FILEPATH = "org.cncf.model.filepath"
# ORAS, and whatever follows it, names a file by this one.
TITLE = "org.opencontainers.image.title"
# LLaMA-Factory's template that the model was trained with: ModelPack's configuration has no place for it, and takes no keys.
TEMPLATE = "pinwheel.io/template"
# What a loader reads beside the weights: configurations, vocabularies, chat templates.
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
MOST_BYTES = 4 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# The format's own bound (huggingface/safetensors, "Format": the header is limited to 100 MB).
_LONGEST_HEADER = 100_000_000


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
        named = {FILEPATH: self.path, TITLE: self.path}
        return {"mediaType": self.kind, "digest": self.digest, "size": self.size, "annotations": named}


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a manifest says: its files, the template of a model, and the digest of its configuration."""

    layers: tuple[Layer, ...]
    template: str
    config: str
    config_size: int


def canonical(body: object) -> bytes:
    """JSON in the one form we write: sorted keys, no blanks."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def unsafe(path: str) -> str:
    """Why nothing may be written to this path below a folder, or nothing."""
    if not path or len(path.encode(errors="replace")) > 255:
        return "it is empty, or longer than 255 bytes"
    if not path.isprintable() or "\\" in path:
        return "it holds a backslash or an unprintable character"
    if any(part in {"", ".", ".."} for part in path.split("/")):
        return "it is absolute, or leads elsewhere"
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
        RefusedError: it is none of a model or a data set, or names files that must not be written.
    """
    try:
        body = json.loads(data)
        if body.get("artifactType") != ARTIFACT or body.get("mediaType", MANIFEST) != MANIFEST:
            raise ValueError("its artifactType is not a model's")
        listed = body["layers"]
        if not isinstance(listed, list) or len(listed) > MOST_FILES:
            raise ValueError(f"more than {MOST_FILES} files")
        layers = tuple(sorted((_layer(one) for one in listed), key=lambda one: one.path))
        config, annotations = body["config"], body.get("annotations") or {}
        if config["mediaType"] != CONFIG or not _DIGEST.fullmatch(config["digest"]) or type(config["size"]) is not int:
            raise ValueError("its configuration is not a model's")
        template = annotations.get(TEMPLATE, "")
        if not isinstance(template, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{0,64}", template):
            raise ValueError("its template is no name")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise RefusedError(f"{where} is no model artifact ({type(problem).__name__}: {problem})", POLICY) from None
    known = {one.path for one in layers}
    if len(known) != len(layers):
        raise RefusedError(f"{where} holds one path twice", POLICY)
    for one in layers:
        inside = any("/".join(one.path.split("/")[:depth]) in known for depth in range(1, one.path.count("/") + 1))
        problem_ = unsafe(one.path) or refused_ending(one.kind, one.path) or ("it lies in a file" if inside else "")
        if problem_:
            raise RefusedError(f"{where} holds the file {one.path!r}: {problem_}", POLICY)
    return Artifact(layers, template, config["digest"], config["size"])


def _layer(one: dict[str, Any]) -> Layer:
    kind, digest, size, path = one["mediaType"], one["digest"], one["size"], (one.get("annotations") or {})[FILEPATH]
    if kind not in {WEIGHT, WEIGHT_CONFIG, DOC, DATASET}:
        raise ValueError(f"a layer of type {kind!r}: only raw files are taken")
    if not isinstance(path, str) or not _DIGEST.fullmatch(digest) or type(size) is not int or size < 0:
        raise ValueError(f"a layer that makes no sense: {path!r}")
    return Layer(kind, path, digest, size)


def tensors(file: Path) -> dict[str, dict[str, Any]]:
    """The tensors that a safetensors file names, each with dtype and shape (huggingface/safetensors, "Format").

    Raises:
        RefusedError: it is no safetensors file, whatever its name says.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as data:
            (length,) = struct.unpack("<Q", data.read(8))
            if length > min(_LONGEST_HEADER, size):
                raise ValueError("its header is longer than may be")
            header = json.loads(data.read(length))
        found = {name: one for name, one in header.items() if name != "__metadata__"}
        end = max((one["data_offsets"][1] for one in found.values()), default=0)
        if 8 + length + end != size:
            raise ValueError("it is shorter or longer than its header says")
        for one in found.values():
            if not isinstance(one["dtype"], str) or not all(type(side) is int and side >= 0 for side in one["shape"]):
                raise ValueError("a tensor without type or shape")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, struct.error) as problem:
        what = f"{file.name} is no safetensors file ({type(problem).__name__}: {problem}): it may be a pickle"
        raise RefusedError(what, POLICY) from None
    return found
