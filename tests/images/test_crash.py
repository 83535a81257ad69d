"""A build that is killed, starved, interrupted or not alone: the layout is valid, and the next build just goes on."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from common import files
from common.errors import BuildError
from common.run import run
from images import config, layer
from images.plan import LayerPlan
from images.tarball import LayerWriter
from lockfiles import lockfile
from lockfiles.debian import rootfs
from lockfiles.debian.rootfs import Rootfs
from oci.layout import Layout
from tests.images import small_build
from tests.oci.image_layout import check_by_skopeo, check_layout
from tests.waiting import eventually

# Run before all else in every process of a build: at a process's first call of a function of `os` with such a path, or the
# nth, all of the build is killed, before the call or after it.
_KILL = """
import os, re, signal
_real = os.{call}
_left = {nth}
def _killing(*arguments, **more):
    global _left
    hit = any(re.search({part!r}, str(one)) for one in arguments)
    _left -= hit
    if hit and not _left and {before}:
        os.killpg(0, signal.SIGKILL)
    result = _real(*arguments, **more)
    if hit and not _left:
        os.killpg(0, signal.SIGKILL)
    return result
os.{call} = _killing
"""
# The processes that make layers stop in the middle of one.
_STUCK = """
import os, sys, time
if "multiprocessing.spawn" in " ".join(sys.orig_argv):
    os.fchmod = lambda *_: time.sleep(600)
"""


@dataclass
class Run:
    """A build in a session of its own, forked off this process: it starts at once."""

    pid: int
    said: int

    def wait(self, seconds: float = 300) -> int:
        """Its exit code, negative for a signal."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        raise AssertionError(f"still running after {seconds} s: {self.processes()}")

    def kill(self) -> None:
        """Kill all of it, as the kernel or a power switch would."""
        os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def processes(self) -> list[int]:
        """What lives of it, children and theirs included."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                # proc(5): after the name in brackets come state, parent, process group, session.
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
        return found

    def gone(self, seconds: float = 60) -> bool:
        """Whether nothing of it lives, at the latest after so long."""
        end = time.monotonic() + seconds
        while self.processes() and time.monotonic() < end:
            time.sleep(0.01)
        return not self.processes()

    def output(self) -> str:
        """All it printed; nothing of it lives any more."""
        data = b""
        while select.select([self.said], [], [], 2)[0] and (chunk := os.read(self.said, 1 << 16)):
            data += chunk
        os.close(self.said)
        return data.decode()


def start(material: Path, place: Path, *, early: str = "", prepare: Callable[[], None] = lambda: None) -> Run:
    """Start a build; `early` runs first in each of its processes, `prepare` in the first."""
    (place / "early").mkdir(parents=True, exist_ok=True)
    (place / "early" / "sitecustomize.py").write_text(early)
    readable, writable = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writable)
        while os.getsid(pid) != pid:
            time.sleep(0.001)
        return Run(pid, readable)
    code = 99
    try:
        os.setsid()
        os.dup2(writable, 1)
        os.dup2(writable, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ |= {
            "PINWHEEL_DIST": str(place / "dist"),
            "PINWHEEL_CACHE": str(material / "cache"),
            "PYTHONPATH": str(place / "early"),
        }
        exec(early, {})
        prepare()
        small_build.main(material, [])
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - nothing may get back into the test that was forked
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture(scope="module")
def material(root: Rootfs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tasks  # noqa: F401 - what is imported here need not be in each fork

    folder = tmp_path_factory.mktemp("material")
    small_build.prepare(folder, root)
    return folder


@dataclass(frozen=True)
class Built:
    """What a good build gives: the image's digest, how long it takes, and a dist with images of before."""

    digest: str
    took: float
    before: Path


