"""Wheels made to harm: each is refused by one line that names wheel and path, and leaves nothing behind.

Tests are named after the attack; the wheels that are merely broken are in test_wheel.py. In a build the lock's sha256 stops
all of these unless the attacker's wheel is what was locked.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import io
import os
import re
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings

from common.errors import BuildError, ExitCode, LockError, MissingEnvironmentError, PinwheelError
from images import layer
from images.config import Accounts, fill
from images.plan import LayerPlan
from images.spec import read
from images.tarball import LayerWriter
from images.wheels import install as wheels
from images.wheels.conformance import check_target
from images.wheels.install import PREFIX, SITE, Files
from lockfiles import store
from lockfiles.model import Artifact, Wheel
from oci.layout import Layout
from tests.images.wheels import fuzz
from tests.images.wheels.wheels import NoBytecode, content, layer_of, make, members, record_line, stored
from tests.images.wheels.zips import GOOD, INFO, METADATA, WHEEL, Entry, archive, deflated, entries, placed, save

NAME = "one-1.0-py3-none-any.whl"


def refused(folder: Path, *paths: Path) -> PinwheelError:
    """Make a layer of wheels, which must fail, and leave the layout as it was."""
    layout = Layout(folder / "dist/oci")
    layout.blobs.mkdir(parents=True, exist_ok=True)

    def all_of_them(writer: LayerWriter) -> Files:
        files = Files()
        for path in paths:
            wheels.add(stored(path), writer, NoBytecode(), files)
        return files

    with pytest.raises(PinwheelError) as error:
        layer.make(layout, LayerPlan("hostile", "0" * 64), all_of_them)
    layer.clear(layout)
    left = [file for file in (folder / "dist").rglob("*") if file.is_file()]
    assert left == []
    line = error.value.line()
    assert line.isprintable()
    assert "broken wheel" not in line or "report it to its authors" in line
    return error.value


# Path in the archive → what the line says, if more than that the path leaves its folder.
PATHS = {
    "../x": "",
    "one/../../x": "",
    "one/x/..": "",
    "..": "",
    ".": "",
    "/etc/cron.d/x": "",
    "//etc/x": "",
    # For PyPA's installer no end: its search for the scheme never meets the folder's name.
    "./one-1.0.data/scripts/x": "",
    "./one/x": "",
    "one/./x": "",
    "one//x": "",
    "one\\x": "",
    "..\\..\\x": "",
    "\\\\host\\share\\x": "",
    "C:/x": "",
    "c:x": "",
    "one/x\0.py": r"one/x\x00.py",
    "one/x\n.py": r"one/x\n.py",
    "one/\x1b[2Jx": r"one/\x1b[2Jx",
    "one/\u202egnp.py": r"one/\u202egnp.py",
    "one/\u200b/x": r"one/\u200b/x",
    "one/" + "n" * 256: "name is too long",
    "d/" * 2048 + "x": "name is too long",
    "one-1.0.data/x": "scheme",
    "one-1.0.data/scripts": "scheme",
    "one-1.0.data/etc/passwd": "scheme",
    "one-1.0.data/../x": "",
    "one-1.0.data/scripts/../../x": "",
    "one-1.0.data/purelib/../../../x": "",
    "one-1.0.data/headers/../../x": "",
    "one-1.0.data/data//x": "",
    # The frame of the virtual environment, by which everything in the image starts.
    "one-1.0.data/scripts/python": "opt/venv/bin/python is the virtual environment's own",
    "one-1.0.data/scripts/python3.11/x": "opt/venv/bin/python3.11/x is the virtual environment's own",
    "one-1.0.data/data/bin/python3": "opt/venv/bin/python3 is the virtual environment's own",
    "one-1.0.data/data/pyvenv.cfg": "opt/venv/pyvenv.cfg is the virtual environment's own",
    "one-1.0.data/data/lib64/x.py": "opt/venv/lib64/x.py is the virtual environment's own",
    # Two answers to which packages there are.
    "two-1.0.dist-info/METADATA": "dist-info",
    "One-1.0.dist-info/METADATA": "dist-info",
    "one-1.1.dist-info/METADATA": "dist-info",
    "two-1.0.data/scripts/x": "of another package",
    "One-1.0.data/scripts/x": "of another package",
    "one-1.0.data/purelib/two-1.0.dist-info/METADATA": "two-1.0.dist-info/METADATA is the metadata of another package",
    "one-1.0.data/data/lib/python3.11/site-packages/two-1.0.dist-info/METADATA": "METADATA is the metadata of another package",
    "two.egg-info/PKG-INFO": "of another package",
    "two-1.0.egg-info": "of another package",
    # What the installer writes.
    f"{INFO}/INSTALLER": "installer",
    f"{INFO}/direct_url.json": "installer",
    f"{INFO}/REQUESTED": "installer",
}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ascii(path[:40]))
def test_a_path_that_is_not_plainly_inside_is_refused(own_folders: Path, path: str) -> None:
    problem = refused(own_folders, save(own_folders, archive(entries(extra=[Entry(path, b"x = 1\n")]))))
    assert isinstance(problem, BuildError)
    assert problem.exit_code is ExitCode.BUILD
    assert NAME in problem.line()
    if PATHS[path]:
        assert PATHS[path] in problem.line()
    else:
        assert f"{path} leaves its folder" in problem.line()


def _link(mode: int) -> list[Entry]:
    return entries(extra=[Entry("one/x", b"/etc/passwd", mode=mode | 0o777)])


def _flipped(text: str) -> bytes:
    return text.encode("cp437")


# Each shares its bytes with the one before: a "better zip bomb" (Fifield, WOOT 2019) in small.
_KERNEL = deflated(bytes(1 << 20))

# A stored block of 46 bytes, the length of the next header, which is thus quoted.
_QUOTED = b"\0\x2e\0\xd1\xff" + _KERNEL[:40]

ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "symlink": (lambda: archive(_link(stat.S_IFLNK)), "one/x is no regular file"),
    "fifo": (lambda: archive(_link(stat.S_IFIFO)), "one/x is no regular file"),
    "socket": (lambda: archive(_link(stat.S_IFSOCK)), "one/x is no regular file"),
    "block_device": (lambda: archive(_link(stat.S_IFBLK)), "one/x is no regular file"),
    "file_that_says_it_is_a_folder": (lambda: archive(_link(stat.S_IFDIR)), "one/x is no regular file"),
    "folder_that_says_it_is_a_link": (
        lambda: archive(entries(extra=[Entry("one/x/", mode=stat.S_IFLNK | 0o777)])),
        "one/x/ is no folder",
    ),
    "folder_with_bytes": (lambda: archive(entries(extra=[Entry("one/x/", b"data")])), "one/x/ is a folder with bytes"),
    "folder_that_climbs_out": (
        lambda: archive(entries(extra=[Entry("../x/", mode=stat.S_IFDIR | 0o755)])),
        r"\.\./x/ leaves its folder",
    ),
    "folder_where_a_file_is": (lambda: archive(entries(extra=[Entry("one/a.py/")])), "one/a.py"),
    "file_below_a_file": (lambda: archive(entries(extra=[Entry("one/a.py/x", b"x")])), "one/a.py"),
    "file_below_a_file_of_another_scheme": (
        lambda: archive(entries({"one/x": b"1", "one-1.0.data/purelib/one/x/y": b"2"})),
        f"{SITE}/one/x",
    ),
    "names_that_normalise_to_each_other": (
        lambda: archive(entries({"one/\u00e9.py": b"1", "one/e\u0301.py": b"2"})),
        "one/e\u0301?.py|one/\u00e9.py",
    ),
    "name_in_cp437": (lambda: archive(entries(extra=[Entry(_flipped("one/é.py"), b"x", flags=0)])), "one/é.py .*UTF-8"),
    "name_utf8_in_one_header_only": (
        lambda: archive(entries(extra=[Entry("one/é.py", b"x", local_flags=0)])),
        "one/é.py is described in two ways",
    ),
    "name_not_utf8": (lambda: archive(entries(extra=[Entry(b"one/\xff.py", b"x")])), "utf-8"),
    "name_overlong_utf8": (lambda: archive(entries(extra=[Entry(b"one/\xc0\xae\xc0\xae/x", b"x")])), "utf-8"),
    "name_of_another_local_header": (
        lambda: archive(entries(extra=[Entry("one/b.py", b"x", local_name="../b.py")])),
        "one/b.py is described in two ways",
    ),
    "name_by_extra_field": (
        lambda: archive(entries(extra=[Entry("one/b.py", b"x", extra=struct.pack("<HHBI", 0x7075, 11, 1, 0) + b"../b.x")])),
        "one/b.py .*extra field",
    ),
    "bzip2": (lambda: archive(entries(extra=[Entry("one/b", b"x", method=12)])), "one/b is compressed otherwise"),
    "lzma": (lambda: archive(entries(extra=[Entry("one/b", b"x", method=14)])), "one/b is compressed otherwise"),
    "zstd": (lambda: archive(entries(extra=[Entry("one/b", b"x", method=93)])), "one/b is compressed otherwise"),
    "deflate64": (lambda: archive(entries(extra=[Entry("one/b", b"x", method=9)])), "one/b is compressed otherwise"),
    "encrypted": (lambda: archive(entries(extra=[Entry("one/b", b"x", flags=1)])), "one/b is encrypted"),
    "encrypted_strongly": (lambda: archive(entries(extra=[Entry("one/b", b"x", flags=0x41)])), "one/b is encrypted"),
    "directory_masked": (lambda: archive(entries(extra=[Entry("one/b", b"x", flags=0x2000)])), "one/b is encrypted"),
    "patch_data": (lambda: archive(entries(extra=[Entry("one/b", b"x", flags=0x20)])), "one/b|patch"),
    "longer_than_it_says": (lambda: archive(entries(extra=[Entry("one/b", bytes(9999), size=10)])), "one/b is longer"),
    "shorter_than_it_says": (lambda: archive(entries(extra=[Entry("one/b", b"x", size=9999)])), "one/b is shorter"),
    "bytes_after_its_end": (
        lambda: archive(entries(extra=[Entry("one/b", b"x", packed=deflated(b"x") + b"more")])),
        "one/b does not end where|one/b has bytes after",
    ),
    "wrong_checksum": (lambda: archive(entries(extra=[Entry("one/b", b"x", crc=1)])), "one/b does not have the .*checksum"),
    "sizes_of_two_headers_differ": (
        lambda: archive(entries(extra=[Entry("one/b", b"x", local_size=9)])),
        "one/b is described in two ways",
    ),
    "entries_share_bytes": (
        lambda: archive(entries(extra=[Entry("one/b", b"x", packed=_KERNEL), Entry("one/c", b"x", offset=0, ghost=True)])),
        "overlaps",
    ),
    "quoted_overlap": (
        lambda: archive(
            entries(
                extra=[
                    Entry("one/b", bytes(1 << 20), packed=_QUOTED, packed_size=len(_KERNEL) + 41),
                    Entry("one/c", bytes(1 << 20), packed=_KERNEL),
                ]
            )
        ),
        "overlaps|one/b",
    ),
    "reaches_into_the_directory": (
        lambda: archive(entries(extra=[Entry("one/b", b"x", packed_size=4000)])),
        "one/b overlaps",
    ),
    "bytes_before": (lambda: archive(entries(), before=b"#!/bin/sh\nexit\n"), "bytes .*that belong to no file"),
    "bytes_after": (lambda: archive(entries(), after=b"PK"), "bytes .*that belong to no file"),
    "bytes_between": (lambda: archive(entries(extra=[Entry("one/b", b"x", gap=b"gap")])), "bytes .*that belong to no file"),
    "entry_that_the_directory_hides": (
        lambda: archive(entries(extra=[Entry("one/b", b"x", hidden=True)], record=None)),
        "one/b|belong to no file",
    ),
    "two_archives_in_one": (lambda: archive(entries()) + archive(entries({"one/a.py": b"other"})), "belong to no file|end"),
    "end_in_a_comment": (
        lambda: archive(entries(), comment=archive(entries({"one/a.py": b"evil"}))),
        "belong to no file|end",
    ),
    "count_lies": (lambda: archive(entries(), count=3), "number of files|end"),
    "several_disks": (lambda: archive(entries(), disk=1), "disk|end"),
    "record_listed_twice": (
        lambda: archive(entries(rows=record_line("one/a.py", b"a = 1\n"))),
        "one/a.py stands twice in RECORD",
    ),
    "record_listed_twice_otherwise": (
        lambda: archive(entries(rows=record_line("one/a.py", b"evil"))),
        "one/a.py stands twice in RECORD",
    ),
    "record_of_itself": (
        lambda: archive(entries(rows=record_line(f"{INFO}/RECORD", b"x"))),
        f"{INFO}/RECORD .*twice|has a hash",
    ),
    "record_path_variant": (lambda: archive(entries(rows=record_line("./one/a.py", b"a = 1\n"))), "one/a.py"),
    "record_backslash": (lambda: archive(entries(rows=record_line("one\\a.py", b"a = 1\n"))), "one.a.py"),
    "record_two_columns": (lambda: archive(entries(rows="one/b.py,\n")), "RECORD"),
    "record_four_columns": (lambda: archive(entries(rows="one/b.py,,,\n")), "RECORD"),
    "record_quote_left_open": (lambda: archive(entries(rows='"one/b.py\n')), "RECORD"),
    "record_line_separator_in_a_name": (
        lambda: archive(entries(rows="one/b\u2028c.py,,\n")),
        "RECORD|one/b",
    ),
    "record_not_utf8": (lambda: archive(entries(record=b"\xff\xfe,,\n")), "RECORD.*utf-8"),
    "record_size_negative": (
        lambda: archive(entries(record="".join(record_line(p, d) for p, d in GOOD.items()).replace(",6", ",-6"))),
        "RECORD",
    ),
    "record_sha1": (
        lambda: archive(
            entries(
                extra=[Entry("one/b", b"x")],
                record=_record_but(
                    "one/b", "sha1=" + base64.urlsafe_b64encode(hashlib.sha1(b"x").digest()).decode().rstrip("=")
                ),
            )
        ),
        "one/b has a sha1 hash",
    ),
    "version_of_another": (
        lambda: archive(entries(metadata=METADATA.replace(b"1.0\n", b"1.1\n"))),
        "METADATA says one 2.1|METADATA says one 1.1",
    ),
    "name_of_another": (lambda: archive(entries(metadata=METADATA.replace(b"one", b"two"))), "METADATA says two 1.0"),
    "name_twice": (lambda: archive(entries(metadata=METADATA.replace(b"Name: one", b"Name: one\nName: two"))), "METADATA"),
    "dist_info_of_another_version": (lambda: archive(entries(info="one-9.9.dist-info")), "one-9.9.dist-info"),
    "dist_info_that_is_a_file": (lambda: archive(entries(extra=[Entry("two.dist-info", b"x")])), "dist-info"),
    "huge_record": (
        lambda: archive([*entries()[:-1], Entry(f"{INFO}/RECORD", b"", size=40 << 20)]),
        "RECORD is larger|RECORD is .*too large",
    ),
    "huge_metadata": (
        lambda: archive([Entry(f"{INFO}/METADATA", METADATA, size=40 << 20), *entries()[2:]]),
        "METADATA is larger|too large",
    ),
    "bomb_by_ratio": (
        lambda: archive(entries(extra=[Entry("one/zeros", b"", packed=_KERNEL, size=(1 << 32) - 1)])),
        "unpack",
    ),
}


def _record_but(path: str, digest: str) -> str:
    rows = [record_line(p, d) for p, d in {**GOOD, f"{INFO}/METADATA": METADATA, f"{INFO}/WHEEL": WHEEL}.items()]
    return "".join(rows) + f"{path},{digest},\n{INFO}/RECORD,,\n"


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_lies_is_refused(own_folders: Path, name: str) -> None:
    write, says = ARCHIVES[name]
    problem = refused(own_folders, save(own_folders, write()))
    assert isinstance(problem, BuildError)
    assert re.search(says, problem.line()), problem.line()


class SomeBytecode(NoBytecode):
    """Every module compiles."""

    def compile(self, name: str, source: bytes) -> bytes:
        return b"code"


def test_a_file_in_place_of_the_folder_of_bytecode_is_refused(own_folders: Path) -> None:
    path = save(own_folders, archive(entries({"one/a.py": b"1", "one/__pycache__": b"x"})))
    with pytest.raises(BuildError, match=f"{SITE}/one/__pycache__"):
        layer_of(path, compiler=SomeBytecode())


def test_bytecode_that_a_wheel_brings_for_another_is_not_installed(own_folders: Path) -> None:
    one = make(own_folders, {"one/a.py": b"1"})
    two = save(
        own_folders,
        archive(
            entries(
                {
                    "one/__pycache__/a.cpython-311.pyc": b"evil",
                    "two-1.0.data/purelib/one/__pycache__/a.cpython-311.pyc": b"evil",
                },
                info="two-1.0.dist-info",
                metadata=METADATA.replace(b"one", b"two"),
            )
        ),
        "two-1.0-py3-none-any.whl",
    )
    tar, _ = layer_of(one, two, compiler=SomeBytecode())
    assert content(tar, f"{SITE}/one/__pycache__/a.cpython-311.pyc") == b"code"
    assert b"evil" not in tar


ENTRY_POINTS = {
    "../../../etc/x = one:main": "names a script '../../../etc/x'",
    "sub/x = one:main": "names a script 'sub/x'",
    ".. = one:main": "names a script '..'",
    "x\x1b[2J = one:main": r"names a script 'x\\x1b",
    "python = one:main": "bin/python is the virtual environment's own",
    "python3.11 = one:main": "bin/python3.11 is the virtual environment's own",
    "x = one": "an entry names no function",
    "x = one:": "an entry names no function",
    "x = one:main();import os": "an entry names no function",
    'x = one:main") or exec("': "an entry names no function",
    "x = one import evil #:main": "an entry names no function",
    "x = one:main\n  [y]\n  evil": "an entry names no function",
    "x = one:lambda": "names a function that cannot be: one:lambda",
    "x = one:1": "names a function that cannot be: one:1",
    "x = one..two:main": "names a function that cannot be: one..two:main",
    "x = one:main\nx = two:main": "cannot be read",
    "x = %(secret)s:main": "cannot be read|names no function",
    "not an entry": "cannot be read",
}


@pytest.mark.parametrize("entry", ENTRY_POINTS, ids=ascii)
def test_an_entry_point_that_makes_no_plain_script_is_refused(own_folders: Path, entry: str) -> None:
    problem = refused(own_folders, save(own_folders, archive(entries(entry_points=f"[console_scripts]\n{entry}\n"))))
    assert NAME in problem.line()
    assert re.search(ENTRY_POINTS[entry], problem.line()), problem.line()


def test_entry_points_in_no_text_are_refused(own_folders: Path) -> None:
    problem = refused(own_folders, save(own_folders, archive(entries(entry_points=b"\xff\xfe[console_scripts]\n"))))
    assert "entry_points.txt cannot be read" in problem.line()


def test_a_shebang_is_the_images_interpreter_and_nothing_more(own_folders: Path) -> None:
    script = b"#!python -c evil\nprint(1)\n"
    tar, _ = layer_of(
        save(own_folders, archive(entries({"one-1.0.data/scripts/x": script, "one-1.0.data/scripts/y": b"#!python"})))
    )
    assert content(tar, f"{PREFIX}/bin/x") == b"#!/opt/venv/bin/python\nprint(1)\n"
    assert content(tar, f"{PREFIX}/bin/y") == b"#!/opt/venv/bin/python\n"


def test_rights_to_become_another_user_and_to_write_for_all_are_not_installed(own_folders: Path) -> None:
    modes = {"one/su": 0o6755, "one/all": 0o1777, "one/none": 0o000, "one/write": 0o666}
    extra = [Entry(path, b"x", mode=stat.S_IFREG | mode) for path, mode in modes.items()]
    tar, _ = layer_of(save(own_folders, archive(entries(extra=extra))))
    installed = {path: members(tar)[f"{SITE}/{path}"].mode for path in modes}
    assert installed == {"one/su": 0o755, "one/all": 0o755, "one/none": 0o644, "one/write": 0o644}


def test_a_wheel_under_another_packages_name_is_refused(own_folders: Path) -> None:
    wheel = stored(save(own_folders, archive(entries())))
    for name, version in (("two", "1.0"), ("one", "1.1")):
        with pytest.raises(BuildError, match="file name is not that of|is of another package than"):
            wheels.add(Wheel(name, version, wheel.artifact), LayerWriter(io.BytesIO()), NoBytecode(), {})


def two(folder: Path, files: dict[str, bytes], mode: int = 0o644) -> tuple[Path, Path]:
    """Two wheels, of which the second holds `files`."""
    extra = [Entry(path, data, mode=stat.S_IFREG | mode) for path, data in files.items()]
    other = entries({}, info="two-1.0.dist-info", metadata=METADATA.replace(b"one", b"two"), extra=extra)
    return save(folder, archive(entries())), save(folder, archive(other), "two-1.0-py3-none-any.whl")


def test_two_wheels_that_differ_in_a_files_mode_alone_are_refused_by_both_names(own_folders: Path) -> None:
    problem = refused(own_folders, *two(own_folders, GOOD, 0o755))
    assert f"one and two install different bytes at one path ({SITE}/one/a.py)" in problem.line()


def test_two_wheels_of_which_one_has_a_file_where_the_other_has_a_folder_are_refused(own_folders: Path) -> None:
    one, other = two(own_folders, {"one": b"x"})
    assert f"two-1.0-py3-none-any.whl: {SITE}/one is a folder" in refused(own_folders, one, other).line()
    assert f"one and two install different bytes at one path ({SITE}/one)" in refused(own_folders, other, one).line()
    one, other = two(own_folders, {"one/a.py/b": b"x"})
    assert f"one and two install different bytes at one path ({SITE}/one/a.py)" in refused(own_folders, one, other).line()


def test_two_layers_of_which_one_has_a_file_where_the_other_has_a_folder_are_refused() -> None:
    layers = [{path: ("0", name)} for path, name in (("a/b", "one"), ("a/b/c", "two"))]
    for order in (layers, layers[::-1]):
        with pytest.raises(BuildError, match=r"one and two install different bytes at one path \(a/b\)"):
            layer.check_conflicts(order)


def test_the_frame_of_the_virtual_environment_is_what_the_config_layer_writes() -> None:
    """What no wheel may fill, and what the last layer fills, are one list."""
    writer = LayerWriter(out := io.BytesIO())
    fill(read("train"), Accounts("", ""), "3.11.2", Path("none"), writer)
    writer.close()
    tar = zstandard.ZstdDecompressor().decompress(out.getvalue(), max_output_size=1 << 20)
    wheel = Wheel("one", "1.0", Artifact(NAME, 0, ""))
    frame = [name for name, info in members(tar).items() if name.startswith(PREFIX) and not info.isdir()]
    assert len(frame) == 4
    for name in frame:
        with pytest.raises(BuildError, match="virtual environment's own"):
            check_target(wheel, name, PREFIX, SITE)


@pytest.mark.slow
def test_memory_stays_small_whatever_a_wheel_unpacks_to(own_folders: Path) -> None:
    """60 MB of zeros, and twice as many that the directory says nothing of."""
    packed = deflated(bytes(60 << 20))
    all_of_it = Entry("one/zeros", bytes(60 << 20), packed=packed)
    little = Entry("one/zeros", bytes(1 << 10), packed=packed, size=1 << 10)
    honest = save(own_folders, archive(entries(extra=[all_of_it])))
    liar = save(own_folders, archive(entries(extra=[little])), "one-1.0-py3-any-any.whl")
    tracemalloc.start()
    try:
        for path in (honest, liar):
            wheel = stored(path)
            tracemalloc.reset_peak()
            with contextlib.nullcontext() if path == honest else pytest.raises(BuildError, match="one/zeros is longer"):
                wheels.add(wheel, LayerWriter(io.BytesIO()), NoBytecode(), {})
            assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def _add(wheel: Wheel) -> None:
    wheels.add(wheel, LayerWriter(io.BytesIO()), NoBytecode(), {})


@pytest.fixture
def wheel(own_folders: Path) -> Wheel:
    return stored(save(own_folders, archive(entries())))


def _unreadable(file: Path, how: str) -> None:
    file.unlink()
    match how:
        case "folder":
            file.mkdir()
        case "link_to_itself":
            file.symlink_to(file)
        case "input_output_error":
            # Linux answers EIO at its first byte.
            file.symlink_to("/proc/self/mem")


@pytest.mark.parametrize("how", ["folder", "link_to_itself", "input_output_error"])
def test_a_store_that_cannot_be_read_is_said_to_be(wheel: Wheel, how: str) -> None:
    _unreadable(store.path(wheel.artifact), how)
    # A link is refused before anybody follows it.
    message = f"{NAME} cannot be read from the store: " if how == "folder" else "what lies in the cache is a link"
    with pytest.raises(MissingEnvironmentError, match=message) as refused:
        _add(wheel)
    assert refused.value.exit_code is ExitCode.ENVIRONMENT


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_store_that_is_anothers_is_said_to_be(wheel: Wheel, own_folders: Path) -> None:
    store.path(wheel.artifact).chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(MissingEnvironmentError, match=f"{NAME} cannot be read from the store: Permission denied"):
            _add(wheel)
    finally:
        os.seteuid(0)


def test_a_disk_that_fails_in_the_middle_of_a_wheel_is_not_blamed_on_the_wheel(
    wheel: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(MissingEnvironmentError, match=f"{NAME} cannot be read from the store: Input/output error"):
        _add(wheel)


def test_a_wheel_replaced_after_it_was_hashed_is_not_what_is_read(
    wheel: Wheel, own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = save(own_folders, archive(entries({"one/a.py": b"evil\n"})), "evil.whl")
    real = hashlib.file_digest

    def hashed_and_replaced(file: io.BufferedReader, name: str) -> object:
        digest = real(file, name)
        evil.replace(store.path(wheel.artifact))
        return digest

    monkeypatch.setattr(hashlib, "file_digest", hashed_and_replaced)
    out, files = io.BytesIO(), Files()
    wheels.add(wheel, LayerWriter(out), NoBytecode(), files)
    assert files[f"{SITE}/one/a.py"][0] == hashlib.sha256(GOOD["one/a.py"]).hexdigest()


def test_a_wheel_written_to_while_it_is_read_is_refused(wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    file = store.path(wheel.artifact)

    class Meanwhile(NoBytecode):
        def compile(self, name: str, source: bytes) -> bytes:
            file.chmod(0o644)
            with file.open("r+b") as out:
                out.write(b"PK")
            return b""

    with pytest.raises(LockError, match=f"{NAME} was written to while it was read"):
        wheels.add(wheel, LayerWriter(io.BytesIO()), Meanwhile(), {})


class Pipe(io.RawIOBase):
    """A file that cannot be gone back in: zipfile then writes sizes after the bytes."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.data += data
        return len(bytes(data))


