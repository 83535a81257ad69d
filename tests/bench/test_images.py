"""The bench measures what it says: processes and their children, disk, the same bytes; and its run leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bench import shared
from bench.images import build as bench
from bench.images import bump, limit, measure, profile, scratch, table
from bench.images.measure import Usage
from bench.images.race import BUMP, COLD, SAME, Figure, Results
from common import paths
from common.errors import BuildError, MissingEnvironmentError, UsageError
from common.files import sha256_file
from common.run import run
from lockfiles import lockfile, store
from lockfiles.model import Artifact, Wheel

USAGE = Usage(wall=10.0, cpu=15.0, memory=500_000_000, disk=1_000_000)

# Allocates and computes in a child, so that only one who looks at the whole tree sees it; ends when it was looked at.
BUSY = """
import pathlib, sys, time
held = bytearray(80_000_000)
pathlib.Path("allocated").touch()
end = time.process_time() + 0.5
while time.process_time() < end or not pathlib.Path("seen").exists():
    pass
"""
PARENT = f"import subprocess, sys\nsys.exit(subprocess.run([sys.executable, '-c', {BUSY!r}]).returncode)"
# Computes as long as it takes until the daemon, whose process it is told, used half a second of processor.
WAITS_FOR_DAEMON = """
import psutil, sys, time
daemon = psutil.Process(int(sys.argv[1]))
end = daemon.cpu_times().user + 0.5
while daemon.cpu_times().user < end:
    time.sleep(0.02)
"""
# Writes a file, and removes it when it was seen.
FREES = """
import os, pathlib, sys, time
pathlib.Path("looked-at/file").write_bytes(os.urandom(3_000_000))
while not pathlib.Path("seen").exists():
    time.sleep(0.02)
