"""Debian packages, with the machine's real apt against a small mirror of the test's own."""

from __future__ import annotations

import base64
import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from common.apt import Mirror
from common.errors import BuildError, LockError, MissingEnvironmentError
from common.files import sha256_file
from common.run import Result, run
from lockfiles import debian, store
from lockfiles.inputs import BaseInput
from lockfiles.model import Deb


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
    monkeypatch.setattr(debian, "debian_mirrors", lambda: (Mirror("bookworm", address),))
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
    real = debian._source
    monkeypatch.setattr(debian, "_source", lambda m: "\n".join([*real(m).splitlines()[:-1], "Trusted: yes", ""]))


WANTED = BaseInput(("tool",), ("merger",), "")


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_the_base_is_what_is_essential_and_named_and_needed(mirror: SmallMirror) -> None:
    debs = debian.resolve(WANTED)
    assert [(d.name, d.version) for d in debs] == [("base", "1.0"), ("library", "2:2.0+b1~x"), ("merged", "1"), ("tool", "1.5")]
    debian.fetch(debs)
    for deb in debs:
        assert store.verified(deb.artifact).read_bytes()[:8] == b"!<arch>\n"


@pytest.mark.host
def test_a_mirror_without_debians_signature_is_refused(mirror: SmallMirror) -> None:
    with pytest.raises(MissingEnvironmentError, match="reading Debian's package lists .* failed"):
        debian.resolve(WANTED)


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_package_that_does_not_exist_is_named(mirror: SmallMirror) -> None:
    with pytest.raises(LockError, match="resolving base.in .* Unable to locate package no-such"):
        debian.resolve(BaseInput(("no-such",), (), ""))


def _superseded(mirror: SmallMirror) -> tuple[Deb, ...]:
    debs = tuple(d for d in debian.resolve(WANTED) if d.name == "library")
    mirror.deb("library", "2:2.1")
    return debs


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_superseded_deb_that_still_lies_in_the_pool_is_found(mirror: SmallMirror) -> None:
    debs = _superseded(mirror)
    debian.fetch(debs)
    assert store.verified(debs[0].artifact)


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_deb_gone_from_the_mirror_is_named_with_its_successor(mirror: SmallMirror) -> None:
    debs = _superseded(mirror)
    next(mirror.root.rglob("library_2.0*")).unlink()
    expected = (
        r"library 2:2.0\+b1~x left Debian's mirror \(superseded\) .*sha256 \w{64}\): `invoke lock` would take library 2:2.1"
    )
    with pytest.raises(LockError, match=expected):
        debian.fetch(debs)
    assert not store.has(debs[0].artifact)


@pytest.mark.host
@pytest.mark.usefixtures("trusted")
def test_a_deb_with_other_bytes_on_the_mirror_never_reaches_the_store(mirror: SmallMirror) -> None:
    debs = debian.resolve(WANTED)
    file = next(mirror.root.rglob("library_*"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(
        MissingEnvironmentError, match=r"library 2:2.0\+b1~x cannot be fetched, or the mirror's bytes are not those"
    ):
        debian.fetch(debs)
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

    monkeypatch.setattr(debian, "run", spy)
    with pytest.raises(MissingEnvironmentError, match="reading Debian's package lists"):
        debian.resolve(WANTED)
    monkeypatch.setattr(debian, "debian_mirrors", lambda: (secret,))
    debs = debian.resolve(WANTED)
    debian.fetch(debs)
    assert all(store.has(deb.artifact) for deb in debs)
    assert len(seen) > 10
    assert not [argument for argument in seen if "s3cret" in argument]
