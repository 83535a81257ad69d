"""The user's package indexes: what they say of a project, and where on them a locked file lies.

Which indexes there are is the user's setting (settings.py); the lock holds none. One of them is asked for everything but what
[sources] of an input takes from another: to ask several for one name would let whoever publishes it on the public one win.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import requests
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import get_netrc_auth

from common import offline
from common.errors import LockError, MissingEnvironmentError
from lockfiles import inputs
from lockfiles.model import Artifact
from lockfiles.python import settings
from lockfiles.python.settings import Index
from lockfiles.store import mirror

if TYPE_CHECKING:
    # A third of a second to load, and most commands ask no index.
    import pypi_simple

# Seconds to connect, and between two pieces of an answer.
_TIMEOUT = (20.0, 60.0)
_REFUSED = {401: "it asks for a login", 403: "your login may not read it"}


def url() -> str:
    """The address of the index that is asked by default, with the login that its setting has.

    Raises:
        MissingEnvironmentError: the user's configuration cannot be read. Or this run is offline.
    """
    offline.demand_network("asking your package index", fix="run it without --offline")
    return settings.with_login(settings.default())


class ForbiddenError(MissingEnvironmentError):
    """An index refuses a project, whoever asks (403)."""


class _Logins(AuthBase):
    """Sends each index its own login, and other servers what netrc has for them."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        address = request.url or ""
        parts = urlsplit(address)
        login = (unquote(parts.username or ""), unquote(parts.password or "")) if "@" in parts.netloc else None
        if login is None and not offline.offline():
            # Of several on one server, the one whose address is most alike: a proxy keeps a login for each repository.
            known = [one for one in (settings.default(), *settings.further()) if one.login and one.covers(address)]
            known.sort(key=lambda one: _alike(one.url, address))
            login = known[-1].login if known else None
        login = login or get_netrc_auth(address)
        return HTTPBasicAuth(*login)(request) if login else request


def _alike(one: str, other: str) -> int:
    """How many parts of two addresses' paths are the same, from the start."""
    pairs = zip(urlsplit(one).path.split("/"), urlsplit(other).path.split("/"), strict=False)
    return next((number for number, (left, right) in enumerate(pairs) if left != right), len(one))


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
    """An HTTP session with the user's proxies, certificates and logins; offline for the mirror alone.

    Raises:
        MissingEnvironmentError: a setting names certificates that are not there.
    """
    own = requests.Session()
    own.headers["User-Agent"] = "pinwheel"
    own.auth = _Logins()
    own.verify = settings.bundle() or True
    if offline.offline():
        own.mount("https://", _OfflineAdapter())
        own.mount("http://", _OfflineAdapter())
    return own


class Locator:
    """Finds the address of a locked file: on the index that its input names, or the default one. Safe for several threads."""

    def __init__(self, http: requests.Session) -> None:
        self._http = http
        self._pages: dict[tuple[str, str], dict[str, tuple[str, str]] | None] = {}
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
        problem = LockError("")
        # Two sets may take it from two indexes; which of them has the locked bytes, the hash tells.
        for home in sorted(_homes().get(project, {inputs.DEFAULT}), key=lambda home: (home == inputs.DEFAULT, home)):
            index = settings.named(home)
            files = self._files(index, project)
            address, digest = (files or {}).get(artifact.file, ("", ""))
            if address and digest in ("", artifact.sha256):
                return address
            if files is None:
                what = f"{index.called} has no project {project}"
                problem = LockError(what, fix="check the index in your uv or pip configuration")
            elif address:
                problem = LockError(
                    f"{artifact.file}: {index.called} says sha256 {digest}, the lock says {artifact.sha256}",
                    fix=f"the index serves an altered file; if it is meant, `invoke lock --upgrade {project}` takes it",
                )
            else:
                fix = f"`invoke lock --upgrade {project}` takes another version"
                problem = LockError(f"{artifact.file} is not on {index.called} any more", fix=fix)
        raise problem

    def _files(self, index: Index, project: str) -> dict[str, tuple[str, str]] | None:
        """Address and sha256 of a project's files by name; None where the index has no such project."""
        key = (index.url, project)
        with self._guard:
            if key in self._pages:
                return self._pages[key]
        found = page(self._http, project, index)
        files = None if found is None else {one.filename: (one.url, one.digests.get("sha256", "")) for one in found.packages}
        with self._guard:
            self._pages[key] = files
        return files


def _homes() -> dict[str, set[str]]:
    """For each package that some set takes from another index than the default one: the indexes that the sets take it from."""
    sets = [inputs.read_set_file(file) for file in inputs.set_files()]
    named = [{origin.name: origin.index for origin in one.origins if origin.index} for one in sets]
    return {
        package: {by_name.get(package, inputs.DEFAULT) for by_name in named} for package in {p for one in named for p in one}
    }


def page(http: requests.Session, project: str, index: Index | None = None) -> pypi_simple.ProjectPage | None:
    """What an index says of a project; None when it has none of that name.

    Args:
        http: a session of `session()`.
        project: its normal name.
        index: the one to ask; by default the user's default one.

    Raises:
        MissingEnvironmentError: it must not be asked, does not answer, refuses, or is no index.
    """
    import pypi_simple

    offline.demand_network("asking your package index", fix="run it without --offline")
    index = index or settings.default()
    try:
        return pypi_simple.PyPISimple(index.url, session=http).get_project_page(project, timeout=_TIMEOUT)
    except pypi_simple.NoSuchProjectError:
        return None
    except requests.HTTPError as problem:
        status = 0 if problem.response is None else problem.response.status_code
        kind = ForbiddenError if status == requests.codes.forbidden else MissingEnvironmentError
        raise kind(
            f"{index.called} refuses {project}: {_REFUSED[status]} (HTTP {status})"
            if status in _REFUSED
            else f"{index.called} does not answer for {project}: HTTP {status}",
            where=index.said,
            fix=_login_fix(index) if status in _REFUSED else "ask who runs the index, or try again",
        ) from None
    except requests.exceptions.SSLError:
        raise MissingEnvironmentError(
            f"{index.called} shows a certificate that is not trusted here, asked for {project}",
            where=index.said,
            fix="set SSL_CERT_FILE or PIP_CERT to the file with its authority's certificate",
        ) from None
    except (
        pypi_simple.UnsupportedContentTypeError,
        pypi_simple.UnsupportedRepoVersionError,
        ValueError,  # pages that are not what they claim to be, in many ways
    ) as problem:
        raise MissingEnvironmentError(
            f"what {index.called} answers for {project} is no page of a package index: {type(problem).__name__}",
            where=index.said,
            fix="correct its address: that of most ends in /simple",
        ) from None
    except requests.RequestException as problem:
        raise MissingEnvironmentError(
            f"{index.called} does not answer for {project}: {type(problem).__name__}",
            where=index.said,
            fix="check the network and your uv or pip configuration",
        ) from None


def _login_fix(index: Index) -> str:
    if not index.name:
        return "put a login for its host into netrc, or one that may read it"
    return f"set {settings.login_variables(index.name)}, or put a login for its host into netrc"
