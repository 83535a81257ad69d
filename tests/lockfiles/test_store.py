"""The store and the index, against servers that misbehave and processes that are killed."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from common import console, paths
from common.errors import BuildError, LockError, MissingEnvironmentError
from common.run import run
from lockfiles import store
from lockfiles.model import Artifact
from lockfiles.python import index
from lockfiles.store.part import PREFIX
from tests.lockfiles.conftest import artifact, fill
from tests.waiting import LIMIT_S, eventually

pytestmark = pytest.mark.slow

DATA = os.urandom(300_000)
HALF = len(DATA) // 2
WHEEL = artifact("one-1.0-py3-none-any.whl", DATA)

Serve = Callable[[BaseHTTPRequestHandler], None]


class Index(BaseHTTPRequestHandler):
    """A package index of one project; `serve` decides what a file's address gives."""

    serve: Serve
    asked: list[str]
    ranges: list[str]
    conditions: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/simple/one/":
            page = f'<a href="/files/{WHEEL.file}">{WHEEL.file}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
        elif self.path.startswith("/files/"):
            self.ranges.append(self.headers.get("Range", ""))
            self.conditions.append(self.headers.get("If-Range", ""))
            with suppress(ConnectionError):  # killed, or stopped
                type(self).serve(self)
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


def answer(data: bytes, headers: dict[str, str] | None = None, *, claimed: int | None = None, code: int = 200) -> Serve:
    """The same answer to everything asked."""

    def serve(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.send_header("Content-Length", str(len(data) if claimed is None else claimed))
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data)

    return serve


