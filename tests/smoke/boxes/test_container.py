"""How a container of an image under test is held, and what is said when it does not do as it should."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import docker.errors
import pytest
import requests
from docker.types import DeviceRequest
from testcontainers.core.config import testcontainers_config

from common.errors import ExitCode, SmokeError
from smoke.boxes import container
from smoke.boxes.box import complaint
from smoke.boxes.container import Sandbox
from smoke.boxes.held import Spec, options
from smoke.boxes.opener import Opener
from smoke.boxes.session import Session
from smoke.machine import engine

SPEC = Spec("vllm serve", "sha256:" + "0" * 64, ("vllm", "serve"), {"io.pinwheel.smoke": "run"}, "a-volume", {"A": "b"})


def answered(code: int, stdout: bytes | None, stderr: bytes | None) -> SimpleNamespace:
    """As docker-py answers an exec whose streams are kept apart."""
    return SimpleNamespace(exit_code=code, output=(stdout, stderr))


class FakeContainer:
    """A container whose life is a list of states, one for each time it is looked at or waited for; the last one stays."""

    id = short_id = "c0ffee"

    def __init__(self, *states: str, code: int = 0, log: bytes = b"", oom: bool = False) -> None:
        self._states, self._code, self._log = list(states), code, log
        self.attrs = {"State": {"OOMKilled": oom}}
        self.status = "created"
        self.removed = False
        self.asked: list[tuple[list[str], dict[str, str]]] = []
        self.answer = answered(7, None, b"connection refused")

    def reload(self) -> None:
        if self.removed:
            raise docker.errors.NotFound("no such container")
        self.status = self._states.pop(0) if len(self._states) > 1 else self._states[0]

    def wait(self, timeout: float) -> dict[str, int]:
        self.reload()
        if self.status == "running":
            time.sleep(min(timeout, 0.02))
            raise requests.ConnectionError("Read timed out.")
        return {"StatusCode": self._code}

    def logs(self, **_: Any) -> bytes:
        if self.removed:
            raise docker.errors.NotFound("no such container")
        return self._log

    def stats(self, **_: Any) -> Iterator[dict[str, Any]]:
        for usage in (500, 1000, 400):
            yield {"memory_stats": {"usage": usage, "stats": {"inactive_file": 300}}}
        yield {}

    def exec_run(self, command: list[str], *, demux: bool, environment: dict[str, str]) -> SimpleNamespace:
        assert demux
        self.asked.append((command, environment))
        return self.answer

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
    monkeypatch.setattr(container, "_PAUSE_S", 0.01)
    monkeypatch.setattr(container, "_SAY_S", 0.05)

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
            "entrypoint": [],
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


def test_memory_is_counted_without_droppable_files_and_while_nobody_waits(sandbox: Callable[..., Sandbox]) -> None:
    with sandbox(FakeContainer("exited")) as box:
        for thread in threading.enumerate():
            if thread.name == "memory of vllm serve":
                thread.join()
        assert box.finish(60).memory == 700


def test_another_code_is_asked_for(sandbox: Callable[..., Sandbox]) -> None:
    with sandbox(FakeContainer("exited", code=2)) as box:
        assert box.finish(60, code=2).code == 2
        assert box.finish(60, code=None).code == 2
        with pytest.raises(SmokeError, match="vllm serve ended with code 2, not with 3"):
            box.finish(60, code=3)


def test_stopped_from_another_thread_while_it_is_waited_for(sandbox: Callable[..., Sandbox], tmp_path: Path) -> None:
    fake = FakeContainer("running", log=b"working\n")
    with sandbox(fake) as box:
        threading.Timer(0.1, box.stop).start()
        with pytest.raises(SmokeError, match=r"vllm serve was ended \(working; log: "):
            box.finish(60)
        assert fake.removed
        box.stop()
    assert (tmp_path / "logs/vllm-serve.log").read_bytes() == b"working\n"


def test_stopped_before_it_was_started(sandbox: Callable[..., Sandbox]) -> None:
    fake = FakeContainer("running")
    box = sandbox(fake)
    box.stop()
    with pytest.raises(SmokeError, match="vllm serve was ended"):
        box.__enter__()
    assert fake.removed


def test_a_key_is_on_no_command_line(sandbox: Callable[..., Sandbox]) -> None:
    fake = FakeContainer("running")
    fake.answer = answered(0, b"", b"")
    with sandbox(fake) as box:
        box.await_http("http://127.0.0.1:8000/health", 5, key="open-sesame")
    ((command, environment),) = fake.asked
    assert "open-sesame" not in " ".join(command)
    assert environment == {"SMOKE_KEY": "open-sesame"}


def test_what_the_engine_refuses_is_an_error_of_ours(sandbox: Callable[..., Sandbox]) -> None:
    fake = FakeContainer("running", log=b"working\n")

    def refuse(**_: Any) -> None:
        raise docker.errors.APIError("500", explanation="cannot kill container: it hangs in a driver")

    fake.stop = fake.kill = refuse  # type: ignore[attr-defined]
    with sandbox(fake) as box:
        with pytest.raises(SmokeError, match=r"vllm serve cannot be told to stop \(cannot kill container: it hangs"):
            box.terminate(1)
        with pytest.raises(SmokeError, match=r"vllm serve takes no signal \(cannot kill container: it hangs"):
            box.signal(9)


def test_what_it_said_is_known_after_it_was_removed(sandbox: Callable[..., Sandbox]) -> None:
    with sandbox(FakeContainer("running", log=b"working\n")) as box:
        box.stop()
        assert box.output() == "working\n"
        assert box.tail().startswith("working; log: ")
        box.log.unlink()
        with pytest.raises(SmokeError, match="its output is lost"):
            box.output()


def test_who_looks_at_devices_gets_every_gpu_and_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testcontainers.core.container.DockerClient", lambda **_: FakeClient(FakeContainer("running")))
    one, every = (DeviceRequest(count=count, capabilities=[["gpu"]]) for count in (1, -1))
    image = SimpleNamespace(digest=SPEC.image)
    session = Session(Mock())
    opener = Opener(session, {"train": image, "api": image}, one, tmp_path, every)  # type: ignore[dict-item]
    asked = {
        name: opener(name, "api", [], {}, 0).spec.gpu for name in ("device of train", "device of api", "vllm serve", "train")
    }
    assert asked == {"device of train": every, "device of api": every, "vllm serve": one, "train": one}
    assert options(opener("device of api", "api", [], {}, 0).spec)["device_requests"] == [every]
    # Where the engine has no name for all, one is better than none.
    assert Opener(session, opener.images, one, tmp_path)("device of api", "api", [], {}, 0).spec.gpu == one
    assert Opener(session, opener.images, None, tmp_path)("device of api", "api", [], {}, 0).spec.gpu is None


def test_what_a_program_beside_it_says(sandbox: Callable[..., Sandbox]) -> None:
    fake = FakeContainer("running")
    with sandbox(fake) as box:
        said = box.run(["curl", "x"], 0.5, environment={"A": "b"})
        assert (said.code, said.stdout, said.stderr) == (7, b"", b"connection refused")
        assert fake.asked == [(["timeout", "-k", "5", "0.5", "curl", "x"], {"A": "b"})]
        with pytest.raises(SmokeError, match=r"ask\.py in vllm serve: code 7 \(connection refused\)"):
            box.ask(["python", "/payload/ask.py"], 5)
        fake.answer = answered(124, b"", b"")
        with pytest.raises(SmokeError, match=r"ask\.py in vllm serve: no end within 5 s"):
            box.ask(["python", "/payload/ask.py"], 5)
        fake.answer = answered(0, b"{", b"")
        with pytest.raises(SmokeError, match=r"ask\.py in vllm serve: it printed no JSON"):
            box.ask(["python", "/payload/ask.py"], 5)
        fake.answer = answered(0, b'{"a": 1}', None)
        assert box.ask(["python", "/payload/ask.py"], 5) == {"a": 1}


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