os.unlink("looked-at/file")
"""


@pytest.mark.slow
def test_time_and_memory_of_the_whole_tree_are_counted(tmp_path: Path) -> None:
    looks: list[bool] = []

    def look() -> int:
        # Memory is looked at just before disk: the second look after it was allocated has surely seen it.
        looks.append((tmp_path / "allocated").exists())
        if looks.count(True) > 1:
            (tmp_path / "seen").touch()
        return 0

    usage = measure.run([sys.executable, "-c", PARENT], log=tmp_path / "log", disk=look, cwd=tmp_path)
    assert usage.memory > 80_000_000
    assert usage.cpu > 0.5
    assert usage.wall >= 0.5


@pytest.mark.slow
def test_what_a_daemon_does_meanwhile_is_counted(tmp_path: Path) -> None:
    busy = "import time\nend = time.time() + 600\nwhile time.time() < end: pass"
    daemon = subprocess.Popen([sys.executable, "-c", busy])
    try:
        argv = [sys.executable, "-c", WAITS_FOR_DAEMON, str(daemon.pid)]
        usage = measure.run(argv, log=tmp_path / "log", disk=lambda: 0, daemon=daemon.pid)
    finally:
        daemon.kill()
        daemon.wait()
    assert usage.cpu >= 0.5


@pytest.mark.slow
def test_disk_that_is_freed_again_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "looked-at"
    folder.mkdir()
    (folder / "before").write_bytes(os.urandom(4_000_000))
    taken = measure.folders(folder)

    def look() -> int:
        size = taken()
        if size >= 7_000_000:
            (tmp_path / "seen").touch()
        return size

    usage = measure.run([sys.executable, "-c", FREES], log=tmp_path / "log", disk=look, cwd=tmp_path)
    assert 3_000_000 <= usage.disk < 4_000_000


@pytest.mark.slow
def test_a_program_that_fails_is_no_figure(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"]
    with pytest.raises(BuildError, match="code 3.*the reason"):
        measure.run(argv, log=tmp_path / "log", disk=lambda: 0)


def test_the_median_keeps_the_highest_peaks() -> None:
    runs = [replace(USAGE, wall=float(n), memory=n, disk=-n) for n in (1, 2, 9)]
    assert measure.median(runs) == replace(USAGE, wall=2.0, memory=9, disk=-1)


def test_a_bumped_wheel_is_whole_and_of_the_newer_version(own_folders: Path) -> None:
    source = own_folders / "demo-1.2-py3-none-any.whl"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("demo/__init__.py", "x = 1\n")
        archive.writestr("demo-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.2\n\nVersion: 1.2\n")
        archive.writestr("demo-1.2.dist-info/RECORD", "old")
    digest = sha256_file(source).removeprefix("sha256:")
    wheel = Wheel("demo", "1.2", Artifact(source.name, source.stat().st_size, digest))
    store.add_file(wheel.artifact, source)
    after = bump.newer(wheel, "1.2.post1")
    assert (after.version, after.artifact.file) == ("1.2.post1", "demo-1.2.post1-py3-none-any.whl")
    with zipfile.ZipFile(store.verified(after.artifact)) as archive:
        assert archive.namelist() == [
            "demo/__init__.py",
            "demo-1.2.post1.dist-info/METADATA",
            "demo-1.2.post1.dist-info/RECORD",
        ]
        metadata = archive.read("demo-1.2.post1.dist-info/METADATA").decode()
        assert metadata == "Metadata-Version: 2.1\nName: demo\nVersion: 1.2.post1\n\nVersion: 1.2\n"
        assert len(archive.read("demo-1.2.post1.dist-info/RECORD").splitlines()) == 3


def test_the_bumped_package_is_one_and_the_same_in_every_set_and_is_small() -> None:
    found = {
        wheel for name in ("train", "api", "api-cpu") for wheel in lockfile.read_set(name).wheels if wheel.name == bump.PACKAGE
    }
    assert len(found) == 1
    assert found.pop().artifact.file.endswith("-none-any.whl")


def test_goals_are_judged_by_the_figures_and_a_miss_is_said() -> None:
    figures = [
        Figure("x", "(d) isal", COLD, replace(USAGE, wall=8.0), 1),
        Figure("x", "(b) reference Dockerfile", COLD, replace(USAGE, wall=20.0), 1),
        Figure("x", "(c) `invoke build`", COLD, USAGE, 1, upload=900_000, base=950_000),
        Figure("x", "(c) `invoke build`", SAME, replace(USAGE, wall=0.9), 1, base=950_000),
        Figure("x", "(c) `invoke build`", BUMP, replace(USAGE, wall=3.5), 1, upload=104, base=100),
    ]
    said = {goal.what: (round(goal.reached, 2), goal.met) for goal in table.goals(Results(figures))}
    assert said == {
        "x: cold, of (d) isal": (1.25, True),
        "x: cold, faster than (b)": (2.0, False),
        "x: one package bumped": (3.5, False),
        "x: upload of a bump, of its changed layers": (1.04, True),
        "x: nothing changed": (0.9, True),
        "x: peak memory": (500_000_000, True),
        "x: scratch, of the layout": (1.05, True),
    }


def test_functions_are_booked_under_their_kind_of_work() -> None:
    assert profile.kind("<method 'update' of '_hashlib.HASH' objects>") == "sha256"
    assert profile.kind("<method 'compress' of 'zstandard.backend_c.ZstdCompressionObj' objects>") == "zstd"
    assert profile.kind("<method 'decompress' of 'zlib.Decompress' objects>") == "inflate"
    assert profile.kind("/usr/lib/python3.11/tarfile.py:tobuf").startswith("Python")


def test_a_table_goes_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    file.write_text("before\n<!-- invoke bench x: begin -->\nold\n<!-- invoke bench x: end -->\nafter\n")
    shared.publish("invoke bench x", shared.markdown(("work", "s"), [("one", "1")], right=(1,)), file=file)
    text = file.read_text()
    assert text.startswith("before\n<!-- invoke bench x: begin -->\n\nTaken on ")
    assert text.endswith("\n\n| work | s |\n| --- | --: |\n| one | 1 |\n\n<!-- invoke bench x: end -->\nafter\n")
    with pytest.raises(UsageError, match="no place for the table"):
        shared.publish("invoke bench y", file=file)


@pytest.mark.slow
def test_what_a_killed_run_left_goes_with_the_next_and_a_living_one_stays(own_folders: Path) -> None:
    home = paths.cache()
    with scratch.made([], need=0) as living:
        dead = home / ".bench-dead"
        dead.mkdir()
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(dead / "engine")])
        with scratch.made([], need=0):
            sleeper.wait(timeout=60)
            assert not psutil.pid_exists(sleeper.pid)
            assert not dead.exists()
            assert living.checkout.is_dir()
    assert not list(home.glob(".bench-*"))


def test_a_disk_without_room_is_refused_before_anything_is_written(own_folders: Path) -> None:
    with pytest.raises(MissingEnvironmentError, match="needs up to .* of disk"), scratch.made([], need=1 << 60):
        pass
    assert not list(paths.cache().glob(".bench-*"))


@pytest.mark.engine
def test_a_quick_run_fills_every_cell_and_leaves_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    before = run(["git", "-C", paths.ROOT, "status", "--porcelain"]).stdout
    started = time.time()
    results = bench.measured("quick")
    made = {(one.who[:3], one.case) for one in results.figures}
    assert made == {("(d)", COLD)} | {(who, case) for who in ("(a)", "(b)", "(c)") for case in (COLD, SAME, BUMP)}
    assert sum(one.who.startswith("(d)") for one in results.figures) == len(limit.WAYS)
    for one in results.figures:
        assert min(one.usage.wall, one.usage.cpu, one.usage.memory) > 0, one
    uploads = {(one.who[:3], one.case): one.upload for one in results.figures}
    for who in ("(a)", "(b)", "(c)"):
        # Not a byte twice: nothing changed uploads nothing, a bump less than all.
        assert uploads[who, SAME] < 10_000 < uploads[who, BUMP] < uploads[who, COLD]
    cold, same = results.digests[bump.SMALL]
    assert cold == same
    assert all(seconds > 0 and size > 0 for _, _, size, seconds in results.pulls)
    assert {name for name, _, _, _ in results.pulls} == {bump.SMALL}
    assert abs(sum(results.shares[bump.SMALL].values()) - 1) < 0.001
    assert results.shares[bump.SMALL]["zstd"] > 0.01
    assert results.kinds[bump.SMALL]["bytecode"] > 0
    for head, rows in table.blocks(results):
        assert rows, head
        assert all(len(row) == len(head) for row in rows)
    assert not list(paths.cache().glob(".bench-*"))
    left = [p for p in psutil.process_iter(["cmdline"]) if any(".bench-" in arg for arg in p.info["cmdline"] or ())]
    assert not left
    assert run(["git", "-C", paths.ROOT, "status", "--porcelain"]).stdout == before
    assert not [m for m in Path("/proc/self/mounts").read_text().splitlines() if ".bench-" in m]
    assert (paths.ROOT / "docs" / "performance.md").stat().st_mtime < started
