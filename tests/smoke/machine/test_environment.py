"""The environment for runs without containers, made of small wheels by the real uv."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import LockError, MissingEnvironmentError, UsageError
from lockfiles import inputs, lockfile, store
from lockfiles.inputs import SetInput
from lockfiles.model import SetLock
from smoke.machine import environment
from tests.images.wheels.wheels import make, stored

HERE = ".".join(map(str, sys.version_info[:3]))


@pytest.fixture
def small(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> SetLock:
    """A set of two packages, in the store."""
    wheels = own_folders / "wheels"
    wheels.mkdir()
    script = "[console_scripts]\nllamafactory-cli = llamafactory:main\n"
    for name, module in (
        ("llamafactory", b"def main():\n    import torch\n    print('trained with', torch.x)\n"),
        ("torch", b"x = 1\n"),
    ):
        make(wheels, {f"{name}/__init__.py": module}, name=name, entry_points=script if name == "llamafactory" else "")
    lock = SetLock("small", "sha256:0", "2026-01-02", HERE, "2.36", tuple(stored(file) for file in sorted(wheels.iterdir())))
    monkeypatch.setattr(lockfile, "read_set", lambda _: lock)
    asked = SetInput("small", ("llamafactory", "torch"), (), (), (), "", (), "sha256:0")
    monkeypatch.setattr(inputs, "read_set", lambda _: asked)
    return lock


@pytest.mark.slow
def test_it_holds_what_the_lock_names_and_its_programs_run(small: SetLock, own_folders: Path) -> None:
    target = own_folders / "venv"
    assert environment.make("small", target) == f"put {target}/bin first on PATH"
    done = subprocess.run([target / "bin" / "llamafactory-cli"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "trained with 1\n"
    assert (target / "bin" / "python").exists()
    # uv's folder is gone.
    assert [entry.name for entry in own_folders.iterdir() if "uv" in entry.name] == []


@pytest.mark.slow
def test_other_bytes_than_the_locks_are_not_installed(small: SetLock, own_folders: Path) -> None:
    torch = next(wheel for wheel in small.wheels if wheel.name == "torch")
    file = store.path(torch.artifact)
    file.chmod(0o644)
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(MissingEnvironmentError, match="uv pip install failed"):
        environment.make("small", own_folders / "venv")


def test_nothing_is_overwritten(small: SetLock, own_folders: Path) -> None:
    target = own_folders / "venv"
    target.mkdir()
    with pytest.raises(UsageError, match="something is there already"):
        environment.make("small", target)


def test_another_python_is_told(small: SetLock, own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockfile, "read_set", lambda _: replace(small, python="3.9.2"))
    with pytest.raises(MissingEnvironmentError, match=r"locked for Python 3\.9, this is .*PINWHEEL_PYTHON"):
        environment.make("small", own_folders / "venv")


def test_a_wheel_of_ours_that_was_not_made_is_told(small: SetLock, own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = replace(small, wheels=tuple(replace(wheel, shim=True) for wheel in small.wheels))
    monkeypatch.setattr(lockfile, "read_set", lambda _: ours)
    store.path(small.wheels[0].artifact).unlink()
    with pytest.raises(LockError, match=r"is made by us, and is not in the store.*invoke fetch --set small"):
        environment.make("small", own_folders / "venv")
    assert not (own_folders / "venv").exists()


def test_the_command_line_refuses_in_one_line(
    small: SetLock, own_folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["environment", "api", str(own_folders)])
    assert environment.main() == 2
    assert "something is there already" in capsys.readouterr().err
