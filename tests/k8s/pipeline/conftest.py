"""A run of the pipeline in a folder: its ConfigMap, an exported model, keys; and registries to push it to."""

from __future__ import annotations

import atexit
import base64
import dataclasses
import functools
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from common.files import sha256_bytes
from images import files, spec
from k8s.pipeline import artifact, cluster, download, fetch, register
from k8s.pipeline.program import say
from oci.descriptor import MANIFEST, canonical
from tests.lockfiles.hub_server import tensors_file
from tests.oci.conftest import QUICK
from tests.oci.double import PASSWORD, USER, Double, serving
from tests.oci.real import CERTIFICATE, RealRegistry

VERSION = "sft-0123456789ab"
OWN, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
TRAIN = "stage: sft\ndo_train: true\nfinetuning_type: lora\ntemplate: qwen3_nothink\n"


def model_files() -> dict[str, bytes]:
    """A tiny exported model, two shards and what a loader needs beside them."""
    names = {"embed.weight": "model-00001-of-00002.safetensors", "head.weight": "model-00002-of-00002.safetensors"}
    return {
        "config.json": b'{"architectures":["LlamaForCausalLM"],"model_type":"llama"}',
        "generation_config.json": b"{}",
        "model-00001-of-00002.safetensors": tensors_file(**{"embed.weight": [float(n) for n in range(900)]}),
        "model-00002-of-00002.safetensors": tensors_file(**{"head.weight": [float(-n) for n in range(600)]}),
        "model.safetensors.index.json": json.dumps({"metadata": {"total_size": 6000}, "weight_map": names}).encode(),
        "tokenizer.json": b'{"version":"1.0"}',
        "tokenizer_config.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
    }


def base_files() -> dict[str, bytes]:
    """A tiny base model as a hub has it."""
    card = b"---\nlicense: apache-2.0\ntags: [base]\n---\n# Tiny\n"
    weights = tensors_file(**{"embed.weight": [float(n) for n in range(900)]})
    return {".gitattributes": b"*.safetensors lfs\n", "README.md": card, "config.json": b"{}", "model.safetensors": weights}


