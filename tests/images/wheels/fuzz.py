"""Fuzzing the way from a wheel to a layer: `python -m tests.images.wheels.fuzz --minutes 10` prints executions and findings.

Two kinds. `grammar`: wheels by hypothesis, out of a grammar of names, modes, headers, RECORD rows and entry points, honest and
not. `bytes`: wheels of the store with bytes flipped, cut, moved and copied. Both work below the lock's sha256, which stops them
all in a build. What must hold: one line that names the wheel, or the layer that an honest installer makes, the same one twice.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import os
import posixpath
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile

from common.errors import PinwheelError
from images.wheels.install import PREFIX, SITE
from lockfiles import inputs, lockfile, store
from lockfiles.debian.rootfs import EPOCH
from tests.images.wheels.wheels import NoBytecode, layer_of, record_line
from tests.images.wheels.zips import FILE, INFO, METADATA, WHEEL, Entry, archive, entries, placed

NAME = "one-1.0-py3-none-any.whl"


class Bytecode(NoBytecode):
    """Every module compiles, to something that depends on it alone."""

    def compile(self, name: str, source: bytes) -> bytes:
        return name.encode("utf-8", "surrogateescape") + hashlib.sha256(source).digest()


def outcome(path: Path, *, tar: bool = False) -> str:
    """Make a layer of a wheel and check all that must hold of it; `refused` or `installed`.

    Args:
        path: the wheel.
        tar: compare with what GNU tar lists, too.

    Raises:
        AssertionError: something does not hold.
    """
    with placed(path):
        try:
            layer, files = layer_of(path, compiler=Bytecode())
        except PinwheelError as problem:
            line = problem.line()
            assert line.isprintable(), ascii(line)
            assert path.name in line or "installs different bytes" in line, line
            return "refused"
        assert layer_of(path, compiler=Bytecode()) == (layer, files), "a second layer differs"
    contents = _members(layer)
    _check_record(contents)
    assert set(files) == {name for name, data in contents.items() if data is not None}
    _check_reference(path, contents)
    if tar:
        done = subprocess.run(["tar", "-tf", "-", "--quoting-style=literal"], input=layer, capture_output=True, check=False)
        listed = [line.removesuffix("/") for line in done.stdout.decode().splitlines()]
        assert (done.returncode, listed) == (0, list(contents)), "GNU tar reads another list"
    return "installed"


def _members(layer: bytes) -> dict[str, bytes | None]:
    contents: dict[str, bytes | None] = {}
    with tarfile.open(fileobj=io.BytesIO(layer), mode="r:") as archive:
        for one in archive:
            assert one.name not in contents, one.name
            assert one.isreg() or one.isdir(), one.name
            assert (one.mtime, one.uid, one.gid, one.uname, one.gname) == (EPOCH, 0, 0, "", ""), one.name
            assert one.mode in ((0o644, 0o755) if one.isreg() else (0o755,)), one.name
            assert f"{one.name}/".startswith(f"{PREFIX}/") or one.name == "opt", one.name
            assert posixpath.normpath(one.name) == one.name
            above = posixpath.dirname(one.name)
            assert not above or contents.get(above, b"") is None, one.name
            file = archive.extractfile(one)
            contents[one.name] = file.read() if file else None
    return contents


def _check_record(contents: dict[str, bytes | None]) -> None:
    (record,) = [name for name in contents if _is_record(name)]
    rows = list(csv.reader(io.StringIO((contents[record] or b"").decode(), newline="")))
    named = {posixpath.normpath(f"{SITE}/{row[0]}"): row for row in rows}
    assert len(named) == len(rows), "RECORD names a path twice"
    assert set(named) == {name for name, data in contents.items() if data is not None}, "RECORD is not what is there"
    for name, (_, digest, size) in named.items():
        data = contents[name] or b""
        if digest:
            hashed = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={hashed}", str(len(data))), name
        else:
            assert name == record or "/__pycache__/" in name, name


def _check_reference(path: Path, contents: dict[str, bytes | None]) -> None:
    """Compare with what PyPA's `installer` makes of the wheel by itself."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schemes = {"purelib": SITE, "platlib": SITE, "scripts": f"{PREFIX}/bin", "data": PREFIX}
        schemes["headers"] = f"{PREFIX}/include/site/python3.11/{path.name.partition('-')[0]}"
        target = SchemeDictionaryDestination({k: f"{folder}/{v}" for k, v in schemes.items()}, f"/{PREFIX}/bin/python", "posix")
        try:
            with WheelFile.open(path) as source:
                install(source, target, {"INSTALLER": b"pinwheel\n"})
        except FileExistsError:
            return  # the same bytes by two schemes
        made = Path(folder)
        theirs = {str(file.relative_to(made)): file.read_bytes() for file in made.rglob("*") if file.is_file()}
    ours = {name: data for name, data in contents.items() if data is not None and "/__pycache__/" not in name}
    assert set(ours) == set(theirs), f"installer makes other files: {set(ours) ^ set(theirs)}"
    for name, data in ours.items():
        # Ours names the bytecode, and in another order.
        assert data == theirs[name] or _is_record(name), name