def ranged(data: bytes, etag: str = "") -> Serve:
    """A server that knows ranges, and If-Range (RFC 9110, section 13.1.5)."""

    def serve(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        named = {"ETag": etag} if etag else {}
        if not asked or request.headers.get("If-Range", etag) != etag:
            answer(data, named)(request)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(data):
            answer(b"", {"Content-Range": f"bytes */{len(data)}"}, code=416)(request)
            return
        answer(data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}", **named}, code=206)(request)

    return serve


def in_turn(*serves: Serve) -> Serve:
    """A different answer each time."""
    rest = iter(serves)

    def serve(request: BaseHTTPRequestHandler) -> None:
        next(rest)(request)

    return serve


def stalling(data: bytes, go_on: threading.Event, headers: dict[str, str] | None = None) -> Serve:
    """Half of the file, and then nothing until `go_on`."""

    def serve(request: BaseHTTPRequestHandler) -> None:
        answer(data[: len(data) // 2], headers, claimed=len(data))(request)
        request.wfile.flush()
        go_on.wait(LIMIT_S)

    return serve


@pytest.fixture
def server(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Index]]:
    class Own(Index):
        asked: list[str] = []  # noqa: RUF012
        ranges: list[str] = []  # noqa: RUF012
        conditions: list[str] = []  # noqa: RUF012
        serve = staticmethod(answer(DATA))

    http = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{http.server_port}/simple/")
    yield Own
    http.shutdown()
    http.server_close()


def fetch(*wanted: Artifact) -> None:
    with index.session() as http:
        store.download(wanted, index.Locator(http), http)


def part_of(wanted: Artifact) -> Path:
    return store.path(wanted).with_name(PREFIX + wanted.sha256)


def begun(wanted: Artifact, data: bytes, etag: str = "") -> None:
    """What a process leaves that is killed in mid-download."""
    part_of(wanted).parent.mkdir(parents=True, exist_ok=True)
    part_of(wanted).write_bytes(data)
    if etag:
        part_of(wanted).with_name(part_of(wanted).name + ".etag").write_text(etag)


def left_of(wanted: Artifact) -> list[str]:
    folder = store.path(wanted).parent
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


class Recorder(console.Bar):
    """A bar that remembers."""

    seen: list[int]
    total: int

    def __init__(self, text: str, total: int) -> None:
        super().__init__(text, total)
        type(self).seen, type(self).total = [0], total

    def advance(self, count: int) -> None:
        self.seen.append(self.seen[-1] + count)
        super().advance(count)


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setattr(console, "Bar", Recorder)
    return Recorder


PROGRAM = """
import sys
from lockfiles import store
from lockfiles.model import Artifact
from lockfiles.python import index
wanted = Artifact(sys.argv[1], int(sys.argv[2]), sys.argv[3])
with index.session() as http:
    store.download([wanted], index.Locator(http), http)
print("done", flush=True)
sys.stdin.read()
"""


Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def another_process() -> Iterator[Start]:
    """Starts processes of their own that fetch the wheel and then wait for the end of their standard input."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", PROGRAM, WHEEL.file, str(WHEEL.size), WHEEL.sha256]
        started.append(subprocess.Popen(argv, cwd=paths.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str], *, kill: bool = False) -> int:
    if kill:
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=LIMIT_S)
    return process.returncode


WAITING = "another process is fetching one-1.0-py3-none-any.whl; waiting for it"


def until(process: subprocess.Popen[str], text: str) -> None:
    """Read what a process says until it says that."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"it ended without saying {text!r}")


def is_begun(wanted: Artifact = WHEEL) -> bool:
    return part_of(wanted).exists() and part_of(wanted).stat().st_size > 0


def test_a_fetched_file_is_verified_and_fetched_once(server: type[Index]) -> None:
    fetch(WHEEL)
    assert store.verified(WHEEL).read_bytes() == DATA
    assert left_of(WHEEL) == [WHEEL.sha256]
    assert store.path(WHEEL).stat().st_mode & 0o777 == 0o444
    asked = len(server.asked)
    fetch(WHEEL)
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("serve", "message"),
    [
        (answer(DATA[:-1] + bytes([DATA[-1] ^ 1])), "the bytes are sha256 .*, the lock says"),
        (answer(DATA + b"x"), "more bytes than the lock's 300000"),
    ],
    ids=["altered", "longer"],
)
def test_altered_bytes_are_refused_and_nothing_is_kept(server: type[Index], serve: Serve, message: str) -> None:
    server.serve = staticmethod(serve)
    with pytest.raises(LockError, match=message):
        fetch(WHEEL)
    assert server.ranges == [""]
    assert left_of(WHEEL) == []


@pytest.mark.parametrize(
    ("serve", "message", "tries"),
    [
        (answer(DATA[:1000]), "cannot be fetched: ConnectionError 1000 of 300000 bytes", 3),
        (answer(DATA[:1000], claimed=len(DATA)), "cannot be fetched: ", 3),
        (answer(b"", code=503), "cannot be fetched: the server answers 503", 3),
        (answer(b"", code=404), "cannot be fetched: the server answers 404", 1),
    ],
    ids=["short", "cut", "unavailable", "gone"],
)
def test_a_failing_server_is_asked_again_and_then_named(server: type[Index], serve: Serve, message: str, tries: int) -> None:
    server.serve = staticmethod(serve)
    with pytest.raises(MissingEnvironmentError, match=message) as refused:
        fetch(WHEEL)
    assert len(server.ranges) == tries
    assert "127.0.0.1" not in refused.value.line()  # an address may carry credentials
    assert not store.has(WHEEL)


def test_a_connection_cut_once_goes_on_where_it_was_cut(server: type[Index], bar: type[Recorder]) -> None:
    server.serve = staticmethod(in_turn(answer(DATA[:1000], claimed=len(DATA)), ranged(DATA)))
    fetch(WHEEL)
    assert store.verified(WHEEL).read_bytes() == DATA
    assert server.ranges == ["", "bytes=1000-"]
    assert bar.seen[-1] == bar.total == len(DATA)


def test_a_big_file_over_a_line_that_is_cut_all_the_time_arrives(server: type[Index]) -> None:
    """Many more cuts than tries: a cut after a good piece does not count."""
    data = os.urandom(7_000_000)
    big = artifact(WHEEL.file, data)

    def serve(request: BaseHTTPRequestHandler) -> None:
        start = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        said = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        piece_of = data[start : start + 1_200_000]
        answer(piece_of, said, claimed=len(data) - start, code=206 if start else 200)(request)

    server.serve = staticmethod(serve)
    fetch(big)
    assert store.verified(big).read_bytes() == data
    assert len(server.ranges) == 6


@pytest.mark.parametrize(("etag", "condition"), [("", ""), ('"v1"', '"v1"'), ('W/"v1"', "")], ids=["none", "strong", "weak"])
def test_a_download_killed_in_the_middle_is_resumed_with_the_rest_alone(
    server: type[Index], bar: type[Recorder], another_process: Start, etag: str, condition: str
) -> None:
    go_on = threading.Event()
    server.serve = staticmethod(stalling(DATA, go_on, {"ETag": etag} if etag else {}))
    process = another_process()
    eventually(is_begun)
    assert end(process, kill=True) == -signal.SIGKILL
    go_on.set()
    assert not store.has(WHEEL)
    size = part_of(WHEEL).stat().st_size
    server.serve = staticmethod(ranged(DATA, etag))
    fetch(WHEEL)
    assert server.ranges == ["", f"bytes={size}-"]
    assert server.conditions == ["", condition]
    assert store.verified(WHEEL).read_bytes() == DATA
    assert left_of(WHEEL) == [WHEEL.sha256]
    # What was there counts at once, and the rest as it comes.
    assert bar.seen[1] == size
    assert bar.seen[-1] == bar.total == len(DATA)


def test_a_process_killed_before_the_last_step_asks_for_nothing(server: type[Index]) -> None:
    begun(WHEEL, DATA)
    fetch(WHEEL)
    assert server.asked == []
    assert store.verified(WHEEL).read_bytes() == DATA


OTHER = bytes(HALF)


@pytest.mark.parametrize(
    ("part", "etag", "serve", "ranges"),
    [
        (DATA[:HALF], "", answer(DATA), [f"bytes={HALF}-"]),
        (OTHER, '"old"', ranged(DATA, '"new"'), [f"bytes={HALF}-"]),
        (DATA[:HALF], "", in_turn(answer(b"", code=416), answer(DATA)), [f"bytes={HALF}-", ""]),
        (
            DATA[:HALF],
            "",
            in_turn(answer(DATA[HALF:], {"Content-Range": "bytes 7-9/300000"}, code=206), answer(DATA)),
            [f"bytes={HALF}-", ""],
        ),
        (
            DATA[:HALF],
            "",
            in_turn(answer(b"abc", {"Content-Range": f"bytes {HALF}-{HALF + 2}/{HALF + 3}"}, code=206), answer(DATA)),
            [f"bytes={HALF}-", ""],
        ),
        (OTHER, "", ranged(DATA), [f"bytes={HALF}-", ""]),
        (bytes(len(DATA)), "", ranged(DATA), [""]),
        (DATA + b"more", "", ranged(DATA), [""]),
    ],
    ids=[
        "ranges-ignored",
        "file-changed",
        "416",
        "another-range",
        "another-file",
        "part-of-another",
        "whole-other",
        "too-long",
    ],
)
def test_a_resume_that_does_not_fit_starts_over(
    server: type[Index], bar: type[Recorder], part: bytes, etag: str, serve: Serve, ranges: list[str]
) -> None:
    begun(WHEEL, part, etag)
    server.serve = staticmethod(serve)
    fetch(WHEEL)
    assert store.verified(WHEEL).read_bytes() == DATA
    assert left_of(WHEEL) == [WHEEL.sha256]
    assert server.ranges == ranges
    assert bar.seen[-1] == bar.total == len(DATA)


def test_wrong_bytes_after_a_resume_are_fetched_whole_once_and_then_refused(server: type[Index]) -> None:
    begun(WHEEL, DATA[:HALF])
    server.serve = staticmethod(ranged(DATA[:-1] + b"?"))
    with pytest.raises(LockError, match=r"the bytes are sha256 \w+, the lock says"):
        fetch(WHEEL)
    assert server.ranges == [f"bytes={HALF}-", ""]
    assert left_of(WHEEL) == []


def test_a_server_that_likes_to_compress_is_told_not_to(server: type[Index]) -> None:
    def serve(request: BaseHTTPRequestHandler) -> None:
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            answer(gzip.compress(DATA), {"Content-Encoding": "gzip"})(request)
        else:
            answer(DATA)(request)

    server.serve = staticmethod(serve)
    fetch(WHEEL)
    assert store.verified(WHEEL).read_bytes() == DATA


def test_a_source_that_the_server_calls_an_encoding_is_kept_as_it_is(server: type[Index]) -> None:
    data = gzip.compress(os.urandom(1000))
    wanted = artifact(WHEEL.file, data)
    server.serve = staticmethod(answer(data, {"Content-Encoding": "gzip"}))
    fetch(wanted)
    assert store.verified(wanted).read_bytes() == data


def test_two_processes_fetch_a_file_once(server: type[Index], another_process: Start) -> None:
    go_on = threading.Event()

    def slow(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(DATA)))
        request.end_headers()
        request.wfile.write(DATA[:HALF])
        request.wfile.flush()
        go_on.wait(LIMIT_S)
        request.wfile.write(DATA[HALF:])

    server.serve = staticmethod(slow)
    first = another_process()
    eventually(is_begun)
    second = another_process()
    until(second, WAITING)
    go_on.set()
    assert [end(first), end(second)] == [0, 0]
    assert server.ranges == [""]
    assert left_of(WHEEL) == [WHEEL.sha256]