@dataclass
class Run:
    """A run in a folder; `registry` is where its model and data set go."""

    root: Path
    registry: str = "127.0.0.1:1"
    base: dict[str, bytes] = field(default_factory=base_files)
    repo: str = "team/tiny"
    commit: str = "b" * 40
    dataset: str = "sha256:" + "d" * 64

    def __post_init__(self) -> None:
        for name, key in (("own", OWN), ("other", OTHER)):
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (self.root / f"{name}.key").write_bytes(pem)
            public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            (self.root / f"{name}.pub").write_bytes(public)
        self.settings = self.root / "inference.yaml"
        self.settings.write_text("infer_backend: vllm\ntrust_remote_code: false\n")

    @property
    def config(self) -> Path:
        return self.root / "config"

    def path(self, name: str) -> Path:
        return self.root / "work" / name

    def write(self) -> Run:
        """The ConfigMap as `invoke train` makes it, the export, and what the training left."""
        self.config.mkdir(exist_ok=True)
        names = ("base", "dataset", "output", "export", "logs")
        body = {
            "format": 2,
            "version": VERSION,
            "experiment": "experiments/team/tiny/sft.yaml",
            "source": "a" * 40,
            "model": f"{self.registry}/models/team-tiny",
            "dataset": f"{self.registry}/datasets/team-tiny@{self.dataset}",
            "template": "qwen3_nothink",
            "train-image": f"{self.registry}/llama-factory-train@sha256:" + "1" * 64,
            "base-repository": f"{self.registry}/models/base/tiny",
            "paths": {name: str(self.path(name)) for name in names},
        }
        (self.config / "run.json").write_text(json.dumps(body))
        files = [{"path": p, "size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for p, d in sorted(self.base.items())]
        lock = {"name": "tiny", "repo": self.repo, "revision": self.commit, "files": files}
        (self.config / "base-model.json").write_text(json.dumps(lock))
        (self.config / "train.yaml").write_text(TRAIN)
        (self.config / "export.yaml").write_text("export_size: 5\n")
        return self

    def export(self, files: dict[str, bytes] | None = None) -> Run:
        for name, data in (files or model_files()).items():
            self.put(f"export/{name}", data)
        self.put("output/train_results.json", b'{"epoch": 3.0, "train_loss": 0.25}')
        self.put("output/trainer_log.jsonl", b'{"loss": 2.5}\n{"loss": 0.125}\n{"percentage": 100}\n')
        self.put("logs/train.log", b"trained\n")
        self.put("logs/register.log", b"this very step, still going on\n")
        self.put("dataset/dataset_info.json", b'{"rows": {"file_name": "rows.json"}}')
        self.put("base/README.md", self.base["README.md"])
        return self

    def put(self, name: str, data: bytes) -> Path:
        file = self.path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file

    def register(self, key: str = "own") -> str:
        """Register the export; the reference by digest."""
        told = self.root / "model"
        argv = ["--config", str(self.config), "--key", str(self.root / f"{key}.key"), "--write", str(told)]
        assert register.main(argv) == 0
        return told.read_text()

    def fetch(self, model: str, monkeypatch: pytest.MonkeyPatch, key: str = "own", trust: str = "") -> Path:
        """Fetch a model as an inference pod does; the folder."""
        monkeypatch.setenv("MODEL", model)
        monkeypatch.setenv("MODEL_TRUST", trust)
        volume = self.root / "models"
        volume.mkdir(exist_ok=True)
        argv = ["--config", str(self.settings), "--models", str(volume), "--key", str(self.root / f"{key}.pub")]
        assert fetch.main(argv) == 0
        return volume


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Short pauses, and nobody's own login, hub or token; the folder of Docker's configuration."""
    for module in (cluster, download, fetch, register):
        monkeypatch.setattr(module, "PATIENCE", dataclasses.replace(QUICK, tries=6, tell=say))
    for name in ("HF_TOKEN", "HF_ENDPOINT", "MODEL", "MODEL_TRUST", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


@pytest.fixture
def double() -> Iterator[Double]:
    with serving() as state:
        yield state


@pytest.fixture
def run(tmp_path: Path, double: Double) -> Run:
    return Run(tmp_path, double.address).write().export()


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Callable[..., RealRegistry]]:
    started: list[RealRegistry] = []

    def start(**options: Any) -> RealRegistry:
        one = RealRegistry(tmp_path / "registry", **options)
        started.append(one)
        one.start()
        return one

    yield start
    for one in started:
        one.stop()


def log_in(folder: Path, host: str, password: str = PASSWORD, **more: str) -> None:
    """Docker's configuration, as a Secret of type kubernetes.io/dockerconfigjson brings it."""
    known = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": known, **more}}}))


def trust_tests_ca(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


@functools.cache
def shipped() -> Path:
    """The programs as they lie in the images, below `/opt/pinwheel`."""
    plan = files.layer_plan(spec.read("train"))
    assert plan is not None
    root = Path(tempfile.mkdtemp(prefix="pinwheel-shipped-"))
    atexit.register(shutil.rmtree, root)
    for file in plan.files:
        target = root / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.source, target)
    return root / "opt" / "pinwheel"


def program(name: str, *argv: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start a program as a pod does: as a module of the package in the image, with nothing else of this project importable."""
    clean = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **(env or {})}
    command = [sys.executable, "-m", f"pinwheel_pipeline.{name}", *argv]
    return subprocess.Popen(
        command, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=shipped(), **options
    )


def push(double: Double, path: str, files: dict[str, bytes], kind: str = artifact.DATASET, **changes: Any) -> str:
    """Put an artifact straight into the double, whatever it is; its reference. `changes` replace parts of the manifest."""
    layers = []
    for name, data in files.items():
        double.blobs[path][sha256_bytes(data)] = data
        which = artifact.WEIGHT if kind == artifact.WEIGHT_CONFIG and name.endswith(".safetensors") else kind
        layers.append(artifact.Layer(which, name, sha256_bytes(data), len(data)).json())
    double.blobs[path][sha256_bytes(b"{}")] = b"{}"
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact.ARTIFACT,
        "config": {"mediaType": artifact.CONFIG, "digest": sha256_bytes(b"{}"), "size": 2},
        "layers": layers,
        "annotations": {artifact.TEMPLATE: "llama3"},
        **changes,
    }
    data = canonical(body)
    double.manifests[path][sha256_bytes(data)] = (MANIFEST, data)
    return f"{double.address}/{path}@{sha256_bytes(data)}"