def _is_record(name: str) -> bool:
    return re.fullmatch(re.escape(SITE) + r"/[^/]*\.dist-info/RECORD", name) is not None


_ODD = (
    "..",
    ".",
    "",
    "a\\b",
    "C:",
    "é",
    "e\u0301",
    "x\0y",
    "\u202e",
    "\n",
    "n" * 300,
    "one-1.0.data",
    INFO,
    "two-1.0.dist-info",
    "x.egg-info",
    "__pycache__",
    "bin",
    "scripts",
    "purelib",
    "\udcff",
    " ",
    "a b",
    "A",
    "a",
    "CON",
    "~",
    "-x",
    "#",
    ",",
    '"',
)
_PARTS = st.sampled_from(("one", "a.py", "b.so", "sub", "c.txt", "x", "__init__.py", "long" * 30)) | st.sampled_from(_ODD)
_PREFIXES = st.sampled_from(
    (
        "",
        "",
        "",
        "one/",
        "one-1.0.data/scripts/",
        "one-1.0.data/purelib/",
        "one-1.0.data/data/",
        "one-1.0.data/headers/",
        "one-1.0.data/x/",
        f"{INFO}/",
        f"{INFO}/licenses/",
        "/",
        "../",
    )
)
_NAMES = st.builds(lambda prefix, parts: prefix + "/".join(parts), _PREFIXES, st.lists(_PARTS, min_size=1, max_size=3))
_GOOD_NAMES = st.builds(
    lambda prefix, name: prefix + name,
    st.sampled_from(("one/", "one/sub/", "", "one-1.0.data/scripts/", "one-1.0.data/data/share/", "one-1.0.data/headers/")),
    st.from_regex(r"[a-z]{1,8}(\.py|\.txt|\.so|)", fullmatch=True),
)
_DATA = st.sampled_from((b"", b"x = 1\n", b"#!python\nprint()\n", b"#!python", b"\x7fELF" + bytes(3000))) | st.binary(
    max_size=40
)
_LIES = st.sampled_from(
    (
        "size",
        "packed_size",
        "crc",
        "offset",
        "local_size",
        "flags",
        "local_flags",
        "method",
        "local_name",
        "gap",
        "extra",
        "packed",
        "hidden",
        "ghost",
        "mode",
    )
)
_ENTRY_POINTS = st.sampled_from(
    (
        "",
        "",
        "",
        "[console_scripts]\none = one:main\n",
        "[gui_scripts]\na = one.b:c.d [x]\n",
        "[console_scripts]\n../x = one:main\n",
        "[console_scripts]\npython = one:main\n",
        "[console_scripts]\nx = one\n",
        "[console_scripts]\nx = one:main\n[gui_scripts]\nx = one:other\n",
        "x",
        "[console_scripts]\nx = one:class\n",
    )
)


