"""The advisory data: fetched, checked, dated, and kept as an index that answers at once and without a network.

Three sources, each a file: OSV's archives of PyPI and Go (a zip with one JSON record each), and the JSON of Debian's security
tracker. They come from the user's mirror where it has them, else from PINWHEEL_ADVISORY_DATA (a folder or an address that holds
`PyPI.zip`, `Go.zip`, `Debian.json`), else from where OSV and Debian publish them.

The index is one SQLite file in the cache, written anew by each `invoke fetch --advisories`: table `entry` (ecosystem, package,
id, body: JSON as osv.py and tracker.py read it) and table `source` (JSON form of `Source`).
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import requests

from common import console, paths, reader
from common.errors import MissingEnvironmentError
from common.files import CHUNK, sha256_file
from common.offline import offline
from lockfiles.audit import osv, tracker
from lockfiles.audit.model import ECOSYSTEMS, Ecosystem
from lockfiles.python import index
from lockfiles.store import mirror

VARIABLE = "PINWHEEL_ADVISORY_DATA"
FILES: dict[Ecosystem, str] = {"PyPI": "PyPI.zip", "Go": "Go.zip", "Debian": "Debian.json"}
_PUBLISHED: dict[Ecosystem, str] = {
    "PyPI": "https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip",
    "Go": "https://osv-vulnerabilities.storage.googleapis.com/Go/all.zip",
    "Debian": "https://security-tracker.debian.org/tracker/data/json",
}
_FIX = f"check the network, or name a folder or an address that has them in {VARIABLE}"
# Bytes of one source, and of one record in it: some hundred times of what they are today.
_LARGEST, _LARGEST_RECORD = 8 << 30, 64 << 20
_TIMEOUT = (20, 120)


@dataclass(frozen=True, slots=True)
class Source:
    """One source as it was fetched. JSON form: these fields.

    Attributes:
        ecosystem: it speaks of.
        fetched: when it was fetched from where it is published, or changed there, UTC (ISO 8601).
        newest: when its newest record was changed, as it says; of Debian's tracker, which says nothing, empty.
        records: how many it has for us.
        sha256: of the file.
    """

    ecosystem: Ecosystem
    fetched: str
    newest: str
    records: int
    sha256: str

    def age(self, now: datetime.datetime) -> int:
        """Whole days since it was fetched."""
        return (now - datetime.datetime.fromisoformat(self.fetched)).days


def path() -> Path:
    """Where the index lies."""
    return paths.cache("advisories", "index.sqlite")


def fetch() -> str:
    """Fetch all sources and make the index of them, or leave the old one as it is; returns the outcome in a few words.

    Raises:
        MissingEnvironmentError: a source cannot be fetched, or is something else; the old index stays.
    """
    home = path().parent
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=".new-") as scratch:
        made = Path(scratch) / "index.sqlite"
        sources = []
        with closing(sqlite3.connect(made)) as base:
            base.execute("CREATE TABLE entry (ecosystem TEXT, package TEXT, id TEXT, body TEXT)")
            base.execute("CREATE TABLE source (body TEXT)")
            for ecosystem in ECOSYSTEMS:
                file = Path(scratch) / FILES[ecosystem]
                with console.step(f"fetching the advisories of {ecosystem}"):
                    _bring(ecosystem, file)
                with console.step(f"reading the advisories of {ecosystem}"):
                    sources.append(_read(ecosystem, file, base))
            base.executemany("INSERT INTO source VALUES (?)", [(json.dumps(dataclasses.asdict(one)),) for one in sources])
            base.execute("CREATE INDEX by_package ON entry (ecosystem, package)")
            base.commit()
        # Kept beside it, so that a mirror can be given what was read.
        for ecosystem in ECOSYSTEMS:
            (Path(scratch) / FILES[ecosystem]).replace(home / FILES[ecosystem])
        made.replace(path())
    return ", ".join(f"{source.records} records of {source.ecosystem}" for source in sources)


def write_mirror(target: Path) -> int:
    """Copy what was fetched last into an air-gap mirror; returns how many files."""
    copied = 0
    for name in FILES.values():
        held = path().parent / name
        if held.is_file():
            place = target / "advisories" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = place.with_suffix(".new")
            # With its time: from the mirror it is as old as here.
            shutil.copy2(held, temporary)
            temporary.replace(place)
            copied += 1
    return copied


class Index:
    """The index, open for reading; a context manager.

    Raises:
        MissingEnvironmentError: there is none, or it cannot be read.
    """

    def __init__(self) -> None:
        if not path().is_file():
            raise MissingEnvironmentError("no advisory data", where=paths.shown(path()), fix="run `invoke fetch --advisories`")
        self._base = sqlite3.connect(f"file:{path()}?mode=ro", uri=True)
        try:
            rows = self._base.execute("SELECT body FROM source ORDER BY rowid").fetchall()
            self.sources = tuple(reader.record(Source, json.loads(body)) for (body,) in rows)
        except (sqlite3.Error, ValueError) as problem:
            self._base.close()
            fix = "run `invoke fetch --advisories` again"
            raise MissingEnvironmentError(
                f"the advisory index is unreadable: {problem}", where=paths.shown(path()), fix=fix
            ) from None

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def about(self, ecosystem: Ecosystem, package: str) -> Iterator[tuple[str, str]]:
        """Identifier and body of every record about a package, in the order of the identifiers."""
        asked = "SELECT id, body FROM entry WHERE ecosystem = ? AND package = ? ORDER BY id"
        yield from self._base.execute(asked, (ecosystem, package))


def _bring(ecosystem: Ecosystem, file: Path) -> None:
    """Fetch one source from the first place that has it; the file's time becomes that of the published one, if that is told."""
    name, published = FILES[ecosystem], _PUBLISHED[ecosystem]
    near, own = mirror.folder(), mirror.folder_of(VARIABLE)
    if near and (near / "advisories" / name).is_file():
        shutil.copy2(near / "advisories" / name, file)
    elif mirror.http_host()[0] and _download(mirror.VARIABLE, f"advisories/{name}", file):
        pass
    elif own:
        if not (own / name).is_file():
            raise MissingEnvironmentError(f"no {name} there", where=str(own), fix=f"put it there, or unset {VARIABLE}")
        shutil.copy2(own / name, file)
    elif offline():
        raise MissingEnvironmentError(
            f"the advisories of {ecosystem} are not in the mirror", fix="fetch them without --offline"
        )
    elif not (_download(VARIABLE, name, file) if os.environ.get(VARIABLE) else _get(published, published, file)):
        where = f"{VARIABLE}, {name}" if os.environ.get(VARIABLE) else published
        raise MissingEnvironmentError(f"there are no advisories of {ecosystem}: it answers 404", where=where, fix=_FIX)


