"""Debian's own Podman where it is installed: what Pinwheel says of it, and that what needs no engine does not mind it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import engine_address, host
from common.errors import MissingEnvironmentError
from tests.waiting import eventually

pytestmark = [pytest.mark.host, pytest.mark.skipif(not shutil.which("podman"), reason="podman is not installed")]


@pytest.fixture
def podman(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a service with a store of its own."""
    # Not in tmp_path: Podman takes no folder with a name of more than 50 letters.
    with tempfile.TemporaryDirectory(prefix="pw-") as folder:
        file = Path(folder) / "engine.sock"
        store = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        argv = ["podman", *store, "system", "service", "--time", "0", f"unix://{file}"]
        service = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: file.exists() or service.poll() is not None, "a socket of podman's")
            monkeypatch.setenv("DOCKER_HOST", f"unix://{file}")
            yield f"unix://{file}"
        finally:
            service.terminate()
            service.wait()


def test_what_answers_is_called_podman(podman: str) -> None:
    version = subprocess.run(["podman", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    with pytest.raises(
        MissingEnvironmentError, match=f"^Podman {version} answers, and Pinwheel needs a Docker Engine"
    ) as caught:
        host.engine()
    assert podman in caught.value.line()


def test_the_report_says_so_as_well(podman: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MissingEnvironmentError):
        host.report()
    said = capsys.readouterr().out
    assert "Podman" in said
    assert "too old" not in said


def test_no_engine_is_started_beside_it(podman: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_start_engine", lambda: pytest.fail("a second engine"))
    monkeypatch.setattr(host, "installed", lambda _: "1")
    with pytest.raises(MissingEnvironmentError, match="Podman"):
        host.install()
    assert not engine_address.installable(podman)
