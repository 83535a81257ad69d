"""How a container of an image under test is held, and what is said when it does not do as it should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest
from docker.models.containers import ExecResult
from testcontainers.core.config import testcontainers_config

from common.errors import ExitCode, SmokeError
from smoke import container, engine
from smoke.container import Sandbox, Spec, complaint, options

SPEC = Spec("vllm serve", "sha256:" + "0" * 64, ("vllm", "serve"), {"io.pinwheel.smoke": "run"}, "a-volume", {"A": "b"})


class FakeContainer:
    """A container whose life is a list of states, one for each time it is looked at; the last one stays."""

    id = short_id = "c0ffee"

    def __init__(self, *states: str, code: int = 0, log: bytes = b"", oom: bool = False) -> None:
        self._states, self._code, self._log = list(states), code, log
        self.attrs = {"State": {"OOMKilled": oom}}
        self.status = "created"
        self.removed = False

    def reload(self) -> None:
        self.status = self._states.pop(0) if len(self._states) > 1 else self._states[0]

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self._code}

    def logs(self, **_: Any) -> bytes:
        return self._log

    def stats(self, **_: Any) -> dict[str, Any]:
        return {"memory_stats": {"usage": 1000, "stats": {"inactive_file": 300}}}

    def exec_run(self, **_: Any) -> ExecResult:
        return ExecResult(7, b"connection refused")

    def remove(self, **_: Any) -> None:
        self.removed = True


class FakeClient:
    """Testcontainers' client: keeps what it was asked to create."""

    def __init__(self, container: FakeContainer, refuses: bool = False) -> None:
        self.client = SimpleNamespace(close=lambda: None)
        self.made: dict[str, Any] = {}
        self._container, self._refuses = container, refuses

    def create(self, image: str, **arguments: Any) -> FakeContainer:
        self.made = {"image": image, **arguments}
        return self._container

    def start(self, _: FakeContainer) -> None:
        if self._refuses:
            raise docker.errors.APIError("500", explanation='exec: "vllm": executable file not found')


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sandbox]:
    monkeypatch.setattr(container, "_POLL_S", 0.01)

    def make(fake: FakeContainer, spec: Spec = SPEC, *, refuses: bool = False) -> Sandbox:
        client = FakeClient(fake, refuses)
        monkeypatch.setattr("testcontainers.core.container.DockerClient", lambda **_: client)
        return Sandbox(spec, tmp_path / "logs")

    return make


def made(box: Sandbox) -> dict[str, Any]:
    client = box.get_docker_client()
    assert isinstance(client, FakeClient)
    return client.made


def test_final_arguments(sandbox: Callable[..., Sandbox]) -> None:
    fake = FakeContainer("running")
    with sandbox(fake) as box:
        assert made(box) == {
            "image": SPEC.image,
            "command": ["vllm", "serve"],
            "environment": {"A": "b"},
            "ports": {},
            "name": None,
            "volumes": {"a-volume": {"bind": "/workspace", "mode": "rw"}},
            "tmpfs": {"/tmp": "rw,exec,nosuid,nodev,size=2g,mode=1777"},
            "labels": {"io.pinwheel.smoke": "run"},
            "working_dir": "/workspace/run",
            "read_only": True,
            "network": "none",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "mem_limit": 8 << 30,
            "memswap_limit": 8 << 30,
            "pids_limit": 4096,
            "shm_size": 64 << 20,
        }
    assert fake.removed


def test_gpu_is_requested_and_nothing_else_changes() -> None:
    request = engine.gpu_request({"Runtimes": {"nvidia": {}}})
    gpu = Spec(**{**{name: getattr(SPEC, name) for name in SPEC.__slots__}, "gpu": request})
    assert options(gpu) == {**options(SPEC), "device_requests": [request]}


def test_no_reaper_container_is_started() -> None:
    assert testcontainers_config.ryuk_disabled


def test_never_ready(sandbox: Callable[..., Sandbox], tmp_path: Path) -> None:
    with (
        pytest.raises(
            SmokeError, match=r"vllm serve was not ready within 0 s \(still loading; log: .*vllm-serve\.log\)"
        ) as caught,
        sandbox(FakeContainer("running", log=b"still loading\n")) as box,
    ):
        box.await_http("http://127.0.0.1:8000/health", 0.05)
    assert caught.value.exit_code == ExitCode.SMOKE
    assert (tmp_path / "logs/vllm-serve.log").read_bytes() == b"still loading\n"


def test_ends_before_it_is_ready(sandbox: Callable[..., Sandbox]) -> None:
    log = b"start\nTraceback ...\nRuntimeError: Insufficient space in /dev/shm\nRuntimeError: Engine failed\n"
    with (
        pytest.raises(SmokeError, match=r"ended with code 1 before it was ready \(RuntimeError: Insufficient space"),
        sandbox(FakeContainer("running", "running", "exited", code=1, log=log)) as box,
    ):
        box.await_http("http://127.0.0.1:8000/health", 60)


def test_program_fails(sandbox: Callable[..., Sandbox]) -> None:
    with (
        pytest.raises(SmokeError, match=r"ended with code 2 \(it said nothing; log"),
        sandbox(FakeContainer("running", "exited", code=2)) as box,
    ):
        box.finish(60)


def test_killed_for_memory(sandbox: Callable[..., Sandbox]) -> None:
    with (
        pytest.raises(SmokeError, match=r"code 137, killed: it needs more than 8\.59 GB of memory"),
        sandbox(FakeContainer("exited", code=137, oom=True)) as box,
    ):
        box.finish(60)


def test_program_does_not_end(sandbox: Callable[..., Sandbox]) -> None:
    fake = FakeContainer("running")
    with pytest.raises(SmokeError, match="did not end within 0 s"), sandbox(fake) as box:
        box.finish(0.05)
    assert fake.removed


def test_start_fails_and_the_created_container_is_removed(sandbox: Callable[..., Sandbox]) -> None:
    fake = FakeContainer("created")
    with pytest.raises(SmokeError, match="does not start .*executable file not found"):
        sandbox(fake, refuses=True).__enter__()
    assert fake.removed


def test_memory_is_counted_without_droppable_files(sandbox: Callable[..., Sandbox]) -> None:
    with sandbox(FakeContainer("running", "exited")) as box:
        assert box.finish(60).memory == 700


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (b"", "it said nothing"),
        (b"one\n\ntwo\n", "one | two"),
        (b"(Core pid=1) ERROR [a.py:1] ValueError: bad\nKeyError: then\n", "ValueError: bad"),
        (b"warning: could lead to `OSError: [Errno 24]`\nbye\n", "warning: could lead to `OSError: [Errno 24]` | bye"),
        (b"openai.InternalServerError: Error code: 500\n", "openai.InternalServerError: Error code: 500"),
    ],
)
def test_complaint(log: bytes, said: str) -> None:
    assert complaint(log) == said
