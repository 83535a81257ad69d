"""What is said when this machine lacks something. The engine here is a socket that answers as an engine would."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from common import apt, host
from common.errors import MissingEnvironmentError


class FakeEngine(BaseHTTPRequestHandler):
    """Docker's API as far as `host.engine` asks it."""

    version = "26.1.5"
    info: dict[str, Any] = {}  # noqa: RUF012 - set by each test

    def do_GET(self) -> None:
        body = {"ApiVersion": "1.45", "Version": self.version} if self.path.endswith("/version") else self.info
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeEngine]]:
    class Own(FakeEngine):
        info: dict[str, Any] = {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
    yield Own
    server.shutdown()
    server.server_close()


def test_an_engine_with_the_containerd_store_is_taken(fake: type[FakeEngine]) -> None:
    client = host.engine()
    assert client.version()["Version"] == "26.1.5"
    client.close()


def test_no_engine_is_one_line_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(MissingEnvironmentError, match=r"there is no such socket \(unix:///nonexistent/docker.sock\): start it"):
        host.engine()


def test_an_engine_too_old_is_refused(fake: type[FakeEngine]) -> None:
    fake.version = "20.10.24+dfsg1"
    with pytest.raises(MissingEnvironmentError, match=r"Docker Engine 20.10.24\+dfsg1 is too old"):
        host.engine()


def test_an_engine_without_the_containerd_store_is_refused(fake: type[FakeEngine]) -> None:
    fake.info = {"DriverStatus": [["Backing Filesystem", "extfs"]]}
    with pytest.raises(MissingEnvironmentError, match="does not use the containerd image store"):
        host.engine()


def test_a_registry_is_recognised_by_its_protocol(fake: type[FakeEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    address = os.environ["DOCKER_HOST"].removeprefix("tcp://")
    assert not host.registry_answers(address)  # answers 200, but is no registry
    assert not host.registry_answers("127.0.0.1:1")


def test_installing_without_root_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(MissingEnvironmentError, match="installing skopeo needs root"):
        apt.install(["skopeo"], newer=[])


def test_a_machine_without_apt_is_told_what_pinwheel_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("common.run.shutil.which", lambda *_, **__: None)
    with pytest.raises(MissingEnvironmentError, match="apt-get is not installed: .*run it on Debian 12"):
        apt.debian_mirrors()


def test_apt_without_lists_is_updated_once_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from common.run import Result

    asked: list[str] = []

    def fake(argv: list[str], **_: object) -> Result:
        asked.append(argv[-1] if argv[-1] == "update" else "list")
        return Result(0, "Packages|bookworm|main|http://mirror.example.com/\n" if "update" in asked else "", "")

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(apt, "run", fake)
    assert apt.debian_mirrors() == (apt.Mirror("bookworm", "http://mirror.example.com/"),)
    assert asked == ["list", "update", "list"]


def test_apt_configured_for_another_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from common.run import Result

    monkeypatch.setattr(apt, "run", lambda *_, **__: Result(0, "Packages|noble|main|http://mirror.example.com/ubuntu/\n", ""))
    with pytest.raises(MissingEnvironmentError, match="apt has no package lists of Debian 12"):
        apt.debian_mirrors()


@pytest.mark.parametrize(
    ("content", "kept"), [("{pid}", False), ("4194304999", False), ("", False), ("x/y", False), ("{own}", True)]
)
def test_a_pid_file_that_names_another_process_is_dropped(tmp_path: Path, content: str, *, kept: bool) -> None:
    file = tmp_path / "docker.pid"
    file.write_text(content.format(pid=1, own=os.getpid()))
    program = Path(f"/proc/{os.getpid()}/comm").read_text().strip() if kept else "dockerd"
    host._drop_stale(file, program)
    assert file.exists() is kept
    host._drop_stale(tmp_path / "absent.pid", "dockerd")
