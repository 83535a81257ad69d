"""A tiny model, what is asked for of it, and the steps that tests take with it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

from common import paths
from lockfiles import models
from lockfiles.models import folder as model_folder
from lockfiles.models import lockfile as models_lock
from lockfiles.models.lockfile import PinnedModel
from tests.lockfiles.hub_server import Files, HubServer, tensors_file

REPO = "acme/tiny"
SECRET = "hf_verySecretToken"
ASKED = f'[models.tiny]\nrepo = "{REPO}"\nrevision = "main"\n'


def shards(scale: float = 1.0) -> Files:
    index = {"metadata": {"total_size": 24}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    return {
        "model-1.safetensors": tensors_file(a=[scale, 2.0, 3.0]),
        "model-2.safetensors": tensors_file(b=[4.0, 5.0, scale]),
        "model.safetensors.index.json": json.dumps(index).encode(),
    }


DATA: Files = {
    **shards(),
    "README.md": b"# tiny\n",
    "LICENSE": b"Apache-2.0\n",
    "config.json": b'{"architectures": ["TinyForCausalLM"]}',
    "chat_template.jinja": b"{{ messages }}",
    "tokenizer.json": b'{"model": {}}' * 400,
    "tokenizer.model": bytes(range(256)) * 9,
    "onnx café/config.json": b"{}",
}
CODE: Files = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "pytorch_model.bin": b"PK\x03\x04" + pickle.dumps([1.0]),
    "modeling_tiny.py": b"import os\n",
    "training_args.bin": pickle.dumps({}),
}


def ask(text: str) -> None:
    (paths.LOCKFILES / "models.in").write_text(text)


def lock(text: str = ASKED, upgrade: str = "") -> PinnedModel:
    ask(text)
    models.write(models.resolve_all(upgrade))
    return models_lock.read_lock().models[0]


def tree(folder: Path) -> Files:
    """All files below a folder but what Pinwheel or huggingface_hub keep for themselves."""
    found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return {path: data for path, data in found.items() if path != model_folder.RECORD and not path.startswith(".cache/")}


def locked_files(model: PinnedModel) -> set[str]:
    return {file.path for file in model.files}


def upgrade(server: HubServer, files: Files) -> None:
    """The branch moves to these files, and the lock and the store with it."""
    server.push(REPO, files)
    lock(upgrade="tiny")
    models.fetch()
