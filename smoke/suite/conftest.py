"""Fixtures of the smoke suite. It is run by `invoke smoke`, which makes the run."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from smoke.rungs.plugin import note, run_of
from smoke.rungs.plugin import took as book
from smoke.rungs.run import Run


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Stop here when pytest was started by hand; last, so that the ladder had its turn."""
    run_of(config)


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    """What all rungs share."""
    return run_of(pytestconfig)


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Put what was measured on the rung's line."""
    return functools.partial(note, request.node)


@pytest.fixture
def took(request: pytest.FixtureRequest) -> Callable[[float], None]:
    """Say how long the rung's own work took, where it went on before the rung waited for it."""
    return functools.partial(book, request.node)