@pytest.mark.parametrize(
    "how", ["sizes_follow_the_bytes", "zip64", "zip64_and_sizes_follow", "stored", "with_folders_and_times"]
)
def test_what_is_unusual_and_honest_is_taken(own_folders: Path, how: str) -> None:
    expected, _ = layer_of(save(own_folders, archive(entries())))
    out = Pipe() if "follow" in how else io.BytesIO()
    method = zipfile.ZIP_STORED if how == "stored" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(out, "w", method) as made:
        if how == "with_folders_and_times":
            made.writestr(zipfile.ZipInfo("one/"), b"")
        for one in entries():
            info = zipfile.ZipInfo(str(one.name))
            info.compress_type, info.external_attr = method, one.mode << 16
            if how == "with_folders_and_times":
                info.extra = struct.pack("<HHBI", 0x5455, 5, 1, 1)
            with made.open(info, "w", force_zip64="zip64" in how) as file:
                file.write(one.data)
    data = bytes(out.data) if isinstance(out, Pipe) else out.getvalue()
    tar, _ = layer_of(save(own_folders, data))
    assert tar == expected


@pytest.mark.slow
def test_no_byte_of_a_wheel_can_change_without_notice(own_folders: Path) -> None:
    """Every byte, two ways: the layer is the same but for permissions, or the wheel is refused by name."""
    files = {"one/a.py": b"a = 1\n" * 9, "one/b.bin": bytes(range(256))}
    good = archive(entries(files, entry_points="[console_scripts]\nx = one:main\n"))
    expected, _ = layer_of(save(own_folders, good))
    kept = {name: content(expected, name) for name, info in members(expected).items() if info.isreg()}
    lines = set[str]()
    for at in range(len(good)):
        for change in (1, 0x80):
            bad = bytearray(good)
            bad[at] ^= change
            path = save(own_folders, bytes(bad))
            try:
                with placed(path):
                    tar, _ = layer_of(path)
            except PinwheelError as problem:
                lines.add(problem.line())
                continue
            if tar != expected:
                assert {n: content(tar, n) for n, info in members(tar).items() if info.isreg()} == kept, at
    assert all(NAME in line for line in lines)


@pytest.mark.slow
def test_no_cut_of_a_wheel_goes_without_notice(own_folders: Path) -> None:
    good = archive(entries({"one/a.py": b"a = 1\n" * 9}))
    for end in range(len(good)):
        path = save(own_folders, good[:end])
        with placed(path), pytest.raises(BuildError, match=NAME):
            layer_of(path)


@settings(max_examples=20, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=fuzz.wheels())
def test_any_wheel_is_refused_by_name_or_installed_as_pypas_installer_does(own_folders: Path, data: bytes) -> None:
    """A glimpse of `python -m tests.images.wheels.fuzz`."""
    fuzz.outcome(save(own_folders, data))