@pytest.fixture(scope="module")
def built(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    place = tmp_path_factory.mktemp("good")
    new = [material / "wheels" / f"{name}-1.0-py3-none-any.whl" for name in ("small3", "awkward")]
    for wheel in new:
        wheel.rename(material / wheel.name)
    _good(material, place)
    before = place.with_name("before")
    shutil.move(place / "dist", before)
    for wheel in new:
        (material / wheel.name).rename(wheel)
    started = time.monotonic()
    digest = _good(material, place)
    return Built(digest, time.monotonic() - started, before)


def _good(material: Path, place: Path) -> str:
    """A build that must succeed and leave nothing half done; returns the image's digest."""
    build = start(material, place)
    code = build.wait()
    assert build.gone()
    said = build.output()
    assert code == 0, said
    dist = place / "dist"
    (image,) = json.loads((dist / "build.json").read_text())["images"]
    listed = check_layout(dist / "oci")
    assert image["digest"] in listed.values()
    hidden = {file.relative_to(dist).as_posix() for file in dist.rglob(".*")}
    assert hidden <= {".lock", ".oci.readers"}
    return str(image["digest"])


def _check(place: Path, scratch: Path) -> None:
    """A dist after a crash: the layout is valid, and so is what the receipt names."""
    dist = place / "dist"
    if not (dist / "oci" / "index.json").exists():
        return
    listed = check_layout(dist / "oci")
    check_by_skopeo(dist / "oci", listed, scratch)
    if (dist / "build.json").exists():
        (image,) = json.loads((dist / "build.json").read_text())["images"]
        for one in image["layers"]:
            assert (dist / "oci" / "blobs" / "sha256" / one["digest"][7:]).stat().st_size == one["size"]


# A function of `os`, the path it is called with, the how-manieth such call of a process, and whether before it.
_MOMENTS = {
    "layer written, not on disk": ("fsync", "", 1, True),
    "layer whole, without its name": ("replace", r"/\.layer-", 1, True),
    "blob there, no note": ("replace", r"/\.layer-", 1, False),
    "note not named": ("replace", "/layers/", 1, True),
    "note there": ("replace", "/layers/", 1, False),
    "configuration not named": ("replace", r"/sha256/\.[0-9a-f]{64}\.", 1, True),
    "manifest there, not listed": ("replace", r"/sha256/\.[0-9a-f]{64}\.", 2, False),
    "image not listed": ("replace", r"/\.index\.json\.", 1, True),
    "image listed": ("replace", r"/\.index\.json\.", 1, False),
    "receipt not named": ("replace", r"/\.build\.json\.", 1, True),
    "receipt there, nothing swept": ("replace", r"/\.build\.json\.", 1, False),
    "first note swept": ("unlink", r"/layers/\w+\.json$", 1, False),
    "blob about to be swept": ("unlink", r"/sha256/[0-9a-f]{64}$", 1, True),
    "second blob swept": ("unlink", r"/sha256/[0-9a-f]{64}$", 2, False),
}


@pytest.mark.host
@pytest.mark.parametrize("moment", list(_MOMENTS))
def test_killed_at_a_step_the_layout_is_valid_and_the_next_build_goes_on(
    material: Path, built: Built, tmp_path: Path, moment: str
) -> None:
    call, part, nth, before = _MOMENTS[moment]
    shutil.copytree(built.before, tmp_path / "dist")
    build = start(material, tmp_path, early=_KILL.format(call=call, part=part, nth=nth, before=before))
    assert build.wait() == -signal.SIGKILL, build.output()
    assert build.gone()
    _check(tmp_path, tmp_path / "copied")
    assert _good(material, tmp_path) == built.digest


@pytest.mark.host
def test_killed_at_any_time_the_layout_is_valid_and_the_next_build_goes_on(
    material: Path, built: Built, tmp_path: Path
) -> None:
    killed = 0
    moments = 10
    for number in range(moments):
        place = tmp_path / str(number)
        if number % 2:
            shutil.copytree(built.before, place / "dist")
        build = start(material, place)
        time.sleep(built.took * (number + 0.5) / moments)
        build.kill()
        killed += not (place / "dist" / "build.json").exists()
        assert build.gone()
        _check(place, place / "copied")
        assert _good(material, place) == built.digest
        shutil.rmtree(place)
    assert killed


@pytest.mark.host
@pytest.mark.parametrize(
    ("number", "group", "code", "line"),
    [
        (signal.SIGINT, True, 130, "error: interrupted"),
        (signal.SIGINT, False, 130, "error: interrupted"),
        (signal.SIGTERM, True, 143, "error: told to end"),
        (signal.SIGTERM, False, 143, "error: told to end"),
        (signal.SIGKILL, False, -signal.SIGKILL, ""),
    ],
    ids=["Ctrl-C", "SIGINT to the first process", "SIGTERM to all", "SIGTERM to the first process", "SIGKILL to the first"],
)
def test_an_interrupted_build_ends_at_once_with_all_its_processes(
    material: Path, built: Built, tmp_path: Path, number: signal.Signals, group: bool, code: int, line: str
) -> None:
    build = start(material, tmp_path, early=_STUCK)
    workers = min(2, len(os.sched_getaffinity(0)))
    eventually(lambda: len(list(tmp_path.glob("dist/oci/blobs/sha256/.layer-*"))) >= workers, "a layer begun by each worker")
    started = time.monotonic()
    os.killpg(build.pid, number) if group else os.kill(build.pid, number)
    assert build.wait() == code
    assert build.gone()
    # What the workers are at would take ten minutes more.
    assert time.monotonic() - started < 500
    said = build.output()
    assert [one for one in said.splitlines() if "rror" in one or "Traceback" in one] == ([line] if line else []), said
    if line:
        assert not list(tmp_path.glob("dist/oci/blobs/sha256/.*"))
    _check(tmp_path, tmp_path / "copied")
    assert _good(material, tmp_path) == built.digest


def _refused(build: Run, why: str) -> None:
    code = build.wait()
    assert build.gone()
    said = build.output()
    assert code == 10, said
    (line,) = [one for one in said.splitlines() if "rror" in one or "Traceback" in one]
    assert line.startswith("error: ")
    assert why in line
    assert "/dist" in line
    assert "free some" in line or "limit" in line


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A dist of so many bytes; called again, of so many others."""
    mounted: list[Path] = []

    def size(count: int) -> Path:
        dist = tmp_path / "dist"
        dist.mkdir(exist_ok=True)
        option = f"size={count}" + (",remount" if mounted else "")
        run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", dist], error=BuildError)
        mounted.append(dist)
        return dist

    yield size
    if mounted:
        run(["umount", mounted[0]], error=BuildError)


@pytest.mark.host
def test_a_disk_that_is_full_at_any_write_is_one_line_and_the_next_build_goes_on(
    material: Path, built: Built, tmp_path: Path, small_disk: Callable[[int], Path]
) -> None:
    page = 4096
    dist = small_disk(64 << 20)
    assert _good(material, tmp_path) == built.digest
    full = os.statvfs(dist)
    used = (full.f_blocks - full.f_bfree) * page
    # From the first folder to the receipt; the small files at the end are a page or two each.
    sizes = [page * pages for pages in (1, 9, 20, 40)] + [used // 3, used - 80 * page, used - 40 * page]
    sizes += [used - page * pages for pages in (14, 6, 4, 2)]
    for size in sizes:
        for found in dist.iterdir():
            shutil.rmtree(found) if found.is_dir() else found.unlink()
        small_disk(size)
        _refused(start(material, tmp_path), "No space left on device")
        _check(tmp_path, tmp_path / "copied" / str(size))
        small_disk(64 << 20)
        assert _good(material, tmp_path) == built.digest


@pytest.mark.host
@pytest.mark.parametrize("limit", [1_000, 3_000, 40_000, 5_000_000])
def test_a_limit_on_the_size_of_files_is_one_line(material: Path, built: Built, tmp_path: Path, limit: int) -> None:
    build = start(material, tmp_path, prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    _refused(build, "File too large")
    _check(tmp_path, tmp_path / "copied")
    assert _good(material, tmp_path) == built.digest


def _held(lock: Path) -> bool:
    if not lock.exists():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.host
def test_a_second_build_waits_says_so_and_comes_to_the_same(material: Path, built: Built, tmp_path: Path) -> None:
    first = start(material, tmp_path)
    eventually(lambda: _held(tmp_path / "dist" / ".lock"), "a build that holds its lock")
    second = start(material, tmp_path)
    assert (first.wait(), second.wait()) == (0, 0)
    assert f"another build is running in {tmp_path}/dist; waiting for it" in second.output()
    assert _good(material, tmp_path) == built.digest


@pytest.mark.host
def test_builds_into_two_folders_share_a_cache_and_no_more(material: Path, built: Built, tmp_path: Path) -> None:
    builds = [start(material, tmp_path / name) for name in ("one", "two")]
    assert [build.wait() for build in builds] == [0, 0]
    for build in builds:
        assert "another build" not in build.output()
    assert {_good(material, tmp_path / name) for name in ("one", "two")} == {built.digest}


@pytest.mark.host
def test_what_a_running_push_reads_is_not_swept(material: Path, built: Built, tmp_path: Path) -> None:
    shutil.copytree(built.before, tmp_path / "dist")
    layout = Layout(tmp_path / "dist" / "oci")
    with layout.reading():
        old = layout.referenced()
        assert _refers_whole(layout, old)
        build = start(material, tmp_path)
        assert build.wait() == 0
        assert "another process reads the layout" in build.output()
        assert not old <= layout.referenced()
        assert _refers_whole(layout, old)
    assert _good(material, tmp_path) == built.digest
    assert not _refers_whole(layout, old)


def _refers_whole(layout: Layout, digests: set[str]) -> bool:
    return all(layout.blob(digest).exists() for digest in digests)


@pytest.fixture
def layout(own_folders: Path) -> Layout:
    made = Layout(own_folders / "dist" / "oci")
    made.create()
    return made


def _fill(writer: LayerWriter) -> dict[str, tuple[str, str]]:
    writer.file("a", 1, [b"a"])
    writer.end()
    return {}


def test_bytes_are_on_disk_before_their_name_and_names_before_the_index(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut cannot be had here: what is checked is the order in which the kernel is asked."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def sync(fd: int) -> None:
        calls.append(f"fsync {Path(f'/proc/self/fd/{fd}').readlink().relative_to(layout.root.parent)}")
        fsync(fd)

    def rename(source: str | Path, target: str | Path) -> None:
        calls.append(f"rename {Path(source).relative_to(layout.root.parent)} {Path(target).relative_to(layout.root.parent)}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    made = layer.make(layout, LayerPlan("one", "k" * 64), _fill)
    image = config.base_image(layout, made, "3.11.2", "2026-01-02")
    layout.publish(image, "pinwheel-base", "3.11.2")
    named = [call.split() for call in calls]
    renames = [(number, call[1], call[2]) for number, call in enumerate(named) if call[0] == "rename"]
    assert [target for _, _, target in renames][-1] == "oci/index.json"
    assert len(renames) == 5  # layer, note, configuration, manifest, index
    for number, source, _ in renames:
        assert ["fsync", source] in named[:number], f"{source} gets its name before it is on disk"
    last = renames[-1][0]
    blobs = max(number for number, _, target in renames if "/blobs/" in target)
    assert ["fsync", "oci/blobs/sha256"] in named[blobs:last]
    assert named[-1] == ["fsync", "oci"]


def test_an_image_that_lacks_a_blob_is_unlisted_by_the_next_build(layout: Layout) -> None:
    made = layer.make(layout, LayerPlan("one", "k" * 64), _fill)
    layout.publish(config.base_image(layout, made, "3.11.2", "2026-01-02"), "pinwheel-base", "3.11.2")
    layout.create()
    assert len(layout.manifests()) == 1
    layout.blob(made.digest).unlink()
    layout.create()
    assert layout.manifests() == []


def test_readers_share_and_a_sweep_waits_for_none_of_them(layout: Layout) -> None:
    with layout.sweeping() as alone:
        assert alone
    with layout.reading(), layout.reading():
        with layout.sweeping() as alone:
            assert not alone
        layer.sweep(layout)
    with layout.sweeping() as alone:
        assert alone


def test_a_disk_that_does_not_take_the_bytes_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files.write_whole(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(tmp_path / "a", "new")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_base_whose_making_was_killed_is_cleared_away(own_folders: Path) -> None:
    lock = lockfile.read_base()
    home = own_folders / "cache" / "rootfs"
    made = home / rootfs.key(lock)
    for file in (home / ".new-abc" / "new" / "base.tar", made / "tree" / "etc" / "passwd", made / "base.tar"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    (made / "base.tar.digest").write_text("sha256:" + "0" * 64)
    rootfs.made(lock)
    assert not (home / ".new-abc").exists()
    assert made.exists()
