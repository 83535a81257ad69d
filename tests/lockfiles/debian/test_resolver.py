"""Debian packages, with the machine's real apt against a small mirror of the test's own."""

from __future__ import annotations

import base64
import functools
import itertools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from common.apt import KEYRING, Mirror
from common.errors import BuildError, LockError, MissingEnvironmentError, UsageError
from common.files import sha256_file
from common.run import Result, run
from lockfiles import inputs, store
from lockfiles.debian import apt, resolver
from lockfiles.debian.suites import Suite
from lockfiles.inputs import BaseInput
from lockfiles.model import Deb
from lockfiles.store import archive
from lockfiles.store import mirror as air_gap
from tests.lockfiles.conftest import artifact


class Quiet(SimpleHTTPRequestHandler):
    login = ""

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.login and self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="mirror"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


class SmallMirror:
    """A Debian mirror of a few made-up packages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stanzas: dict[str, str] = {}
        self.address = ""

    def deb(self, name: str, version: str, *fields: str) -> Path:
        """Build a real .deb and list it in place of the package's older one."""
        tree = self.root.parent / "trees" / f"{name}-{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        control = [f"Package: {name}", f"Version: {version}", "Architecture: amd64", "Maintainer: a <a@example.com>", *fields]
        (tree / "DEBIAN/control").write_text("\n".join([*control, "Description: made for a test", ""]))
        pool = self.root / "pool/main" / name[0] / name
        pool.mkdir(parents=True, exist_ok=True)
        file = pool / f"{name}_{version.rpartition(':')[2]}_amd64.deb"
        run(["dpkg-deb", "--root-owner-group", "--build", tree, file], error=BuildError)
        listed = "\n".join(control)
        digest = sha256_file(file).removeprefix("sha256:")
        where = f"Filename: {file.relative_to(self.root)}\nSize: {file.stat().st_size}\nSHA256: {digest}"
        self.stanzas[name] = f"{listed}\n{where}\nDescription: made for a test\n"
        self.publish()
        return file

    def publish(self) -> None:
        """Write the package list and the (unsigned) Release file."""
        suite = self.root / "dists/bookworm"
        lists = suite / "main/binary-amd64/Packages"
        lists.parent.mkdir(parents=True, exist_ok=True)
        lists.write_text("\n".join(self.stanzas.values()))
        entry = f" {sha256_file(lists).removeprefix('sha256:')} {lists.stat().st_size} main/binary-amd64/Packages\n"
        (suite / "Release").write_text(
            "Origin: Debian\nSuite: bookworm\nCodename: bookworm\nComponents: main\nArchitectures: amd64\n"
            f"Date: Sat, 10 Jun 2023 00:00:00 UTC\nSHA256:\n{entry}"
        )


