"""One step and its log: what it prints goes on and is kept, signals reach it, its exit code is the step's."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path

import pytest

from tests.k8s.pipeline.conftest import program
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text(json.dumps({"paths": {"logs": str(tmp_path / "logs")}}))
    return tmp_path


def run(config: Path, *command: str, name: str = "train") -> tuple[int, str, str]:
    done = program("step", "--config", str(config), name, "--", *command)
    said, _ = done.communicate(timeout=LIMIT_S)
    log = config / "logs" / f"{name}.log"
    return done.returncode, said, log.read_text() if log.exists() else ""


def test_both_streams_go_on_and_are_kept(config: Path) -> None:
    code, said, log = run(config, "sh", "-c", "echo one; echo two >&2; exit 3")
    assert code == 3
    assert said == "one\ntwo\n"
    lines = log.splitlines()
    assert lines[1:] == ["one", "two", "== train ended with exit code 3"]
    assert lines[0].endswith("train: sh -c 'echo one; echo two >&2; exit 3'")


def test_a_second_try_is_added_to_the_log(config: Path) -> None:
    run(config, "echo", "first")
    _, _, log = run(config, "echo", "second")
    assert log.index("first") < log.index("second")


def test_bytes_that_are_no_text_pass_as_they_are(config: Path) -> None:
    done = program("step", "--config", str(config), "train", "--", "printf", r"\377\r50%%\r", errors="replace")
    done.communicate(timeout=LIMIT_S)
    assert b"\xff\r50%\r" in (config / "logs/train.log").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_command_and_all_its_processes(config: Path, number: int) -> None:
    script = "sleep 600 & trap 'echo told; kill %1; exit 7' TERM INT; echo ready; wait"
    with program("step", "--config", str(config), "train", "--", "bash", "-c", script) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
        os.kill(one.pid, number)
        assert one.wait(timeout=LIMIT_S) == 7
        assert "told" in one.stdout.read()


def test_a_command_that_a_signal_killed_says_so(config: Path) -> None:
    assert run(config, "sh", "-c", "kill -9 $$")[0] == 128 + 9


@pytest.mark.parametrize(("command", "code"), [("/nonexistent/x", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_run_is_one_line(config: Path, command: str, code: int) -> None:
    ended, said, log = run(config, command)
    assert ended == code
    assert said.startswith(f"step: {command} cannot be run:")
    assert len(said.splitlines()) == 1
    assert command in log


def test_a_process_that_outlives_the_command_does_not_hold_the_step(config: Path) -> None:
    with program("step", "--config", str(config), "train", "--", "sh", "-c", "setsid sleep 600 & echo $!") as step:
        assert step.stdout is not None
        sleeper = int(step.stdout.readline())
        # The sleeper keeps our own output open too; the step itself ends.
        assert step.wait(timeout=LIMIT_S) == 0
        os.kill(sleeper, signal.SIGKILL)


def test_a_log_that_finds_no_space_does_not_end_the_training(config: Path) -> None:
    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    script = "for n in $(seq 100); do echo line $n; done; exit 5"
    done = program("step", "--config", str(config), "train", "--", "sh", "-c", script, preexec_fn=small)
    said, _ = done.communicate(timeout=LIMIT_S)
    assert done.returncode == 5
    assert "line 100\n" in said
    assert "train.log is not written any further" in said


@pytest.mark.parametrize("argv", [["train"], ["train", "--"], ["../x", "--", "true"], ["--", "true"]])
def test_a_wrong_call_is_refused(config: Path, argv: list[str]) -> None:
    done = program("step", "--config", str(config), *argv)
    done.communicate(timeout=LIMIT_S)
    assert done.returncode == 2


def test_no_configuration_is_one_line(tmp_path: Path) -> None:
    done = program("step", "--config", str(tmp_path), "train", "--", "true")
    said, _ = done.communicate(timeout=LIMIT_S)
    assert done.returncode == 2
    assert said.startswith("step: no log can be kept")
    assert len(said.splitlines()) == 1


def test_a_fresh_folder_holds_nothing_of_before(config: Path, tmp_path: Path) -> None:
    """A training that plants a file where the export will be hands nothing to the step that registers."""
    paths = json.loads((config / "run.json").read_text())["paths"]
    export = Path(paths.get("export", str(tmp_path / "work" / "export")))
    (config / "run.json").write_text(json.dumps({"paths": {**paths, "export": str(export)}}))
    export.mkdir(parents=True, exist_ok=True)
    (export / "chat_template.jinja").write_text("{{ 'attacker' }}")
    done = program("step", "--config", str(config), "--fresh", "export", "export", "--", "ls", str(export))
    done.communicate(timeout=LIMIT_S)
    assert done.returncode == 0
    assert list(export.iterdir()) == []


@pytest.mark.parametrize("what", ["link", "pipe", "the folder a link"])
def test_a_log_that_is_something_else_is_not_written(config: Path, tmp_path: Path, what: str) -> None:
    logs = Path(json.loads((config / "run.json").read_text())["paths"]["logs"])
    (victim := tmp_path / "victim").mkdir()
    (victim / "train.log").write_text("mine")
    logs.parent.mkdir(parents=True, exist_ok=True)
    if what == "the folder a link":
        logs.symlink_to(victim)
    else:
        logs.mkdir(exist_ok=True)
        os.mkfifo(logs / "train.log") if what == "pipe" else (logs / "train.log").symlink_to(victim / "train.log")
    done = program("step", "--config", str(config), "train", "--", "echo", "hi")
    done.communicate(timeout=LIMIT_S)
    assert done.returncode == 2
    assert (victim / "train.log").read_text() == "mine"
