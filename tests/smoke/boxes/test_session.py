"""What a run owns in the engine, and that all of it goes away."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import docker
import docker.errors
import pytest
import requests

from common.errors import SmokeError
from smoke.boxes import session
from smoke.boxes.box import Box
from smoke.boxes.session import LABEL, Session
from smoke.machine import archive
from tests.smoke import layouts
from tests.smoke.simulator import SimulatedEngine, Thing
from tests.waiting import LIMIT_S


def open_session(simulated: SimulatedEngine) -> Session:
    return Session(cast("docker.DockerClient", simulated))


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar.getmembers()}


def dead_run() -> str:
    """The id of a run whose process has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        run = session.run_id(process.pid)
        assert session.alive(run)
        process.kill()
    return run


def test_payload_belongs_to_root_and_the_run_folder_to_the_images_user() -> None:
    found = members(session.payload(owner="10001:10002"))
    names = {"payload", "run"} | {f"payload/{file.name}" for file in session._PAYLOAD.iterdir() if file.is_file()}
    assert set(found) == names
    assert {"payload/tiny.py", "payload/ask.py", "payload/contract.py", "payload/rows.json"} <= names
    assert {(member.uid, member.mode) for name, member in found.items() if "/" in name} == {(0, 0o644)}
    assert (found["run"].uid, found["run"].gid, found["run"].mode) == (10001, 10002, 0o755)
    assert session.payload(owner="10001") == session.payload(owner="10001:10001")


@pytest.mark.parametrize("owner", ["pinwheel", "10001:users", ""])
def test_user_has_to_be_a_number(owner: str) -> None:
    with pytest.raises(SmokeError, match="name it by number"):
        session.payload(owner=owner)


def test_everything_carries_the_label_and_goes_when_the_run_fails(tmp_path: Path) -> None:
    simulated = SimulatedEngine()
    image = layouts.add(tmp_path, "train", [layouts.layer({"a": b""})])
    simulated.images.load(archive.stream(archive.entries(image, tmp_path), lambda _: None))
    foreign = simulated.containers.create("somebody's", labels={})
    other = simulated.containers.create("another run's", labels={LABEL: "elsewhere-1-1"})
    with pytest.raises(RuntimeError, match="a rung broke"), open_session(simulated) as run:
        run.prepare(image.digest)
        (hands,) = (thing for thing in simulated.containers.all if thing.labels == run.labels)
        assert hands.archives == [("/workspace", session.payload(owner="10001:10001"))]
        assert hands.arguments["network_mode"] == "none"
        assert [volume.labels for volume in simulated.volumes.all] == [run.labels]
        simulated.containers.create("created, never started", labels=run.labels)
        raise RuntimeError("a rung broke")
    assert simulated.containers.all == [foreign, other]
    assert not simulated.volumes.all


def test_one_refusal_does_not_keep_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    simulated = SimulatedEngine()
    with open_session(simulated) as run:
        stuck = simulated.containers.create("stuck", labels=run.labels)
        simulated.containers.create("free", labels=run.labels)

        def refuse(**_: object) -> None:
            raise docker.errors.APIError("removal in progress")

        monkeypatch.setattr(stuck, "remove", refuse)
    assert simulated.containers.all == [stuck]


class Slow:
    """A box that the engine does not answer about, or does."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.stopped = 0
        self._problem = problem

    def stop(self) -> None:
        self.stopped += 1
        if self._problem:
            raise self._problem


def test_one_box_that_the_engine_is_silent_about_keeps_neither_the_others_nor_the_removal() -> None:
    simulated = SimulatedEngine()
    silent, sound = Slow(requests.ReadTimeout()), Slow()
    with open_session(simulated) as run:
        simulated.containers.create("of this run", labels=run.labels)
        for box in (silent, sound):
            run.admit(cast("Box", box))
    assert (silent.stopped, sound.stopped) == (1, 1)
    assert not simulated.containers.all


def test_reading_a_file_keeps_nobody_from_ending_the_run() -> None:
    reading, go = threading.Event(), threading.Event()

    class Hands:
        def get_archive(self, _: str) -> tuple[Iterator[bytes], None]:
            reading.set()
            go.wait(LIMIT_S)
            raise docker.errors.NotFound("no such file")

    run = open_session(SimulatedEngine())
    run._hands = Hands()  # type: ignore[assignment]

    def read() -> None:
        with pytest.raises(SmokeError, match="wrote no adapter"):
            run.fetch("adapter")

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(LIMIT_S)
    ender = threading.Thread(target=run.stop)
    ender.start()
    ender.join(LIMIT_S / 2)
    waited = ender.is_alive()
    go.set()
    reader.join()
    ender.join()
    assert not waited


def test_a_new_run_sweeps_what_killed_runs_left_and_nothing_else() -> None:
    simulated = SimulatedEngine()
    left = dead_run()
    simulated.containers.create("left", labels={LABEL: left})
    simulated.volumes.create("left", labels={LABEL: left})
    living = [
        simulated.containers.create("of a living run", labels={LABEL: session.run_id(os.getppid())}),
        simulated.containers.create("of another machine", labels={LABEL: "elsewhere-1-1"}),
        simulated.containers.create("odd", labels={LABEL: "odd"}),
    ]
    with open_session(simulated):
        kept: list[Thing] = list(simulated.containers.all)
    assert kept == living
    assert not simulated.volumes.all


def test_a_pid_that_is_used_again_is_another_run() -> None:
    run = session.run_id(os.getpid())
    assert session.alive(run)
    assert not session.alive(f"{run}0")


def test_file_that_no_container_wrote() -> None:
    with pytest.raises(SmokeError, match="not prepared"):
        open_session(SimulatedEngine()).fetch("adapter/adapter_config.json")