def _download(variable: str, name: str, file: Path) -> bool:
    """Fetch a file from the address that a variable holds, which may hold a login, too; whether it is there."""
    return _get(f"{os.environ[variable].rstrip('/')}/{name}", f"{variable}, {name}", file)


def _get(address: str, where: str, file: Path) -> bool:
    try:
        with index.session() as http, http.get(address, stream=True, timeout=_TIMEOUT) as answer:
            if answer.status_code in (404, 410):
                return False
            answer.raise_for_status()
            size = 0
            with file.open("wb") as out:
                for chunk in answer.iter_content(CHUNK):
                    size += len(chunk)
                    if size > _LARGEST:
                        raise MissingEnvironmentError(f"more than {_LARGEST >> 30} GiB of advisories", where=where, fix=_FIX)
                    out.write(chunk)
            # Without such a header, or with nonsense in it, it is as new as now.
            with suppress(KeyError, TypeError, ValueError, OverflowError):
                changed = parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()
                os.utime(file, (changed, changed))
    except requests.RequestException as problem:
        status = f"it answers {problem.response.status_code}" if problem.response is not None else type(problem).__name__
        raise MissingEnvironmentError(f"{file.name} cannot be fetched: {status}", where=where, fix=_FIX) from None
    return True


def _read(ecosystem: Ecosystem, file: Path, base: sqlite3.Connection) -> Source:
    """Put what a source says into the index.

    Raises:
        MissingEnvironmentError: it is not of its form, or says nothing at all.
    """
    newest, count = "", 0
    try:
        if ecosystem == "Debian":
            for source, name, verdict in tracker.parse(json.loads(file.read_bytes())):
                base.execute("INSERT INTO entry VALUES (?, ?, ?, ?)", (ecosystem, source, name, json.dumps(verdict)))
                count += 1
        else:
            for changed, place, record in _records(file):
                newest = max(newest, changed)
                base.execute("INSERT INTO entry VALUES (?, ?, ?, ?)", (*place, record["id"], json.dumps(record)))
                count += 1
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error, RecursionError, NotImplementedError, RuntimeError) as problem:
        what = f"the advisories of {ecosystem} cannot be read: {problem}"
        raise MissingEnvironmentError(what, where=file.name, fix=_FIX) from None
    if not count:
        raise MissingEnvironmentError(f"the advisories of {ecosystem} are empty", where=file.name, fix=_FIX)
    now = datetime.datetime.now(datetime.UTC)
    # A copy is as old as what was copied.
    fetched = min(now, datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC)).isoformat(timespec="seconds")
    return Source(ecosystem, fetched, newest, count, sha256_file(file))


def _records(file: Path) -> Iterator[tuple[str, tuple[Ecosystem, str], dict[str, object]]]:
    with zipfile.ZipFile(file) as archive:
        for member in sorted(archive.namelist()):
            if not member.endswith(".json"):
                continue
            if archive.getinfo(member).file_size > _LARGEST_RECORD:
                raise ValueError(f"{member} is larger than {_LARGEST_RECORD >> 20} MiB")
            # Reading checks the member's CRC.
            body = json.loads(archive.read(member))
            for ecosystem, name, record in osv.parse(body):
                yield str(body.get("modified") or ""), (ecosystem, name), record
