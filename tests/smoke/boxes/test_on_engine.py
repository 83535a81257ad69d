"""The same promises, kept by a real engine. The images are a few kilobytes: one program that waits and ignores SIGTERM."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import docker.errors
import pytest

from common import paths
from common.errors import MissingEnvironmentError, SmokeError
from images import receipt as built
from images.receipt import BuiltImage
from smoke.boxes.container import Sandbox
from smoke.boxes.opener import Opener
from smoke.boxes.session import LABEL, Session
from smoke.ladder import choose
from smoke.machine import archive, engine
from smoke.machine.engine import Engine
from smoke.rungs.jobs import Jobs
from tests.smoke import layouts

pytestmark = pytest.mark.engine

WAITS = layouts.layer({"waits": layouts.WAITS})


@pytest.fixture(scope="module")
def fit() -> Iterator[Engine]:
    found = engine.connect(gpu=False)
    yield found
    found.client.close()


@pytest.fixture
def image(fit: Engine, tmp_path: Path) -> Iterator[BuiltImage]:
    """An image of random bytes: two runs of this test side by side do not meet. It has an entrypoint that nothing can run."""
    layers = [WAITS, layouts.layer({"noise": os.urandom(16)})]
    made = layouts.add(tmp_path / "oci", "train", layers, entrypoint=["/not-there"])
    engine.load(fit, made, tmp_path / "oci")
    yield made
    forget(fit.client, made)


def forget(client: docker.DockerClient, *images: BuiltImage) -> None:
    for image in images:
        client.images.remove(image.digest, force=True)


def left(client: docker.DockerClient, run: str) -> list[object]:
    only: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={run}"}
    return [*client.containers.list(all=True, filters=only), *client.volumes.list(filters=only)]


def opened(session: Session, image: BuiltImage, tmp_path: Path, *command: str) -> Sandbox:
    """A container of the image, not started yet."""
    session.prepare(image.digest)
    return Opener(session, {"train": image}, None, tmp_path / "logs")("server", "train", list(command), {}, 64 << 20)


def test_container_that_never_gets_ready(fit: Engine, image: BuiltImage, tmp_path: Path) -> None:
    with (
        pytest.raises(SmokeError, match=r"server was not ready within 1 s \(it said nothing; log: .*server\.log\)"),
        Session(fit.client) as session,
        opened(session, image, tmp_path, "/waits") as box,
    ):
        box.await_http("http://127.0.0.1:8000/health", 1)
    assert (tmp_path / "logs/server.log").exists()
    assert not left(fit.client, session.id)


def test_held_tightly_and_processes_are_seen_until_they_are_gone(fit: Engine, image: BuiltImage, tmp_path: Path) -> None:
    with Session(fit.client) as session, opened(session, image, tmp_path, "/waits") as box:
        attrs = box.get_wrapped_container().attrs
        container = fit.client.containers.get(str(attrs["Id"])).attrs
        held = container["HostConfig"]
        assert held["ReadonlyRootfs"] is True
        assert held["NetworkMode"] == "none"
        assert held["CapDrop"] == ["ALL"]
        assert held["SecurityOpt"] == ["no-new-privileges"]
        assert (held["Memory"], held["PidsLimit"]) == (8 << 30, 4096)
        assert (container["Config"]["User"], container["Image"]) == ("10001:10001", image.digest)
        assert not container["Config"]["Entrypoint"]
        assert len(box.processes()) == 1
        # It ignores SIGTERM: the engine kills it after the grace, and the code says so.
        ended = box.terminate(1)
        assert ended.code == 137
        assert ended.seconds > 0.9
        assert not box.processes()


def test_start_that_fails_leaves_nothing(fit: Engine, image: BuiltImage, tmp_path: Path) -> None:
    with Session(fit.client) as session:
        box = opened(session, image, tmp_path, "/no-such-program")
        with pytest.raises(SmokeError, match="server does not start .*no-such-program"):
            box.start()
        assert "created" in {container.status for container in fit.client.containers.list(all=True)}
    assert not left(fit.client, session.id)


def test_payload_arrives_and_files_come_back(fit: Engine, image: BuiltImage, tmp_path: Path) -> None:
    with Session(fit.client) as session:
        session.prepare(image.digest)
        assert session.fetch("../payload/tiny.py") == (paths.ROOT / "smoke/payload/tiny.py").read_bytes()
        with pytest.raises(SmokeError, match="wrote no adapter"):
            session.fetch("adapter")


ABORTED = """
    import sys, time
    from pathlib import Path
    from common.signals import terminable
    from smoke.machine import engine
    from smoke.boxes.container import Sandbox
    from smoke.boxes.held import Spec
    from smoke.boxes.session import Session

    fit = engine.connect(gpu=False)
    with terminable(), Session(fit.client) as session:
        session.prepare(sys.argv[1])
        spec = Spec("server", sys.argv[1], ("/waits",), session.labels, session.volume)
        with Sandbox(spec, Path(sys.argv[2])) as box:
            print(session.id, flush=True)
            time.sleep(60)
