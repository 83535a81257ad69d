"""Code at each start of Python is refused by the bytes of which a layer is made, whatever an index showed before."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import LockError
from images import layer
from images.plan import LayerPlan
from oci.layout import Layout
from tests.images.wheels.wheels import NoBytecode, make, stored


class Compiles(NoBytecode):
    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Compiles:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def fresh(self) -> None:
        pass


@pytest.mark.parametrize(("file", "refused"), [("x.pth", True), ("sitecustomize.py", True), ("one/__init__.py", False)])
def test_a_layer_of_a_wheel_that_runs_at_each_start_is_not_made(
    own_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, refused: bool
) -> None:
    monkeypatch.setattr(layer, "Compiler", Compiles)
    wheel = stored(make(tmp_path, {file: b"import os\n"}))
    layout = Layout(own_folders / "oci")
    layout.create()
    plan = LayerPlan("one", "sha256:" + "1" * 64, (wheel,))
    if refused:
        with pytest.raises(LockError, match=f"one 1.0 brings code that runs at each start of Python: {file}"):
            layer.make_wheels(layout.root, plan, tmp_path)
        assert list(layout.blobs.iterdir()) == []
    else:
        assert layer.make_wheels(layout.root, plan, tmp_path).size
