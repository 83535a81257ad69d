"""A hub with a tiny model, and none of the developer's own settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import paths
from lockfiles import models
from lockfiles.models import hub
from lockfiles.store import transfer
from tests.lockfiles.hub_server import HubServer, serving
from tests.lockfiles.models.steps import CODE, DATA, REPO, lock


@pytest.fixture
def folder(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """lockfiles/ of the test's own, and none of the developer's own hub settings."""
    lockfiles = own_folders / "lockfiles"
    lockfiles.mkdir()
    monkeypatch.setattr(paths, "LOCKFILES", lockfiles)
    monkeypatch.setattr(paths, "ROOT", own_folders)
    for name in [*os.environ]:
        if name.startswith(("HF_", "HUGGING")) or name in {"PINWHEEL_OFFLINE", "PINWHEEL_MIRROR"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(own_folders / "hf"))
    monkeypatch.setattr(hub, "_PAUSE", 0.0)
    monkeypatch.setattr(transfer, "_PAUSE", 0.0)
    return lockfiles


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        running.push(REPO, {**DATA, **CODE})
        yield running


@pytest.fixture
def locked(server: HubServer) -> HubServer:
    """The model is locked, and what was asked for that is forgotten."""
    lock()
    server.asked.clear()
    return server


@pytest.fixture
def fetched(locked: HubServer) -> HubServer:
    """The model is in the store as well."""
    models.fetch()
    return locked
