"""A wheel becomes the layer that an installer would have made of it, or is refused."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import BuildError, LockError, PinwheelError
from images.spec import Rules
from images.wheels import install as wheels
from images.wheels.install import PREFIX, SITE
from lockfiles import store
from lockfiles.debian.rootfs import EPOCH
from tests.images.wheels.wheels import content, layer_of, make, members, record_line, stored

LONG = "/".join(["deep" * 10] * 6) + "/" + "n" * 120 + ".txt"
AWKWARD = {
    "one/__init__.py": b"x = 1\n",
    "one/broken_on_purpose.py": b"print 'python 2'\n",
    "one/ünïcode näme.txt": "grüße".encode(),
    "one/Case.txt": b"upper",
    "one/case.txt": b"lower",
    "one/empty.txt": b"",
    "one/lib.so": b"\x7fELF" + bytes(100_000),
    "one/__pycache__/planted.cpython-311.pyc": b"evil",
    "space/part/here.py": b"y = 2\n",
    f"one/{LONG}": b"long",
    "one-1.0.data/scripts/tool": b"#!python\nprint('tool')\n",
    "one-1.0.data/scripts/shell": b"#!/bin/sh\necho shell\n",
    "one-1.0.data/scripts/binary": b"\x7fELF" + bytes(range(256)),
    "one-1.0.data/data/share/one/doc.txt": b"doc",
    "one-1.0.data/headers/one.h": b"#define ONE 1\n",
    "one-1.0.data/purelib/one_pure.py": b"pure = True\n",
    "one-1.0.data/platlib/one_plat.py": b"plat = True\n",
}
ENTRY_POINTS = "[console_scripts]\none-cli = one:main\nother = one.sub:Thing.run [extra]\n\n[gui_scripts]\none-gui = one:gui\n"


@pytest.fixture
def awkward(own_folders: Path) -> Path:
    own_folders.mkdir(exist_ok=True)
    return make(own_folders, AWKWARD, executable=("one/lib.so",), entry_points=ENTRY_POINTS)


def test_the_written_record_describes_every_file_truly(awkward: Path) -> None:
    tar, files = layer_of(awkward)
    rows = csv.reader(io.StringIO(content(tar, f"{SITE}/one-1.0.dist-info/RECORD").decode()))
    for path, digest, size in rows:
        if not digest:
            assert path == "one-1.0.dist-info/RECORD"
            continue
        target = str((Path("/") / SITE / path).resolve()).lstrip("/") if ".." in path else f"{SITE}/{path}"
        data = content(tar, target)
        assert record_line(path, data) == f'"{path}",{digest},{size}\n'
        assert target in files


def test_entries_carry_one_time_no_names_and_parents_first(awkward: Path) -> None:
    tar, _ = layer_of(awkward)
    seen = set()
    for name, info in members(tar).items():
        assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (EPOCH, 0, 0, "", "")
        assert info.mode in (0o644, 0o755)
        parent = name.rpartition("/")[0]
        assert not parent or parent in seen, name
        seen.add(name)
    assert members(tar)[f"{SITE}/one/lib.so"].mode == 0o755


def test_generated_scripts_run(awkward: Path, tmp_path: Path) -> None:
    tar, _ = layer_of(make(tmp_path, {"one.py": b"def main():\n    print('ran'); return 3\n"}, entry_points=ENTRY_POINTS))
    script = tmp_path / "script.py"
    script.write_bytes(content(tar, f"{PREFIX}/bin/one-cli"))
    (tmp_path / "one.py").write_bytes(content(tar, f"{SITE}/one.py"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "ran\n")


def test_the_order_of_an_archive_does_not_change_the_layer(own_folders: Path) -> None:
    one, other = own_folders / "a", own_folders / "b"
    one.mkdir()
    other.mkdir()
    files = {f"one/{n}.py": bytes([n]) for n in range(65, 90)}
    info = "one-1.0.dist-info"
    fixed = {**files, f"{info}/METADATA": b"Metadata-Version: 2.1\nName: one\nVersion: 1.0\n"}
    fixed[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(record_line(p, d) for p, d in sorted(fixed.items())) + f"{info}/RECORD,,\n"
    first = make(one, files, record=record)
    second = make(other, dict(reversed(files.items())), record=record)
    assert first.read_bytes() != second.read_bytes()
    assert layer_of(first)[0] == layer_of(second)[0]


def _entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


INFO = "one-1.0.dist-info"
META = {
    f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: one\nVersion: 1.0\n",
    f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}


def _record(files: dict[str, bytes]) -> str:
    return "".join(record_line(p, d) for p, d in {**files, **META}.items()) + f"{INFO}/RECORD,,\n"


def _hostile(name: str, folder: Path) -> Path:
    """A bad wheel by the name of its defect."""
    good = {"one/a.py": b"a = 1\n"}
    match name:
        case "path_climbs_out":
            return make(folder, {**good, "../../../etc/cron.d/x": b"x"})
        case "path_climbs_within":
            return make(folder, {**good, "one/../../x": b"x"})
        case "path_absolute":
            return make(folder, {**good, "/etc/passwd": b"x"})
        case "path_with_backslash":
            return make(folder, {**good, "..\\x": b"x"})
        case "data_path_climbs_out":
            return make(folder, {**good, "one-1.0.data/data/../../x": b"x"})
        case "scripts_path_climbs_out":
            return make(folder, {**good, "one-1.0.data/scripts/../python": b"x"})
        case "unknown_scheme":
            return make(folder, {**good, "one-1.0.data/etc/passwd": b"x"})
        case "symlink":
            files = {**good, "one/link": b"/etc/passwd"}
            return make(
                folder, good, record=_record(files), extra=((_entry("one/link", stat.S_IFLNK | 0o777), b"/etc/passwd"),)
            )
        case "device":
            files = {**good, "one/dev": b""}
            return make(folder, good, record=_record(files), extra=((_entry("one/dev", stat.S_IFCHR | 0o666), b""),))
        case "not_in_record":
            return make(folder, good, extra=((_entry("one/extra.py"), b"evil"),))
        case "only_in_record":
            return make(folder, good, record=_record({**good, "one/ghost.py": b"x"}))
        case "record_hash_lies":
            return make(folder, good, record=_record({"one/a.py": b"other"}))
        case "record_size_lies":
            return make(folder, good, record=_record(good).replace(",6\n", ",7\n"))
        case "record_without_hash":
            return make(folder, good, record=f"one/a.py,,\n{_record({})}")
        case "record_hash_unknown":
            return make(folder, good, record=_record(good).replace("sha256", "crc32"))
        case "record_hash_weak":
            digest = base64.urlsafe_b64encode(hashlib.md5(good["one/a.py"]).digest()).rstrip(b"=").decode()
            return make(folder, good, record=f"one/a.py,md5={digest},6\n" + _record({}))
        case "offset_beyond_the_file":
            path = make(folder, good)
            ended = bytearray(path.read_bytes())
            at = ended.rindex(b"PK\x05\x06") + 12  # size of the central directory, which zipfile counts back from
            ended[at : at + 4] = b"\xff\xff\xff\x00"
            path.write_bytes(ended)
            return path
        case "record_missing":
            path = make(folder, good)
            with zipfile.ZipFile(path) as archive:
                kept = {n: archive.read(n) for n in archive.namelist() if not n.endswith("RECORD")}
            with zipfile.ZipFile(path, "w") as archive:
                for inner, data in kept.items():
                    archive.writestr(inner, data)
            return path
        case "entry_twice":
            with pytest.warns(UserWarning, match="Duplicate name"):
                return make(folder, good, extra=((_entry("one/a.py"), b"evil"),))
        case "two_dist_infos":
            return make(folder, {**good, "two-1.0.dist-info/METADATA": b"x"})
        case "dist_info_of_another":
            return make(folder, good, name="two").rename(folder / "one-1.0-py3-none-any.whl")
        case "wheel_version_of_tomorrow":
            changed = {**META, f"{INFO}/WHEEL": META[f"{INFO}/WHEEL"].replace(b"1.0", b"9.0")}
            return _raw(folder, {**good, **changed})
        case "truncated":
            path = make(folder, {"one/a.bin": bytes(range(256)) * 100})
            path.write_bytes(path.read_bytes()[:-200])
            return path
        case "bit_flipped":
            path = make(folder, {"one/a.bin": bytes(range(256)) * 100})
            flipped = bytearray(path.read_bytes())
            flipped[80] ^= 4
            path.write_bytes(flipped)
            return path
        case "no_zip":
            path = folder / "one-1.0-py3-none-any.whl"
            path.write_bytes(b"not a zip")
            return path
        case "entry_point_climbs_out":
            return make(folder, good, entry_points="[console_scripts]\n../../../etc/x = one:a\n")
        case "encrypted":
            path = make(folder, good)
            marked = bytearray(path.read_bytes())
            for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
                marked[marked.index(mark) + offset] |= 1
            path.write_bytes(marked)
            return path
    raise AssertionError(name)


def _raw(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "one-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        record = "".join(record_line(p, d) for p, d in files.items()) + f"{INFO}/RECORD,,\n"
        for inner, data in {**files, f"{INFO}/RECORD": record.encode()}.items():
            archive.writestr(inner, data)
    return path


HOSTILE = {
    "path_climbs_out": "leaves its folder",
    "path_climbs_within": "leaves its folder",
    "path_absolute": "/etc/passwd leaves its folder",
    "path_with_backslash": "leaves its folder",
    "data_path_climbs_out": "leaves its folder",
    "scripts_path_climbs_out": "leaves its folder",
    "unknown_scheme": "one-1.0.data/etc/passwd is in no scheme",
    "symlink": "one/link is no regular file",
    "device": "one/dev is no regular file",
    "not_in_record": "one/extra.py is not in RECORD",
    "only_in_record": "one/ghost.py is in RECORD but not in the archive",
    "record_hash_lies": "one/a.py is not what RECORD says",
    "record_size_lies": "one/a.py is not what RECORD says",
    "record_without_hash": "one/a.py has no hash in RECORD",
    "record_hash_unknown": "broken wheel|has a crc32 hash",
    "record_hash_weak": "one/a.py has a md5 hash in RECORD, which proves nothing",
    "record_missing": "one-1.0.dist-info/RECORD is missing",
    "offset_beyond_the_file": "broken wheel",
    "entry_twice": "one/a.py stands twice",
    "two_dist_infos": "one-1.0.dist-info and two-1.0.dist-info where one",
    "dist_info_of_another": "two-1.0.dist-info is of another package",
    "wheel_version_of_tomorrow": "broken wheel",
    "truncated": "broken wheel",
    "bit_flipped": "one/a.bin cannot be inflated",
    "no_zip": "broken wheel",
    "entry_point_climbs_out": r"entry_points.txt names a script '../../../etc/x'",
    "encrypted": "one/a.py is encrypted",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_broken_wheel_is_refused_by_name(own_folders: Path, name: str) -> None:
    with pytest.raises(BuildError, match=HOSTILE[name]) as refused:
        layer_of(_hostile(name, own_folders))
    assert "one-1.0-py3-none-any.whl" in refused.value.line()


def test_a_wheel_other_than_the_locked_one_is_refused_before_it_is_opened(own_folders: Path) -> None:
    path = make(own_folders, {"one/a.py": b"a = 1\n"})
    wheel = stored(path)
    store.path(wheel.artifact).chmod(0o644)
    store.path(wheel.artifact).write_bytes(b"PK" + bytes(wheel.artifact.size - 2))
    with pytest.raises(LockError, match="the store's bytes are sha256"):
        layer_of_stored(wheel)


def layer_of_stored(wheel: object) -> None:
    from images.tarball import LayerWriter
    from tests.images.wheels.wheels import NoBytecode

    wheels.add(wheel, LayerWriter(io.BytesIO()), NoBytecode(), {})  # type: ignore[arg-type]


def test_two_wheels_with_other_bytes_at_one_path_are_refused_by_both_names(own_folders: Path) -> None:
    one = make(own_folders, {"shared.py": b"1"})
    two = make(own_folders, {"shared.py": b"2"}, name="two")
    with pytest.raises(BuildError, match=rf"one and two install different bytes at one path \({SITE}/shared.py\)"):
        layer_of(one, two)


def test_two_wheels_with_the_same_bytes_at_one_path_share_it(own_folders: Path) -> None:
    tar, _ = layer_of(make(own_folders, {"shared.py": b"1"}), make(own_folders, {"shared.py": b"1"}, name="two"))
    assert content(tar, f"{SITE}/shared.py") == b"1"
    assert len([n for n in members(tar) if n.endswith("shared.py")]) == 1


def test_a_stated_conflict_keeps_one_file_and_takes_the_other_out_of_its_record(own_folders: Path) -> None:
    path = f"{SITE}/shared.py"
    one, two = make(own_folders, {"shared.py": b"1"}), make(own_folders, {"shared.py": b"2"}, name="two")
    tar, files = layer_of(two, rules={"two": Rules(dropped=frozenset({path}))})
    assert path not in members(tar)
    assert path not in files
    assert "shared.py" not in content(tar, f"{SITE}/two-1.0.dist-info/RECORD").decode()
    assert path in members(layer_of(one)[0])


def test_the_winner_of_a_conflict_may_share_the_losers_layer(own_folders: Path) -> None:
    path = f"{SITE}/shared.py"
    one, two = make(own_folders, {"shared.py": b"1"}), make(own_folders, {"shared.py": b"2"}, name="two")
    tar, files = layer_of(one, two, rules={"two": Rules(dropped=frozenset({path}))})
    assert content(tar, path) == b"1"
    assert files[path][1] == "one"


def test_a_stated_conflict_that_is_none_is_refused(own_folders: Path) -> None:
    one = make(own_folders, {"a.py": b"1"})
    with pytest.raises(BuildError, match=rf"holds nothing like that \({SITE}/b.py\)"):
        layer_of(one, rules={"one": Rules(dropped=frozenset({f"{SITE}/b.py"}))})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 5000), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_wheel_never_becomes_another_layer(own_folders: Path, position: int, byte: int, *, cut: bool) -> None:
    """Fuzz: whatever happens to the archive, the layer is the same, or the wheel is refused with an error of ours."""
    path = make(own_folders, {"one/a.py": b"a = 1\n" * 50, "one/b.bin": bytes(range(256)) * 4}, entry_points=ENTRY_POINTS)
    good, _ = layer_of(path)
    data = bytearray(path.read_bytes())
    at = position % len(data)
    if cut:
        del data[at:]
    else:
        data[at] = byte
    path.write_bytes(bytes(data))
    try:
        damaged, _ = layer_of(path)
    except PinwheelError:
        return
    # Permission bits lie outside of RECORD; the lock's sha256 of the whole wheel holds them.
    assert set(members(damaged)) == set(members(good))
    for name, info in members(good).items():
        if info.isreg():
            assert content(damaged, name) == content(good, name), name
