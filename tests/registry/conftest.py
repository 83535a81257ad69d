"""A registry with one image in it, with the referrers API and without, and Docker's configuration out of the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oci.double import Double, serving
from tests.registry.pushing import holds_image


@pytest.fixture(autouse=True)
def _no_docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@pytest.fixture(params=[False, True], ids=["tags", "referrers"])
def double(request: pytest.FixtureRequest) -> Iterator[Double]:
    with serving() as state:
        state.referrers = bool(request.param)
        holds_image(state)
        yield state
