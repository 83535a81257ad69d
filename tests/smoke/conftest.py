"""What the tests of the smoke stage share."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """The rungs are called by tests here too, where no ladder makes their marker known."""
    config.addinivalue_line("markers", "rung: a rung of the ladder, see smoke/rungs/plugin.py")