def test_a_process_that_waits_takes_over_from_one_that_is_killed(server: type[Index], another_process: Start) -> None:
    go_on = threading.Event()
    server.serve = staticmethod(in_turn(stalling(DATA, go_on), ranged(DATA)))
    first = another_process()
    eventually(is_begun)
    second = another_process()
    until(second, WAITING)
    assert server.ranges == [""]
    end(first, kill=True)
    go_on.set()
    assert end(second) == 0
    assert re.fullmatch(r"bytes=[1-9]\d+-", server.ranges[1])
    assert len(server.ranges) == 2
    assert store.verified(WHEEL).read_bytes() == DATA


def test_the_first_failure_stops_the_others_and_keeps_what_they_have(server: type[Index]) -> None:
    other = artifact("one-2.0-py3-none-any.whl")  # the index does not have it
    over = threading.Event()

    def serve(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(DATA)))
        request.end_headers()
        # The end never comes: who is not stopped by the failure waits for it in vain.
        for start in range(0, len(DATA) - 1000, 1000):
            request.wfile.write(DATA[start : start + 1000])
            time.sleep(0.05)
        over.wait(LIMIT_S)

    server.serve = staticmethod(serve)
    with pytest.raises(LockError, match="one-2.0-py3-none-any.whl is not on your index any more"):
        fetch(WHEEL, other)
    over.set()
    assert not store.has(WHEEL)


