"""Files are replaced whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from common.files import replacing, sha256_file, write_whole


def test_a_failure_leaves_the_old_file_and_no_remains(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_whole(file, "old")
    with pytest.raises(RuntimeError, match="stop"), replacing(file) as out:
        out.write(b"half")
        raise RuntimeError("stop")
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_new_file_has_the_mode_asked_for(tmp_path: Path) -> None:
    write_whole(tmp_path / "deep" / "key", b"x", 0o600)
    assert (tmp_path / "deep" / "key").stat().st_mode & 0o777 == 0o600
    assert sha256_file(tmp_path / "deep" / "key") == "sha256:" + hashlib.sha256(b"x").hexdigest()
