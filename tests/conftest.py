"""What all tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow now and then: no property is judged by time.
settings.register_profile("pinwheel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pinwheel")


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_interrupts() -> None:
    """A shell starts what it puts into the background with SIGINT ignored, and all that is started from there inherits it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_engine_by_chance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's engine from tests that do not ask for one: on a new machine there is none."""
    if not any(request.node.get_closest_marker(name) for name in ("host", "engine", "cluster", "line")):
        monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point dist, cache and state at folders of this test alone."""
    for name in ("dist", "cache", "state"):
        monkeypatch.setenv(f"PINWHEEL_{name.upper()}", str(tmp_path / name))
    return tmp_path
