"""Wheels that are metadata alone."""

from __future__ import annotations

import importlib.metadata
import io
import sys
import zipfile
from pathlib import Path

import pytest

from lockfiles import lockfile, store
from lockfiles.python import shim


def test_a_shim_is_the_same_wheel_everywhere_and_the_lock_holds_its_hash(own_folders: Path) -> None:
    wheel = shim.make("vllm", "0.28.0+cpu")
    assert store.has(wheel.artifact)
    assert wheel.artifact == next(w.artifact for w in lockfile.read_set("api-cpu").wheels if w.name == "vllm")


def test_a_shim_is_a_distribution_that_metadata_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, data = shim.contents("some-name", "1.2+cpu")
    assert file == "some_name-1.2+cpu-py3-none-any.whl"
    zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert importlib.metadata.version("some-name") == "1.2+cpu"
    assert {str(f) for f in importlib.metadata.files("some-name") or []} == set(zipfile.ZipFile(io.BytesIO(data)).namelist())