@pytest.fixture
def mirror(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallMirror]:
    root = own_folders / "mirror"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(apt, "debian_mirrors", lambda: (Mirror("bookworm", address),))
    made = SmallMirror(root)
    made.address = address
    made.deb("base", "1.0", "Essential: yes")
    made.deb("library", "2:2.0+b1~x")
    made.deb("tool", "1.5", "Depends: library, merged | merger")
    made.deb("merged", "1")
    made.deb("merger", "1")
    made.deb("unrelated", "1")
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mirror is not signed by Debian: tell apt that this is meant."""
    real = apt._source
    monkeypatch.setattr(apt, "_source", lambda m: "\n".join([*real(m).splitlines()[:-1], "Trusted: yes", ""]))


WANTED = BaseInput(("tool",), ("merger",), "")


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_the_base_is_what_is_essential_and_named_and_needed(mirror: SmallMirror) -> None:
    debs = resolver.resolve(WANTED)[0]
    assert [(d.name, d.version) for d in debs] == [("base", "1.0"), ("library", "2:2.0+b1~x"), ("merged", "1"), ("tool", "1.5")]
    resolver.fetch(debs)
    for deb in debs:
        assert store.verified(deb.artifact).read_bytes()[:8] == b"!<arch>\n"


@pytest.mark.host
def test_a_mirror_without_debians_signature_is_refused(mirror: SmallMirror) -> None:
    with pytest.raises(MissingEnvironmentError, match="reading Debian's package lists .* failed"):
        resolver.resolve(WANTED)


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_package_that_does_not_exist_is_named(mirror: SmallMirror) -> None:
    with pytest.raises(LockError, match=r"resolving base.in failed: Unable to locate package no-such \(lockfiles/base.in\)"):
        resolver.resolve(BaseInput(("no-such",), (), ""))


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_packages_that_exclude_each_other_and_a_virtual_one_are_told_with_a_way_out(mirror: SmallMirror) -> None:
    mirror.deb("post", "1", "Provides: mailer\nConflicts: mailer")
    mirror.deb("mail", "1", "Provides: mailer\nConflicts: mailer")
    with pytest.raises(LockError, match="failed: mail : Conflicts: mailer; post : Conflicts: mailer"):
        resolver.resolve(BaseInput(("post", "mail"), (), ""))
    with pytest.raises(LockError, match="mailer is a virtual package .*: name one that provides it: mail, post"):
        resolver.resolve(BaseInput(("mailer",), (), ""))


def _superseded(mirror: SmallMirror) -> tuple[Deb, ...]:
    debs = tuple(d for d in resolver.resolve(WANTED)[0] if d.name == "library")
    mirror.deb("library", "2:2.1")
    return debs


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_superseded_deb_that_still_lies_in_the_pool_is_found(mirror: SmallMirror) -> None:
    debs = _superseded(mirror)
    resolver.fetch(debs)
    assert store.verified(debs[0].artifact)


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_deb_gone_from_the_mirror_is_named_with_its_successor(mirror: SmallMirror) -> None:
    debs = _superseded(mirror)
    next(mirror.root.rglob("library_2.0*")).unlink()
    expected = (
        r"library 2:2.0\+b1~x left Debian's mirror \(superseded\) .*sha256 \w{64}\): "
        r"`invoke lock --upgrade library` takes library 2:2.1, "
        "or name an archive that has the locked one in PINWHEEL_DEB_ARCHIVE"
    )
    with pytest.raises(LockError, match=expected):
        resolver.fetch(debs)
    assert not store.has(debs[0].artifact)


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_deb_with_other_bytes_on_the_mirror_never_reaches_the_store(mirror: SmallMirror) -> None:
    debs = resolver.resolve(WANTED)[0]
    file = next(mirror.root.rglob("library_*"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(
        MissingEnvironmentError, match=r"library 2:2.0\+b1~x cannot be fetched, or the mirror's bytes are not those"
    ):
        resolver.fetch(debs)
    assert [d.name for d in debs if not store.has(d.artifact)] == ["library"]


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_mirrors_password_reaches_the_mirror_and_no_argument(mirror: SmallMirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Quiet, "login", "user:s3cret")
    secret = Mirror("bookworm", mirror.address.replace("http://", "http://user:s3cret@"))
    seen: list[str] = []

    def spy(argv: list[str | Path], **rest: Any) -> Result:
        seen.extend(str(argument) for argument in argv)
        return run(argv, **rest)

    monkeypatch.setattr(apt, "run", spy)
    with pytest.raises(MissingEnvironmentError, match="reading Debian's package lists"):
        resolver.resolve(WANTED)
    monkeypatch.setattr(apt, "debian_mirrors", lambda: (secret,))
    debs = resolver.resolve(WANTED)[0]
    resolver.fetch(debs)
    assert all(store.has(deb.artifact) for deb in debs)
    assert len(seen) > 10
    assert not [argument for argument in seen if "s3cret" in argument]


class OldDebs:
    """A web server of debs that left the mirrors.

    Attributes:
        root: its folder.
        base: its address, without a slash at its end.
        asked: every path asked for.
        failing: paths with this beginning are answered with 503.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.base, self.failing = root, "", "none"
        self.asked: list[str] = []
        root.mkdir()

    def put(self, path: str, data: bytes) -> None:
        """Serve bytes at a path."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)


@pytest.fixture
def old(own_folders: Path) -> Iterator[OldDebs]:
    made = OldDebs(own_folders / "old")

    class Handler(Quiet):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            if self.path.startswith(made.failing):
                self.send_error(503)
            else:
                super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(made.root)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    made.base = f"http://user:s3cret@127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    server.server_close()


def _vanished(mirror: SmallMirror) -> tuple[Deb, bytes]:
    """A locked deb that has left the mirror's list and its pool; and its bytes."""
    (deb,) = _superseded(mirror)
    file = next(mirror.root.rglob("library_2.0*"))
    data = file.read_bytes()
    file.unlink()
    return deb, data


