from __future__ import annotations

from pathlib import Path

import pytest

from lockfiles.audit import data
from tests.lockfiles.audit.records import write


@pytest.fixture
def published(own_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with advisory data, which is what is fetched from."""
    folder = tmp_path / "published"
    write(folder)
    monkeypatch.setenv(data.VARIABLE, str(folder))
    return folder