def test_a_file_gone_from_the_index_is_named(server: type[Index]) -> None:
    with pytest.raises(LockError, match="one-2.0-py3-none-any.whl is not on your index any more"):
        fetch(artifact("one-2.0-py3-none-any.whl"))


def test_a_project_gone_from_the_index_is_named(server: type[Index]) -> None:
    with pytest.raises(LockError, match="your index has no project other"):
        fetch(artifact("other-2.0-py3-none-any.whl"))


def test_an_index_that_is_down_is_named_without_its_address(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://user:secret@127.0.0.1:1/simple/")
    with pytest.raises(MissingEnvironmentError, match="your index does not answer for one") as refused:
        fetch(WHEEL)
    assert "secret" not in refused.value.line()


def test_bytes_altered_in_the_store_are_refused_and_removed(own_folders: Path) -> None:
    fill(WHEEL, DATA[:-1] + b"?")
    with pytest.raises(LockError, match=r"the store's bytes are sha256 \w+, the lock says"):
        store.verified(WHEEL)
    assert not store.has(WHEEL)


def test_a_truncated_file_in_the_store_does_not_count_as_there(own_folders: Path) -> None:
    fill(WHEEL, DATA[:10])
    assert not store.has(WHEEL)


def test_a_full_disk_is_one_line_and_leaves_nothing(own_folders: Path) -> None:
    with pytest.raises(MissingEnvironmentError, match="no space left for the store"), store.adding(WHEEL) as out:
        out.write(DATA[:10])
        raise OSError(errno.ENOSPC, "No space left on device")
    assert left_of(WHEEL) == []


@pytest.mark.host
def test_a_disk_that_fills_up_is_one_line_and_gets_its_room_back(server: type[Index]) -> None:
    data = os.urandom(3_000_000)
    big = artifact(WHEEL.file, data)
    server.serve = staticmethod(answer(data))
    paths.cache().mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", paths.cache()], error=BuildError)
    try:
        with pytest.raises(MissingEnvironmentError, match=r"no space left for the store .*free some, or set PINWHEEL_CACHE"):
            fetch(big)
        assert left_of(big) == []
        server.serve = staticmethod(answer(DATA))
        fetch(WHEEL)
    finally:
        # Lazily: this process says there that it uses the store.
        run(["umount", "-l", paths.cache()], error=BuildError)


def test_a_file_that_cannot_be_read_is_named(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(WHEEL, DATA)

    def refuse(_: object, __: str) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(hashlib, "file_digest", refuse)
    with pytest.raises(
        MissingEnvironmentError, match="one-1.0-py3-none-any.whl cannot be read from the store: Input/output error"
    ):
        store.verified(WHEEL)


def test_two_writers_of_one_file_both_succeed(own_folders: Path) -> None:
    problems: list[BaseException] = []

    def write() -> None:
        try:
            with store.adding(WHEEL) as out:
                for start in range(0, len(DATA), 1000):
                    out.write(DATA[start : start + 1000])
        except BaseException as problem:  # noqa: BLE001 - told below
            problems.append(problem)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert problems == []
    assert hashlib.sha256(store.verified(WHEEL).read_bytes()).hexdigest() == WHEEL.sha256
    assert left_of(WHEEL) == [WHEEL.sha256]


ONE, TWO, THREE = (artifact(name) for name in ("one", "two", "three"))


def _hold(*held: Artifact) -> None:
    for one in held:
        with store.adding(one) as out:
            out.write(one.file.encode())


def test_verify_counts_what_it_hashed(own_folders: Path, bar: type[Recorder]) -> None:
    _hold(ONE, TWO, THREE)
    assert store.verify([ONE, TWO, THREE, ONE]) == (3, 11)
    assert bar.seen[-1] == bar.total == 11


def test_verify_names_the_altered_and_removes_them_all(own_folders: Path) -> None:
    _hold(ONE)
    fill(TWO, b"two?"[:3].upper())
    fill(THREE, b"THREE")
    with pytest.raises(
        LockError, match=r"three: the store's bytes are sha256 \w+, the lock says \w+; and 1 more files .*again"
    ):
        store.verify([ONE, TWO, THREE])
    assert [store.has(one) for one in (ONE, TWO, THREE)] == [True, False, False]


def test_verify_names_what_is_not_there(own_folders: Path) -> None:
    _hold(ONE)
    with pytest.raises(LockError, match="two is not in the store .*run `invoke fetch`"):
        store.verify([ONE, TWO])


def test_prune_keeps_what_is_named_and_removes_the_rest(own_folders: Path) -> None:
    _hold(ONE, TWO, THREE)
    begun(WHEEL, DATA[:HALF], '"etag"')
    (store.path(ONE).parent / ".part-k3j4h5").write_bytes(b"left by an earlier version")
    (store.path(ONE).parent / "notes.txt").write_text("not ours")
    assert store.prune({ONE.sha256}) == (4, 3 + 5 + HALF + 26)
    assert [store.has(one) for one in (ONE, TWO, THREE)] == [True, False, False]
    assert left_of(WHEEL) == []
    assert left_of(ONE) == [ONE.sha256, "notes.txt"]
    assert store.prune({ONE.sha256}) == (0, 0)


def test_prune_leaves_the_beginning_of_a_file_that_is_named(own_folders: Path) -> None:
    begun(WHEEL, DATA[:HALF], '"etag"')
    assert store.prune({WHEEL.sha256}) == (0, 0)
    assert len(left_of(WHEEL)) == 2
    assert store.prune(set()) == (1, HALF)
    assert left_of(WHEEL) == []


def test_prune_leaves_what_a_living_process_is_fetching(server: type[Index], another_process: Start) -> None:
    go_on = threading.Event()
    server.serve = staticmethod(stalling(DATA, go_on))
    process = another_process()
    eventually(is_begun)
    assert store.prune(set()) == (0, 0)
    assert is_begun()
    end(process, kill=True)
    go_on.set()
    size = part_of(WHEEL).stat().st_size
    assert store.prune(set()) == (1, size)
    assert left_of(WHEEL) == []


@pytest.mark.parametrize("there_before", [False, True], ids=["fetched", "found"])
def test_prune_leaves_what_a_living_process_has_fetched_or_found(
    server: type[Index], another_process: Start, there_before: bool
) -> None:
    _hold(ONE)
    if there_before:
        with store.adding(WHEEL) as out:
            out.write(DATA)
    process = another_process()
    until(process, "done")
    assert store.prune(set()) == (1, 3)
    assert store.has(WHEEL)
    end(process, kill=True)
    assert store.prune(set()) == (1, len(DATA))
    assert not [file for file in (paths.cache() / "store").iterdir() if file.name.startswith(".user-")][1:]


def test_prune_of_no_store_removes_nothing(own_folders: Path) -> None:
    assert store.prune(set()) == (0, 0)


def test_the_index_comes_from_the_users_pip_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://proxy.example.com/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert index.url() == "https://proxy.example.com/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://other.example.com/simple")
    assert index.url() == "https://other.example.com/simple"


def test_offline_what_is_missing_is_named_and_nobody_is_asked(server: type[Index], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    expected = (
        rf"one 1.0 is not in the store, and this run is offline \({WHEEL.file}, sha256 {WHEEL.sha256}\): run `invoke fetch`"
    )
    with pytest.raises(MissingEnvironmentError, match=expected):
        fetch(WHEEL)
    with pytest.raises(MissingEnvironmentError, match="needs the network, and this run is offline"):
        index.url()
    address = os.environ["UV_DEFAULT_INDEX"]
    with index.session() as http, pytest.raises(MissingEnvironmentError, match="a download needs the network"):
        http.get(address + "one/")
    assert server.asked == []


def test_offline_what_is_in_the_store_is_there(server: type[Index], monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(WHEEL)
    asked = len(server.asked)
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    fetch(WHEEL)
    assert store.verify([WHEEL]) == (1, len(DATA))
    assert len(server.asked) == asked