FILE = "library_2.0%2Bb1~x_amd64.deb"


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_deb_that_vanished_is_found_in_the_archive(
    mirror: SmallMirror, old: OldDebs, monkeypatch: pytest.MonkeyPatch
) -> None:
    deb, data = _vanished(mirror)
    old.put(f"debian/pool/main/l/library/{deb.artifact.file}", data)
    old.failing = "/broken/"
    # One that has nothing, one that does not answer, and the one that has it.
    templates = ("/empty/{sha256}", "/broken/{name}/{version}/{file}", "/debian/{pool}/{file}")
    monkeypatch.setenv("PINWHEEL_DEB_ARCHIVE", " ".join(old.base + template for template in templates))
    resolver.fetch((deb,))
    assert store.verified(deb.artifact).read_bytes() == data
    assert old.asked == [
        f"/empty/{deb.artifact.sha256}",
        *[f"/broken/library/2%3A2.0%2Bb1~x/{FILE}"] * 3,
        f"/debian/pool/main/l/library/{FILE}",
    ]


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_deb_whose_whole_package_vanished_is_sought_where_debian_would_keep_it(
    mirror: SmallMirror, old: OldDebs, monkeypatch: pytest.MonkeyPatch
) -> None:
    deb, data = _vanished(mirror)
    del mirror.stanzas["library"]
    mirror.publish()
    old.put(f"pool/main/libr/library/{deb.artifact.file}", data)
    monkeypatch.setenv("PINWHEEL_DEB_ARCHIVE", old.base + "/{pool}/{file}")
    resolver.fetch((deb,))
    assert store.has(deb.artifact)


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_deb_that_is_listed_and_not_there_is_found_in_the_archive(
    mirror: SmallMirror, old: OldDebs, monkeypatch: pytest.MonkeyPatch
) -> None:
    debs = resolver.resolve(WANTED)[0]
    file = next(mirror.root.rglob("library_2.0*"))
    shutil.move(file, old.root / file.name)
    monkeypatch.setenv("PINWHEEL_DEB_ARCHIVE", old.base + "/{file}")
    resolver.fetch(debs)
    assert all(store.has(deb.artifact) for deb in debs)
    assert old.asked == [f"/{FILE}"]


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_deb_that_vanished_everywhere_is_named_with_its_successor(
    mirror: SmallMirror, old: OldDebs, monkeypatch: pytest.MonkeyPatch
) -> None:
    deb, _ = _vanished(mirror)
    old.failing = "/broken/"
    monkeypatch.setenv("PINWHEEL_DEB_ARCHIVE", f"{old.base}/a/{{file}} {old.base}/broken/{{file}}")
    with pytest.raises(LockError) as refused:
        resolver.fetch((deb,))
    assert refused.value.line() == (
        "library 2:2.0+b1~x left Debian's mirror (superseded) "
        f"(lockfiles/base.lock, sha256 {deb.artifact.sha256}; address 2 of PINWHEEL_DEB_ARCHIVE: "
        "library_2.0+b1~x_amd64.deb cannot be fetched: the server answers 503): "
        "`invoke lock --upgrade library` takes library 2:2.1, "
        "or name an archive that has the locked one in PINWHEEL_DEB_ARCHIVE"
    )


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_an_archive_that_lies_is_refused(mirror: SmallMirror, old: OldDebs, monkeypatch: pytest.MonkeyPatch) -> None:
    deb, data = _vanished(mirror)
    old.put(deb.artifact.file, data[:-1] + b"?")
    monkeypatch.setenv("PINWHEEL_DEB_ARCHIVE", old.base + "/{file}")
    expected = r"library_2.0\+b1~x_amd64.deb: the bytes are sha256 \w+, the lock says .*\(address 1 of PINWHEEL_DEB_ARCHIVE\)"
    with pytest.raises(LockError, match=expected) as refused:
        resolver.fetch((deb,))
    assert "s3cret" not in refused.value.line()
    assert "127.0.0.1" not in refused.value.line()
    assert not store.has(deb.artifact)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("https://a/{file} ftp://user:s3cret@a/{file}", "address 2 of PINWHEEL_DEB_ARCHIVE is no address: it begins with"),
        ("https://user:s3cret@a/{path}", r"address 1 of PINWHEEL_DEB_ARCHIVE names {path}: there are {file}, {name}, "),
    ],
    ids=["scheme", "placeholder"],
)
def test_an_archive_that_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, setting: str, message: str) -> None:
    monkeypatch.setenv("PINWHEEL_DEB_ARCHIVE", setting)
    with pytest.raises(UsageError, match=message) as refused:
        archive.places((), {})
    assert "s3cret" not in refused.value.line()


