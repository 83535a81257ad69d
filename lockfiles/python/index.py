"""The user's package index: which one it is, and where on it a locked file lies.

The index is the user's setting, in uv's or pip's own way; the lock holds none. Only the one index is asked: find-links and
extra indexes of a host's configuration would mix other builds into a resolution.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from requests.adapters import HTTPAdapter

from common import offline, pip
from common.errors import LockError, MissingEnvironmentError
from lockfiles.model import Artifact
from lockfiles.store import mirror

if TYPE_CHECKING:
    # A third of a second to load, and most commands ask no index.
    import pypi_simple

# Seconds to connect, and between two pieces of an answer.
_TIMEOUT = (20.0, 60.0)


def url() -> str:
    """The simple index the user has configured, else the one pip itself would ask.

    Read from UV_DEFAULT_INDEX, UV_INDEX_URL, then pip's configuration (PIP_INDEX_URL and its files).

    Raises:
        MissingEnvironmentError: pip cannot read its configuration; another index than the user's is never asked instead. Or
            this run is offline.
    """
    offline.demand_network("asking your package index", fix="run it without --offline")
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if value := os.environ.get(variable):
            return value
    try:
        configured = pip.settings("install")
    except ValueError as problem:
        raise MissingEnvironmentError(f"your pip configuration cannot be read: {problem}", fix="mend it") from None
    if "index-url" in configured:
        return configured["index-url"]
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    return PYPI_SIMPLE_ENDPOINT


class _OfflineAdapter(HTTPAdapter):
    """Lets nothing out but to the mirror that the user has set."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request to the mirror.

        Raises:
            MissingEnvironmentError: it goes elsewhere.
        """
        parts = urlsplit(request.url or "")
        if (parts.hostname, parts.port) != mirror.http_host():
            offline.demand_network("a download", fix=offline.FIX)
        return super().send(request, *args, **kwargs)


def session() -> requests.Session:
    """An HTTP session with the user's proxies, certificates and netrc, as requests reads them; offline for the mirror alone."""
    own = requests.Session()
    own.headers["User-Agent"] = "pinwheel"
    if offline.offline():
        own.mount("https://", _OfflineAdapter())
        own.mount("http://", _OfflineAdapter())
    return own


class Locator:
    """Finds the address of a locked file on the user's index. Safe for several threads."""

    def __init__(self, http: requests.Session) -> None:
        self._http = http
        self._client: pypi_simple.PyPISimple | None = None
        self._pages: dict[str, dict[str, tuple[str, str]]] = {}
        self._guard = threading.Lock()

    def __call__(self, artifact: Artifact) -> str:
        """The file's address.

        Raises:
            LockError: the index has no file of that name and hash.
            MissingEnvironmentError: the index does not answer, or must not be asked.
        """
        parse = parse_wheel_filename if artifact.file.endswith(".whl") else parse_sdist_filename
        name, version, *_ = parse(artifact.file)
        project = canonicalize_name(name)
        if offline.offline():
            raise MissingEnvironmentError(
                f"{project} {version} is not in the store, and this run is offline",
                where=f"{artifact.file}, sha256 {artifact.sha256}",
                fix=offline.FIX,
            )
        with self._guard:
            # Asking for the user's index starts pip: only when something is really missing.
            self._client = self._client or client(self._http)
            asked, known = self._client, self._pages.get(project)
        if known is None:
            known = _files(asked, project)
            with self._guard:
                self._pages[project] = known
        address, digest = known.get(artifact.file, ("", ""))
        if digest not in ("", artifact.sha256):
            raise LockError(
                f"{artifact.file}: your index says sha256 {digest}, the lock says {artifact.sha256}",
                fix="the index serves an altered file; if it is meant, run `invoke lock`",
            )
        if not address:
            raise LockError(
                f"{artifact.file} is not on your index any more", fix=f"`invoke lock --upgrade {project}` takes another version"
            )
        return address


def client(http: requests.Session) -> pypi_simple.PyPISimple:
    """A client of the user's index.

    Raises:
        MissingEnvironmentError: the index must not be asked.
    """
    from pypi_simple import PyPISimple

    return PyPISimple(url(), session=http)


def page(client: pypi_simple.PyPISimple, project: str) -> pypi_simple.ProjectPage | None:
    """What the index says of a project; None when it has none of that name.

    Raises:
        MissingEnvironmentError: it does not answer, or not as an index.
    """
    import pypi_simple

    try:
        return client.get_project_page(project, timeout=_TIMEOUT)
    except pypi_simple.NoSuchProjectError:
        return None
    except (
        requests.RequestException,
        pypi_simple.UnsupportedContentTypeError,
        pypi_simple.UnsupportedRepoVersionError,
        ValueError,  # pages that are not what they claim to be, in many ways
    ) as problem:
        raise MissingEnvironmentError(
            f"your package index does not answer for {project}: {type(problem).__name__}",
            fix="check the network and your uv or pip configuration",
        ) from None


def _files(client: pypi_simple.PyPISimple, project: str) -> dict[str, tuple[str, str]]:
    found = page(client, project)
    if found is None:
        raise LockError(f"your index has no project {project}", fix="check the index in your uv or pip configuration")
    return {package.filename: (package.url, package.digests.get("sha256", "")) for package in found.packages}
