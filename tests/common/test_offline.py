"""Offline, nothing is asked of the network."""

from __future__ import annotations

import os

import pytest

from common import apt, offline
from common.errors import MissingEnvironmentError


@pytest.mark.parametrize(("value", "expected"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)])
def test_offline_is_what_the_variable_says(monkeypatch: pytest.MonkeyPatch, value: str | None, expected: bool) -> None:
    monkeypatch.delenv("PINWHEEL_OFFLINE", raising=False)
    if value is not None:
        monkeypatch.setenv("PINWHEEL_OFFLINE", value)
    assert offline.offline() is expected


def test_offline_nothing_is_installed_and_no_list_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(apt, "run", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr(apt, "write_whole", lambda *_: pytest.fail("apt was configured"))
    expected = "installing skopeo kubectl needs the network, and this run is offline: run it without --offline"
    with pytest.raises(MissingEnvironmentError, match=expected):
        apt.install(["skopeo"], newer=["kubectl"])
    monkeypatch.setattr(apt, "_configured", set)
    with pytest.raises(MissingEnvironmentError, match="`apt-get update` needs the network"):
        apt.debian_mirrors()
