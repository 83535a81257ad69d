"""A base that is quick to build on."""

from __future__ import annotations

import pytest
import zstandard

from common.files import sha256_file
from images.tarball import LayerWriter
from lockfiles import lockfile
from lockfiles.debian import resolver, rootfs
from lockfiles.debian.rootfs import Rootfs


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Rootfs:
    """The real base's tree; of its tar only what tells users and packages, so that a build takes a second."""
    base = lockfile.read_base()
    resolver.fetch(base.debs)
    real = rootfs.made(base)
    tar = tmp_path_factory.mktemp("base") / "base.tar"
    with tar.open("wb") as out:
        writer = LayerWriter(out)
        for name in ("etc/passwd", "etc/group", "var/lib/dpkg/status"):
            data = (real.tree / name).read_bytes()
            writer.file(name, len(data), [data])
        writer.end()
        writer.close()
    # The builder takes a plain tar and compresses it itself.
    tar.write_bytes(zstandard.ZstdDecompressor().decompress(tar.read_bytes(), max_output_size=1 << 24))
    return Rootfs(tar, real.tree, sha256_file(tar))