@st.composite
def wheels(draw: st.DrawFn) -> bytes:
    """Archives that are wheels, or nearly."""
    honest = draw(st.booleans())
    names = draw(st.lists(_GOOD_NAMES if honest else _NAMES, max_size=6))
    plain = [Entry(name, draw(_DATA), mode=draw(st.sampled_from((FILE, 0o100755, 0)))) for name in names]
    fixed = [Entry(f"{INFO}/METADATA", METADATA), Entry(f"{INFO}/WHEEL", WHEEL)]
    if text := draw(_ENTRY_POINTS):
        fixed.append(Entry(f"{INFO}/entry_points.txt", text.encode()))
    all_of_it = [*plain, *fixed]
    rows = [record_line(str(one.name), one.data) for one in all_of_it]
    if not honest and draw(st.booleans()):
        index = draw(st.integers(0, len(rows) - 1))
        rows[index] = draw(
            st.sampled_from(
                (
                    rows[index] * 2,
                    "",
                    rows[index].replace("sha256", "md5"),
                    rows[index].replace("=", "=A"),
                    rows[index].replace("/", "//"),
                    rows[index].replace("/", "\\"),
                    f"./{rows[index]}",
                    "x,,\n",
                    "\r\n",
                    rows[index].replace("\n", "\r\n"),
                    rows[index].replace(",", ",,"),
                    rows[index][:-2] + "٣\n",
                )
            )
        )
    record = "".join(rows) + f"{INFO}/RECORD,,\n"
    ready = draw(st.permutations([*all_of_it, Entry(f"{INFO}/RECORD", record.encode("utf-8", "surrogateescape"))]))
    if not honest and draw(st.booleans()):
        index = draw(st.integers(0, len(ready) - 1))
        ready = [*ready[:index], _lying(draw, ready[index]), *ready[index + 1 :]]
    around = st.sampled_from((b"",) * 6 + (b"x", b"PK\5\6", bytes(22)))
    return archive(ready) if honest else archive(ready, before=draw(around), after=draw(around), comment=draw(around))


