"""The face: errors become one line and an exit code, chains are summed up. Each test runs the real program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common import paths
from common.errors import ExitCode

pytestmark = pytest.mark.slow


def invoke(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, "CI": "true", **env}
    return subprocess.run(
        [sys.executable, "-m", "invoke", *argv], cwd=paths.ROOT, env=full, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["build", "--image", "tarin"], ExitCode.USAGE, "no such image: tarin (images/): there are: api, api-cpu, api-cu128, "),
        (["build", "--cpu", "--image", "train"], ExitCode.USAGE, "give one of them"),
        (["build", "--spot-check", "3"], ExitCode.USAGE, "add --from REGISTRY"),
        (["build", "--from", "127.0.0.1:9", "--twice"], ExitCode.USAGE, "compare some layers: --spot-check N"),
        (["lock", "--check", "--upgrade", "torch"], ExitCode.USAGE, "give one of them"),
        (["lock", "--check", "--explain"], ExitCode.USAGE, "give one of them"),
        (["lock", "--explain", "no/such.in"], ExitCode.USAGE, "no such file: no/such.in"),
        (["lock", "--explain", "no-such-package"], ExitCode.USAGE, "no-such-package"),
        (["lock", "--explain", ""], ExitCode.USAGE, "an empty name was given"),
        (["lock", "--upgrade", ""], ExitCode.USAGE, "an empty name was given"),
        (["fetch", "--set", "no-such-set", "--offline"], ExitCode.USAGE, "no such set: no-such-set"),
        (["licences", "--set", "no-such-set"], ExitCode.USAGE, "there are: api, api-cpu, api-cu128"),
        (["fetch", "--set", "train", "--offline"], ExitCode.ENVIRONMENT, "offline"),
        (["store", "--verify", "--prune"], ExitCode.USAGE, "give one of them"),
        (["model", "--name", "none", "--to", "x"], ExitCode.USAGE, "no model 'none' is locked"),
        (["model", "--name", "tiny"], ExitCode.USAGE, "--to lays a model out, --push sends it to a registry: give one of them"),
        (["model", "--name", "tiny", "--to", "x", "--push"], ExitCode.USAGE, "give one of them"),
        (["cluster", "--up", "--down"], ExitCode.USAGE, "--up, --down and --status exclude each other"),
        (["cluster", "--with", "metrics"], ExitCode.USAGE, "add --up"),
        (
            ["cluster", "--up", "--with", "mesh"],
            ExitCode.USAGE,
            "nothing to add is called mesh (--with): there are: policies, metrics",
        ),
        (["cluster", "--up", "--pretend-gpu", "few"], ExitCode.USAGE, "not a number of GPUs (--pretend-gpu few)"),
        (["bench", "nothing"], ExitCode.USAGE, "no such benchmark: nothing"),
        (["lock", "--upgrade", "no-such-package"], ExitCode.USAGE, "no lock holds no-such-package"),
        (["deploy", "--env", "nowhere"], ExitCode.USAGE, "no environment 'nowhere'"),
        (["check", "no/such/folder"], ExitCode.USAGE, "no/such/folder"),
        (["push"], ExitCode.BUILD, "nothing was built yet"),
        (["prove"], ExitCode.SMOKE, "nothing was proven yet"),
        (["smoke", "--no-container", "--registry", "127.0.0.1:9"], ExitCode.USAGE, "--no-container runs no image"),
        (["smoke", "--image", "llama-factory-train:1"], ExitCode.USAGE, "named by registry and digest"),
        (["smoke"], ExitCode.ENVIRONMENT, "no Docker Engine answers: there is no such socket (unix:///nonexistent.sock)"),
        (
            ["smoke", "--gpu"],
            ExitCode.ENVIRONMENT,
            "no Docker Engine answers: there is no such socket (unix:///nonexistent.sock)",
        ),
        (["engine"], ExitCode.ENVIRONMENT, "error: "),
        (["push", "--registry", "http://x"], ExitCode.USAGE, "not a registry: 'http://x'"),
        (["build", "--no-such-flag"], ExitCode.INVOKE, "No idea what '--no-such-flag' is"),
        (["no-such-command"], ExitCode.INVOKE, "No idea what 'no-such-command' is"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_its_own_exit_code(own_folders: Path, argv: list[str], code: ExitCode, message: str) -> None:
    done = invoke(*argv, DOCKER_HOST="unix:///nonexistent.sock")
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == (0 if code is ExitCode.INVOKE else 1)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = invoke(
        "build",
        "--image",
        "train",
        PINWHEEL_DIST=str(tmp_path / "file" / "dist"),
        PINWHEEL_CACHE=str(tmp_path / "file" / "cache"),
    )
    assert done.returncode == ExitCode.ENVIRONMENT, done.stderr
    assert "Not a directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_chain_is_summed_up_and_stops_at_the_first_failure(own_folders: Path) -> None:
    done = invoke("lock", "--check", "push", "deploy", "--env", "local")
    assert done.returncode == ExitCode.BUILD
    summary = done.stdout.partition("summary\n")[2]
    assert "lock     every lock fits its input" in summary
    assert "push     failed" in summary
    assert "deploy" not in summary


def test_the_plan_of_a_build_needs_neither_network_nor_engine(own_folders: Path) -> None:
    done = invoke(
        "build", "--cpu", "--plan", DOCKER_HOST="unix:///nonexistent.sock", UV_DEFAULT_INDEX="http://127.0.0.1:1/simple"
    )
    assert done.returncode == 0, done.stderr
    assert "llama-factory-train:0.9.5-" in done.stdout
    assert not (own_folders / "dist").exists()


def test_every_command_and_flag_has_its_help() -> None:
    # In a process of its own: Invoke takes the help out of a task as it reads it.
    script = (
        "import tasks\nfrom invoke.tasks import Task\n"
        "for name, one in vars(tasks).items():\n"
        "    if isinstance(one, Task):\n"
        "        print(name, bool(one.__doc__), *[a.name for a in one.get_arguments() if not a.help])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 24
    assert all(line.endswith(" True") for line in lines), lines