def _locked(mirror: SmallMirror) -> tuple[Deb, ...]:
    """Lock a base, bring its debs into the store, and let the mirror drop two of them for newer ones."""
    debs, newer = resolver.resolve(BaseInput(("tool", "unrelated"), ("merger",), ""))
    assert newer == 0
    resolver.fetch(debs)
    mirror.deb("library", "2:2.1")
    mirror.deb("merged", "2")
    return debs


def versions(debs: tuple[Deb, ...]) -> dict[str, str]:
    return {deb.name: deb.version for deb in debs}


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_what_the_mirror_dropped_stays_locked_when_base_in_is_edited(mirror: SmallMirror) -> None:
    locked = _locked(mirror)
    for old in mirror.root.rglob("*_2.0*"):
        old.unlink()
    assert resolver.newer(BaseInput(("tool", "unrelated"), ("merger",), ""), locked) == 2
    # One package gone, another come.
    mirror.deb("extra", "1", "Depends: library (>= 2:1), base")
    debs, newer = resolver.resolve(BaseInput(("tool", "extra"), ("merger",), ""), locked)
    kept = {deb for deb in locked if deb.name != "unrelated"}
    assert [deb for deb in debs if deb.name != "extra"] == sorted(kept, key=lambda deb: deb.name)
    assert next(deb for deb in debs if deb.name == "extra").needs == ("base", "library")
    assert newer == 2


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_an_edit_moves_what_it_needs_and_nothing_else(mirror: SmallMirror) -> None:
    locked = _locked(mirror)
    mirror.deb("extra", "1", "Depends: library (>= 2:2.1)")
    mirror.deb("base", "1.1", "Essential: yes")
    debs, newer = resolver.resolve(BaseInput(("tool", "unrelated", "extra"), ("merger",), ""), locked)
    assert versions(debs) == {**versions(locked), "extra": "1", "library": "2:2.1"}
    assert newer == 2


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_an_upgrade_moves_the_named_package_alone(mirror: SmallMirror) -> None:
    locked = _locked(mirror)
    debs, newer = resolver.resolve(BaseInput(("tool", "unrelated"), ("merger",), ""), locked, frozenset({"merged"}))
    assert versions(debs) == {**versions(locked), "merged": "2"}
    assert newer == 1


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_an_upgrade_moves_what_must_move_with_it(mirror: SmallMirror) -> None:
    locked = _locked(mirror)
    mirror.deb("tool", "2.0", "Depends: library (= 2:2.1), merged | merger", "Breaks: unrelated (<< 2)")
    mirror.deb("unrelated", "2")
    debs, newer = resolver.resolve(BaseInput(("tool", "unrelated"), ("merger",), ""), locked, frozenset({"tool"}))
    assert versions(debs) == {**versions(locked), "tool": "2.0", "library": "2:2.1", "unrelated": "2"}
    assert newer == 1


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_the_debs_of_one_source_move_together(mirror: SmallMirror) -> None:
    mirror.deb("library-doc", "2.0", "Source: library (2:2.0)")
    wanted = BaseInput(("tool", "library-doc"), ("merger",), "")
    locked, _ = resolver.resolve(wanted)
    resolver.fetch(locked)
    mirror.deb("library-doc", "2.1", "Source: library (2:2.1)")
    mirror.deb("library", "2:2.1")
    mirror.deb("tool", "1.6", "Depends: library, merged")
    debs, newer = resolver.resolve(wanted, locked, frozenset({"library-doc"}))
    assert versions(debs) == {**versions(locked), "library-doc": "2.1", "library": "2:2.1"}
    assert newer == 1


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_as_few_as_possible_move_however_they_hang_together(mirror: SmallMirror) -> None:
    """The resolver's answer beside all that apt would accept, tried one by one."""
    for number in range(1, 7):
        mirror.deb(f"part{number}", "1")
    wanted = BaseInput(tuple(f"part{number}" for number in range(1, 7)), (), "")
    locked, _ = resolver.resolve(wanted)
    resolver.fetch(locked)
    mirror.deb("part1", "2", "Depends: part4 (>= 2)")
    mirror.deb("part2", "2")
    mirror.deb("part3", "2", "Depends: part2 (>= 2)")
    mirror.deb("part4", "2", "Depends: part6 (= 2)")
    mirror.deb("part5", "2", "Breaks: part1 (<< 2)")
    mirror.deb("part6", "2", "Breaks: part4 (<< 2)")
    mirror.deb("edit", "1", "Depends: part4 (>= 2)")
    edited = BaseInput((*wanted.packages, "edit"), (), "")
    debs, newer = resolver.resolve(edited, locked)
    moved = {deb.name for deb in debs if deb.version == "2"}
    names = [deb.name for deb in locked if deb.name.startswith("part")]
    accepted = []
    with apt.session() as session:
        session.offer(locked)
        for count in range(len(names) + 1):
            for released in itertools.combinations(names, count):
                try:
                    session.choose(edited, [deb for deb in locked if deb.name not in released])
                except LockError:
                    continue
                accepted.append(set(released))
            if accepted:
                break
    assert accepted == [moved]
    assert newer == 4


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_locked_deb_that_only_an_archive_has_stays(
    mirror: SmallMirror, old: OldDebs, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = _locked(mirror)
    store.prune(set())
    for file in [*mirror.root.rglob("library_2.0*"), *mirror.root.rglob("merged_1_*")]:
        shutil.move(file, old.root / file.name)
    wanted = BaseInput(("tool",), ("merger",), "")
    monkeypatch.setenv("PINWHEEL_DEB_ARCHIVE", old.base + "/{file}")
    debs, _ = resolver.resolve(wanted, locked)
    assert set(debs) == {deb for deb in locked if deb.name != "unrelated"}
    # And without it: named; but for what is not needed any more, or what was asked to move.
    store.prune(set())
    monkeypatch.delenv("PINWHEEL_DEB_ARCHIVE")
    with pytest.raises(
        LockError, match=r"library 2:2.0\+b1~x and 1 more left .*: `invoke lock --upgrade debian` takes library"
    ):
        resolver.resolve(wanted, locked)
    with pytest.raises(LockError, match=r"library 2:2.0\+b1~x left .*: `invoke lock --upgrade library` takes library 2:2.1"):
        resolver.resolve(wanted, locked, frozenset({"merged"}))
    debs, _ = resolver.resolve(BaseInput(("library",), (), ""), locked, frozenset({"library"}))
    assert versions(debs) == {"base": "1.0", "library": "2:2.1"}


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_an_older_version_on_a_mirror_that_lags_is_not_newer(mirror: SmallMirror) -> None:
    locked = _locked(mirror)
    mirror.deb("library", "2:1.9")
    assert resolver.newer(BaseInput(("tool", "unrelated"), ("merger",), ""), locked) == 1


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_an_edit_that_fits_no_version_is_refused(mirror: SmallMirror) -> None:
    locked = _locked(mirror)
    mirror.deb("extra", "1", "Depends: library (>= 2:3)")
    with pytest.raises(LockError, match=r"failed: extra : Depends: library \(>= 2:3\) but .*: drop one of them"):
        resolver.resolve(BaseInput(("tool", "extra"), ("merger",), ""), locked)


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_the_users_mirror_is_asked_before_debians(mirror: SmallMirror, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    debs = resolver.resolve(WANTED)[0]
    resolver.fetch(debs)
    air_gap.write(tmp_path / "gap", (deb.artifact for deb in debs), store.verified)
    store.prune(set())
    monkeypatch.setenv("PINWHEEL_MIRROR", str(tmp_path / "gap"))
    monkeypatch.setattr(apt, "debian_mirrors", lambda: pytest.fail("Debian's mirror was asked"))
    resolver.fetch(debs)
    assert all(store.has(deb.artifact) for deb in debs)


def test_offline_a_missing_deb_is_named_and_nobody_is_asked(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    monkeypatch.setattr(apt, "run", lambda *_, **__: pytest.fail("a program was started"))
    debs = tuple(Deb(name, "1:1.0", "amd64", artifact(f"{name}_1.0_amd64.deb")) for name in ("one", "two"))
    with store.adding(debs[0].artifact) as out:
        out.write(b"one_1.0_amd64.deb")
    digest = debs[1].artifact.sha256
    expected = (
        rf"two 1:1.0 is not in the store, and this run is offline \(two_1.0_amd64.deb, sha256 {digest}\): run `invoke fetch`"
    )
    with pytest.raises(MissingEnvironmentError, match=expected):
        resolver.fetch(debs)
    with pytest.raises(MissingEnvironmentError, match="reading Debian's package lists needs the network"):
        resolver.resolve(WANTED)[0]
    resolver.fetch(debs[:1])


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_pinned_version_is_taken_and_one_that_is_nowhere_named(mirror: SmallMirror, own_folders: Path) -> None:
    locked = resolver.resolve(WANTED)[0]
    resolver.fetch(locked)
    mirror.deb("tool", "1.6", "Depends: library, merged | merger")
    pinned = BaseInput(("tool",), ("merger",), "", (("tool", "1.5"),))
    debs, newer = resolver.resolve(pinned, locked)
    assert ({deb.name: deb.version for deb in debs}["tool"], newer) == ("1.5", 0)
    with pytest.raises(LockError, match=r"Version '9' for 'tool' was not found.*: name one that there is: 1.6"):
        resolver.resolve(BaseInput(("tool",), ("merger",), "", (("tool", "9"),)))


def _further(mirror: SmallMirror, folder: Path, monkeypatch: pytest.MonkeyPatch, *, signed: bool = True) -> Suite:
    """A company's repository with a suite and a key of its own, which this machine's apt knows."""
    root = folder / "company"
    company = SmallMirror(root)
    company.stanzas = {}
    for name in ("tool", "library", "own"):
        company.deb(name, "7.0", "Essential: no")
    suite = root / "dists/bookworm"
    release = (suite / "Release").read_text().replace("Debian", "Acme").replace("bookworm", "stable")
    home = folder / "gpg"
    home.mkdir(mode=0o700)
    gpg: list[str | Path] = ["gpg", "--homedir", home, "--batch", "--passphrase", "", "--quiet"]
    run([*gpg, "--quick-gen-key", "acme@example.com", "ed25519", "sign"], error=BuildError)
    (suite / "Release").write_text(release)
    suite.rename(root / "dists/stable")
    made = root / "dists/stable"
    run([*gpg, "--output", made / "InRelease", "--clearsign", made / "Release"], error=BuildError)
    (folder / "acme.gpg").write_bytes(b"")
    run([*gpg, "--yes", "--output", folder / "acme.gpg", "--export"], error=BuildError)
    other = folder / "other.gpg"
    shutil.copy(KEYRING, other)
    keyring = folder / "acme.gpg" if signed else other
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(apt, "further_mirrors", lambda *_: (Mirror("stable", address, "main", keyring),))
    real = apt._source
    debian = Mirror("bookworm", mirror.address)
    monkeypatch.setattr(
        apt, "_source", lambda m: real(m).replace(f"Signed-By: {KEYRING}", "Trusted: yes") if m == debian else real(m)
    )
    return Suite("stable", "main", (("tool", ""),), keyring)


@pytest.mark.host
def test_from_a_further_suite_comes_what_is_named_and_nothing_else(
    mirror: SmallMirror, own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The company's library is newer, and is not taken for that; nor is its package that nobody named."""
    suite = _further(mirror, own_folders, monkeypatch)
    wanted = BaseInput(("library", "tool"), ("merger",), "", (), (suite,))
    debs = resolver.resolve(wanted)[0]
    assert [(d.name, d.version) for d in debs] == [("base", "1.0"), ("library", "2:2.0+b1~x"), ("tool", "7.0")]
    # What was locked from Debian before the suite was named, moves there; and then stays.
    monkeypatch.setattr(inputs, "read_base", lambda: wanted)
    before = resolver.resolve(BaseInput(("library", "tool"), ("merger",), ""))[0]
    moved = resolver.resolve(wanted, before)[0]
    assert [(d.name, d.version) for d in moved] == [(d.name, d.version) for d in debs]
    resolver.fetch(moved)
    with pytest.raises(LockError, match="own"):
        resolver.resolve(BaseInput(("own",), ("merger",), "", (), (suite,)))


@pytest.mark.host
def test_a_further_suite_that_another_key_signed_is_refused(
    mirror: SmallMirror, own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = _further(mirror, own_folders, monkeypatch, signed=False)
    with pytest.raises(MissingEnvironmentError, match="reading Debian's package lists .* failed"):
        resolver.resolve(BaseInput(("library", "tool"), ("merger",), "", (), (suite,)))