def _lying(draw: st.DrawFn, entry: Entry) -> Entry:
    values: dict[str, st.SearchStrategy[object]] = {
        "flags": st.sampled_from((0, 1, 8, 0x20, 0x40, 0x808, 0x2800)),
        "local_flags": st.sampled_from((0, 1, 8, 0x808)),
        "method": st.sampled_from((0, 9, 12, 14, 93, 99)),
        "local_name": _NAMES,
        "gap": st.binary(min_size=1, max_size=40),
        "extra": st.sampled_from((b"\x75\x70\x01\0\x01", b"\1\0\x10\0" + bytes(16), b"x", b"UT\5\0\3abcd")),
        "packed": st.binary(max_size=40),
        "hidden": st.just(value=True),
        "ghost": st.just(value=True),
        "mode": st.sampled_from((0o120777, 0o20666, 0o60666, 0o10644, 0o140777, 0o40755, 0o104755, 0o107777)),
    }
    field = draw(_LIES)
    value = draw(values.get(field, st.sampled_from((0, 1, 5, 100, 4000, 1 << 31, (1 << 32) - 1))))
    fields = {name: getattr(entry, name) for name in Entry.__slots__}
    return Entry(**{**fields, field: value})


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A wheel with a few changes; half of them in the headers, where the meaning is."""
    out = bytearray(data)
    marks = [at for at in range(len(data)) if data[at : at + 2] == b"PK"]
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(out) or 1)
        if marks and chance.random() < 0.5:
            at = min(chance.choice(marks) + chance.randrange(60), len(out) - 1)
        length = chance.choice((1, 2, 4, 30, 500))
        match chance.randrange(6):
            case 0:
                out[at] ^= 1 << chance.randrange(8)
            case 1:
                out[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", bytes(4), b"PK\5\6", b"PK\1\2", b"../.", b"/\0\0\0"))
            case 2:
                del out[at : at + length]
            case 3:
                source = chance.randrange(len(out))
                out[at:at] = out[source : source + length]
            case 4:
                source = chance.randrange(len(out))
                out[at : at + length] = out[source : source + length]
            case _:
                out[at] = chance.randrange(256)
        if not out:
            return b"PK"
    return bytes(out)


def corpus(limit: int = 60_000) -> list[tuple[str, bytes]]:
    """Names and bytes of small wheels of the store, or of a made one where the store holds none."""
    found: dict[str, bytes] = {}
    for name in inputs.set_names():
        for wheel in lockfile.read_set(name).wheels:
            if wheel.artifact.size < limit and store.has(wheel.artifact):
                found[wheel.artifact.file] = store.path(wheel.artifact).read_bytes()
    inside = {"one/a.py": b"x = 1\n" * 9, "one/b.bin": bytes(range(256))}
    return sorted(found.items()) or [(NAME, archive(entries(inside, entry_points="[console_scripts]\nx = one:main\n")))]


def run(minutes: float, start: int, kinds: list[str]) -> int:
    """Fuzz for so long; print what was done; returns the number of findings."""
    with tempfile.TemporaryDirectory(prefix="pinwheel-fuzz-") as scratch:
        real = corpus()
        os.environ["PINWHEEL_CACHE"] = f"{scratch}/cache"
        folder, failures = Path(scratch), 0
        for kind in kinds:
            counts: Counter[str] = Counter()
            began, found = time.monotonic(), Counter[str]()
            until = began + minutes * 60 / len(kinds)
            work = _grammar if kind == "grammar" else _bytes
            work(folder, real, start, until, counts, found)
            took = time.monotonic() - began
            total = sum(counts.values())
            speed = f"{total} executions in {took:.0f} s, {total / took:.0f}/s"
            print(f"{kind}: {speed}: {dict(counts)}, {len(found)} findings", flush=True)
            failures += len(found)
    return failures


def _grammar(folder: Path, _: object, start: int, until: float, counts: Counter[str], found: Counter[str]) -> None:
    path = folder / NAME

    def one(data: bytes) -> None:
        if time.monotonic() < until:
            _try(path, data, counts, found)

    number = start
    while time.monotonic() < until:
        number += 1
        fresh = settings(
            max_examples=2000, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
        )
        seeded(number)(fresh(given(wheels())(one)))()


def _bytes(
    folder: Path, real: list[tuple[str, bytes]], start: int, until: float, counts: Counter[str], found: Counter[str]
) -> None:
    chance = random.Random(start)
    while time.monotonic() < until:
        name, data = chance.choice(real)
        _try(folder / name, mutated(data, chance), counts, found)


def _try(path: Path, data: bytes, counts: Counter[str], found: Counter[str]) -> None:
    path.write_bytes(data)
    try:
        counts[outcome(path, tar=sum(counts.values()) % 20 == 0)] += 1
    except Exception as problem:  # noqa: BLE001 - any is a finding
        counts["finding"] += 1
        text = f"{type(problem).__name__}: {problem}"[:160]
        found[text] += 1
        if found[text] == 1:
            kept = Path(tempfile.gettempdir()) / f"pinwheel-finding-{hashlib.sha256(data).hexdigest()[:12]}-{path.name}"
            kept.write_bytes(data)
            print(f"finding: {text!a}; the wheel is kept as {kept}", flush=True)
    finally:
        path.unlink(missing_ok=True)


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.images.wheels.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=("grammar", "bytes"), action="append")
    chosen = parser.parse_args()
    return 1 if run(chosen.minutes, chosen.seed, chosen.kind or ["grammar", "bytes"]) else 0


if __name__ == "__main__":
    sys.exit(main())