"""


def aborted(image: BuiltImage, logs: Path, how: signal.Signals) -> str:
    """Start a run in a process of its own and abort it while its container runs; its id."""
    argv = [sys.executable, "-c", textwrap.dedent(ABORTED), image.digest, str(logs)]
    with subprocess.Popen(argv, cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        run = process.stdout.readline().strip()
        process.send_signal(how)
        process.wait(60)
    assert run
    return run


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_aborted_run_leaves_nothing(fit: Engine, image: BuiltImage, tmp_path: Path, how: signal.Signals) -> None:
    assert not left(fit.client, aborted(image, tmp_path / "logs", how))


def test_a_run_that_ends_ends_what_other_threads_wait_for(fit: Engine, image: BuiltImage, tmp_path: Path) -> None:
    with Session(fit.client) as session, Jobs(1) as jobs:
        box = opened(session, image, tmp_path, "/waits")

        def wait() -> None:
            with box:
                started.set()
                box.finish(600)

        started = threading.Event()
        job = jobs.start("server", wait)
        assert started.wait(120)
        before = time.monotonic()
        session.stop()
        with pytest.raises(SmokeError, match="server (was ended|ended with code 137)"):
            job.result()
        assert time.monotonic() - before < 300
        # What comes too late is refused.
        with pytest.raises(SmokeError, match="the run is over"):
            opened(session, image, tmp_path, "/waits")
        assert (tmp_path / "logs/server.log").exists()
    assert not left(fit.client, session.id)


def test_signals_arrive_and_memory_is_seen_while_nobody_waits(fit: Engine, image: BuiltImage, tmp_path: Path) -> None:
    with Session(fit.client) as session, opened(session, image, tmp_path, "/waits") as box:
        time.sleep(2)
        box.signal(signal.SIGKILL)
        ended = box.finish(30, code=137)
        assert ended.memory > 0
        with pytest.raises(SmokeError, match="server takes no signal"):
            box.signal(signal.SIGTERM)


SERVER = """
    import os, time
    from http.server import BaseHTTPRequestHandler, HTTPServer

    begin = time.monotonic()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.headers.get("Authorization") == f"Bearer {os.environ['KEY']}"
            self.send_response(401 if not known else 200 if time.monotonic() - begin > 2 else 503)
            self.end_headers()

    HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


def test_a_key_opens_the_server_and_is_in_no_list_of_processes(fit: Engine, tmp_path: Path) -> None:
    image = choose(built.read(), gpu=False)[0]
    engine.load(fit, image, built.layout())
    key, seen, over = secrets.token_urlsafe(24), list[str](), threading.Event()

    def look() -> None:
        while not over.is_set():
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.append(entry.read_bytes().decode(errors="replace"))

    watcher = threading.Thread(target=look)
    with Session(fit.client) as session:
        session.prepare(image.digest)
        opener = Opener(session, {"train": image}, None, tmp_path / "logs")
        program = ["python", "-c", textwrap.dedent(SERVER)]
        with opener("server", "train", program, {"KEY": key}, 64 << 20) as box:
            watcher.start()
            try:
                ready = box.await_http("http://127.0.0.1:8000/health", 60, key=key)
                said = box.run(["sh", "-c", 'sleep 1; test "$A" = "$KEY"'], 10, environment={"A": key})
            finally:
                over.set()
                watcher.join()
            assert said.code == 0
            assert ready > 2
            with pytest.raises(SmokeError, match="was not ready within"):
                box.await_http("http://127.0.0.1:8000/health", 1)
            assert box.run(["sleep", "9"], 0.5).code == 124
            assert key not in box.output()
    # It was looked while the question was asked.
    assert any("curl" in line for line in seen)
    assert not any(key in line for line in seen)


def test_folders_of_an_image_are_looked_into_without_running_it(fit: Engine, image: BuiltImage) -> None:
    with Session(fit.client) as session:
        assert session.look(image.digest, ["/waits-not", "/workspace"]) == {"/waits-not": [], "/workspace": []}
        assert session.config(image.digest)["User"] == "10001:10001"
    assert not left(fit.client, session.id)


def test_killed_run_is_swept_by_the_next(fit: Engine, image: BuiltImage, tmp_path: Path) -> None:
    run = aborted(image, tmp_path / "logs", signal.SIGKILL)
    assert len(left(fit.client, run)) == 3
    with Session(fit.client):
        assert not left(fit.client, run)


def test_shared_layers_stay_in_the_engine(fit: Engine, tmp_path: Path) -> None:
    shared, own = layouts.layer({"shared": os.urandom(16)}), layouts.layer({"own": os.urandom(16)})
    first = layouts.add(tmp_path, "train", [shared])
    second = layouts.add(tmp_path, "api", [shared, own], name="test-second")
    try:
        engine.load(fit, first, tmp_path)
        # The layer is taken out of the layout: if it were sent, this would fail.
        (tmp_path / "blobs" / first.layers[0].digest.replace(":", "/")).unlink()
        engine.load(fit, second, tmp_path, present=(first,))
        assert engine.holds(fit.client, second)
    finally:
        forget(fit.client, first, second)


def test_engine_refuses_an_image_without_its_layer(fit: Engine, tmp_path: Path) -> None:
    image = layouts.add(tmp_path, "train", [layouts.layer({"lost": os.urandom(16)})])
    members = archive.entries(image, tmp_path, without=frozenset({image.layers[0].digest}))
    with pytest.raises(docker.errors.ImageLoadError, match="not found"):
        fit.client.images.load(archive.stream(members, lambda _: None))  # type: ignore[arg-type]
    forget(fit.client, image)


def test_gpu_asked_for_where_there_is_none(fit: Engine) -> None:
    if "nvidia" in fit.client.info()["Runtimes"] or fit.client.info().get("DiscoveredDevices"):
        pytest.skip("this engine has a GPU runtime")
    with pytest.raises(MissingEnvironmentError, match="no GPU runtime"):
        engine.connect(gpu=True)
