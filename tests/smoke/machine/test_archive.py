"""The stream that `docker load` reads."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from common.errors import SmokeError
from smoke.machine import archive
from tests.smoke import layouts

ONE, TWO = layouts.layer({"one": b"1" * 3000}), layouts.layer({"two": b"2"})


def read(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]


def stream(members: tuple[archive.Entry, ...]) -> bytes:
    return b"".join(archive.stream(members, lambda _: None))


def test_holds_exactly_the_blobs_of_the_image(tmp_path: Path) -> None:
    layouts.add(tmp_path, "other", [layouts.layer({"other": b"x"})])
    image = layouts.add(tmp_path, "train", [ONE, TWO])
    files = read(stream(archive.entries(image, tmp_path)))
    digests = {image.digest, image.config_digest, *(layer.digest for layer in image.layers)}
    assert set(files) == {"oci-layout", "index.json"} | {f"blobs/{digest.replace(':', '/')}" for digest in digests}
    for digest in digests:
        assert files[f"blobs/{digest.replace(':', '/')}"] == (tmp_path / "blobs" / digest.replace(":", "/")).read_bytes()
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["digest"] == image.digest
    assert entry["size"] == len(files[f"blobs/{image.digest.replace(':', '/')}"])
    assert entry["annotations"] == {"io.containerd.image.name": "pinwheel.local/test-train:1"}


def test_same_bytes_every_time_and_whatever_the_files_metadata(tmp_path: Path) -> None:
    image = layouts.add(tmp_path, "train", [ONE, TWO])
    first = stream(archive.entries(image, tmp_path))
    for file in tmp_path.rglob("*"):
        if file.is_file():
            file.chmod(0o600)
    assert stream(archive.entries(image, tmp_path)) == first


def test_a_layer_used_twice_is_sent_once_and_a_known_one_not_at_all(tmp_path: Path) -> None:
    image = layouts.add(tmp_path, "train", [ONE, TWO, ONE])
    names = [entry.name for entry in archive.entries(image, tmp_path)]
    assert len(names) == len(set(names)) == 6
    known = image.layers[0].digest
    assert f"blobs/{known.replace(':', '/')}" not in {
        entry.name for entry in archive.entries(image, tmp_path, without=frozenset({known}))
    }


def test_progress_counts_every_content_byte(tmp_path: Path) -> None:
    members = archive.entries(layouts.add(tmp_path, "train", [ONE, TWO]), tmp_path)
    counts: list[int] = []
    for _ in archive.stream(members, counts.append):
        pass
    assert sum(counts) == sum(entry.size for entry in members)


def test_blob_missing(tmp_path: Path) -> None:
    image = layouts.add(tmp_path, "train", [ONE])
    (tmp_path / "blobs" / image.layers[0].digest.replace(":", "/")).unlink()
    with pytest.raises(SmokeError, match=f"blob {image.layers[0].digest} is not in the layout .*run `invoke build` again"):
        archive.entries(image, tmp_path)


def test_blob_cut_short(tmp_path: Path) -> None:
    image = layouts.add(tmp_path, "train", [ONE])
    file = tmp_path / "blobs" / image.layers[0].digest.replace(":", "/")
    file.write_bytes(ONE[:-1])
    with pytest.raises(SmokeError, match=f"has {len(ONE) - 1} bytes, the build receipt says {len(ONE)}"):
        archive.entries(image, tmp_path)


def test_blob_shrinks_while_it_is_sent(tmp_path: Path) -> None:
    image = layouts.add(tmp_path, "train", [ONE])
    members = archive.entries(image, tmp_path)
    (tmp_path / "blobs" / image.layers[0].digest.replace(":", "/")).write_bytes(b"short")
    with pytest.raises(SmokeError, match="has 5 bytes instead of"):
        stream(members)
