"""Reading parts of a file on a server, against a real one."""

from __future__ import annotations

import io
import random
import re
import zipfile
from collections.abc import Iterator

import pytest
import requests

from common.errors import LockError, MissingEnvironmentError
from lockfiles.python import remote
from lockfiles.python.remote import NoRangesError, RemoteFile
from tests.lockfiles.small_index import Index, serving, wheel

pytestmark = pytest.mark.slow

BIG = 3_000_000


@pytest.fixture
def index() -> Iterator[Index]:
    with serving() as one:
        yield one


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as one:
        yield one


def archive(*members: tuple[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members:
            out.writestr(name, data)
    return held.getvalue()


def noise(count: int) -> bytes:
    return random.Random(7).randbytes(count)


def test_any_reads_give_what_a_local_file_gives(index: Index, session: requests.Session) -> None:
    data = noise(400_000)
    index.files["x.bin"] = data
    local, dice = io.BytesIO(data), random.Random(3)
    with RemoteFile(session, index.url("x.bin")) as there:
        assert there.size == len(data)
        for _ in range(200):
            at, count = dice.randrange(len(data) + 50), dice.choice([0, 1, 30, 5_000, 70_000, 300_000])
            assert there.seek(at) == local.seek(at)
            assert there.read(count) == local.read(count)
            assert there.tell() == local.tell()
        assert there.seek(-10, io.SEEK_END) == len(data) - 10
        assert there.seek(4, io.SEEK_CUR) == len(data) - 6
        assert there.read() == data[-6:]
        with pytest.raises(OSError, match="Invalid argument"):
            there.seek(-1)


@pytest.mark.parametrize("count", [1, 5, (1 << 16) - 1, 1 << 16, (1 << 16) + 1])
def test_files_around_the_block_size_are_read_whole(count: int, index: Index, session: requests.Session) -> None:
    index.files["x.bin"] = noise(count)
    with RemoteFile(session, index.url("x.bin")) as there:
        there.seek(0)
        assert there.read() == noise(count)


def test_a_wheels_metadata_costs_a_fraction_of_the_wheel(index: Index, session: requests.Session) -> None:
    info = b"Metadata-Version: 2.1\nName: one\nVersion: 1\n"
    index.files["one.whl"] = archive(("one-1.dist-info/METADATA", info), ("one/big", noise(BIG)), ("one/last", b"x"))
    assert remote.read_member(session, index.url("one.whl"), ".dist-info/METADATA") == info
    spans = [span for _, span in index.asked]
    assert len(spans) == 2
    assert spans[0] == "bytes=-65536"
    first, last = re.findall(r"\d+", spans[1])
    assert int(last) - int(first) < 1 << 16


def test_positions_are_those_of_the_file_and_not_of_its_compressed_form(index: Index, session: requests.Session) -> None:
    index.compresses = True
    index.files["one.whl"] = wheel("one", "1")
    assert b"Name: one" in remote.read_member(session, index.url("one.whl"), ".dist-info/METADATA")


def test_the_metadata_of_a_carried_package_is_not_taken(index: Index, session: requests.Session) -> None:
    index.files["a.whl"] = archive(
        ("a/_vendor/b-1.dist-info/METADATA", b"Name: b\n"),
        ("a-1.dist-info/METADATA", b"Name: a\n"),
    )
    assert remote.read_member(session, index.url("a.whl"), ".dist-info/METADATA") == b"Name: a\n"
    assert remote.read_member(session, index.url("a.whl"), lambda name: "b-1" in name) == b"Name: b\n"


def test_a_passing_failure_of_the_server_is_overcome(index: Index, session: requests.Session) -> None:
    index.files["one.whl"] = wheel("one", "1")
    index.wrong["one.whl"] = [503, 502]
    assert b"Name: one" in remote.read_member(session, index.url("one.whl"), ".dist-info/METADATA")


def test_a_lasting_failure_is_told_without_the_address(index: Index, session: requests.Session) -> None:
    index.wrong["one.whl"] = [503] * 3
    with pytest.raises(MissingEnvironmentError, match=r"^one.whl cannot be read from your index: the server answers 503"):
        RemoteFile(session, index.url("one.whl") + "?token=secret")
    with pytest.raises(MissingEnvironmentError, match="the server answers 404") as refused:
        RemoteFile(session, index.url("two.whl") + "?token=secret")
    assert "secret" not in refused.value.line()


def test_a_server_that_is_gone_is_told_without_the_address(session: requests.Session) -> None:
    with serving() as index:
        address = index.url("one.whl")
    with pytest.raises(
        MissingEnvironmentError, match=r"one.whl cannot be read from your index: ConnectionError: check"
    ) as told:
        RemoteFile(session, address)
    assert "127.0.0.1" not in told.value.line()


def test_a_server_without_ranges_is_named_as_the_cause_and_nothing_is_downloaded(
    index: Index, session: requests.Session
) -> None:
    index.files["one.whl"] = wheel("one", "1")
    index.ranges = False
    with pytest.raises(NoRangesError, match=r"your index does not serve parts of files .* \(one.whl\)"):
        remote.read_member(session, index.url("one.whl"), ".dist-info/METADATA")
    assert len(index.asked) == 1


def test_a_file_that_changes_under_the_reader_is_refused(index: Index, session: requests.Session) -> None:
    index.files["x.bin"] = noise(BIG)
    with RemoteFile(session, index.url("x.bin")) as there:
        index.files["x.bin"] = noise(BIG + 1)
        with pytest.raises(MissingEnvironmentError, match=r"x.bin changed while it was read"):
            there.read(10)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "does not serve parts"),
        (b"PK", "one.whl is no sound zip file: File is not a zip file"),
        (noise(200_000), "no sound zip file"),
        (archive(("one/x", b"")), "one.whl holds .dist-info/METADATA 0 times"),
        (archive(("a.dist-info/METADATA", b""), ("b.dist-info/METADATA", b"")), "holds .dist-info/METADATA 2 times"),
        (archive(("a.dist-info/METADATA", bytes(17 << 20))), "a.dist-info/METADATA unpacks to 17825792 bytes"),
        (archive(("a.dist-info/METADATA", noise(500))).replace(noise(500)[:99], noise(99)[::-1]), "no sound zip file"),
    ],
    ids=["empty", "two_bytes", "noise", "no_metadata", "two_metadata", "bomb", "damaged"],
)
def test_what_is_no_good_wheel_is_refused(data: bytes, said: str, index: Index, session: requests.Session) -> None:
    index.files["one.whl"] = data
    with pytest.raises((LockError, MissingEnvironmentError), match=re.escape(said)):
        remote.read_member(session, index.url("one.whl"), ".dist-info/METADATA")
