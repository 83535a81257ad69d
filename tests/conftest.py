"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point dist, cache and state at folders of this test alone."""
    for name in ("dist", "cache", "state"):
        monkeypatch.setenv(f"PINWHEEL_{name.upper()}", str(tmp_path / name))
    return tmp_path
