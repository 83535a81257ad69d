"""Whether what the bench compares is the same container, by a real engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import smoke
from common.errors import SmokeError
from images.receipt import BuiltImage
from smoke.boxes.container import Sandbox
from smoke.boxes.opener import Opener
from smoke.boxes.session import Session
from smoke.machine import engine
from smoke.machine.engine import Engine
from tests.smoke import layouts
from tests.smoke.boxes.test_on_engine import WAITS, forget, left

pytestmark = pytest.mark.engine


@pytest.fixture
def fit() -> Iterator[Engine]:
    found = engine.connect(gpu=False)
    yield found
    found.client.close()


@pytest.fixture
def image(fit: Engine, tmp_path: Path) -> Iterator[BuiltImage]:
    made = layouts.add(tmp_path / "oci", "train", [WAITS, layouts.layer({"noise": os.urandom(16)})])
    engine.load(fit, made, tmp_path / "oci")
    yield made
    forget(fit.client, made)


@pytest.fixture
def box(fit: Engine, image: BuiltImage, tmp_path: Path) -> Iterator[Sandbox]:
    with Session(fit.client) as session:
        session.prepare(image.digest)
        opener = Opener(session, {"train": image}, None, tmp_path / "logs")
        with opener("server", "train", ["/waits"], {"A": "b=c", "HOME": "/tmp"}, 1 << 28) as made:
            yield made
    assert not left(fit.client, session.id)


def test_the_command_line_makes_the_same_container(box: Sandbox) -> None:
    smoke._check_alike(box)


@pytest.mark.parametrize(
    ("flag", "told"),
    [("--read-only", "ReadonlyRootfs: True and False"), ("--env=A=b=c", "Env: "), (f"--shm-size={1 << 28}", "ShmSize: ")],
)
def test_another_container_is_not_compared(box: Sandbox, monkeypatch: pytest.MonkeyPatch, flag: str, told: str) -> None:
    given = smoke.flags(box.spec)
    assert flag in given
    monkeypatch.setattr(smoke, "flags", lambda _: [one for one in given if one != flag])
    with pytest.raises(SmokeError, match=rf"not held alike: {told}"):
        smoke._check_alike(box)
