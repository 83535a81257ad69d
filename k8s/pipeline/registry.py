"""A client of OCI registries: the distribution specification 1.1, as far as the pipeline needs it.

Who the user is stands in `$DOCKER_CONFIG/config.json`, as Docker and kubelets have it (no credential helpers: a pod has none).
Tokens are those of distribution's "Token Authentication Specification" and its OAuth2 form. Blobs go up in one request,
streamed; what is there already does not go again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlencode, urljoin

from . import transfer, wire
from .wire import REGISTRY, USAGE, Answer, RefusedError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<host>[A-Za-z0-9.-]+(?::[0-9]{{1,5}})?|\[[0-9a-fA-F:]+\](?::[0-9]{{1,5}})?)/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_CHALLENGE = re.compile(r'(Basic|Bearer)\s+((?:,?\s*\w+=(?:"[^"]*"|[^\s",]+))+)', re.IGNORECASE)
_PARAMETER = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s",]+))')
_MOST_MANIFEST, _MOST_TOKEN = 4 << 20, 1 << 20
_T = TypeVar("_T")
_LOGIN = "$DOCKER_CONFIG/config.json"


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository of a registry, and where one is named the content.

    Attributes:
        host: with the port, if it has one.
        path: of the repository.
        digest: `sha256:…`; empty: none is named.
    """

    host: str
    path: str
    digest: str = ""

    @classmethod
    def parse(cls, text: str, *, pinned: bool) -> Reference:
        """Read `host/path`, and where it must be pinned `host/path@sha256:…`.

        Raises:
            RefusedError: it is no such thing.
        """
        found = _REFERENCE.fullmatch(text)
        # A first part without dot or colon would be Docker's own registry; nobody means that here.
        if not found or bool(found["digest"]) != pinned or not re.search(r"[.:]|^localhost$", found["host"]):
            form = "registry/path@sha256:<64 hex digits>" if pinned else "registry/path"
            raise RefusedError(f"not a reference of the form {form}: {text[:300]!r}", USAGE)
        return cls(found["host"], found["path"], found["digest"] or "")

    def __str__(self) -> str:
        return f"{self.host}/{self.path}" + (f"@{self.digest}" if self.digest else "")


class Repository:
    """One repository of a registry.

    Args:
        place: the repository; a digest in it does not count.
        writes: whether something will be pushed.
    """

    def __init__(self, place: Reference, *, writes: bool = False) -> None:
        self._place = place
        self._base = f"{'http' if wire.is_loopback(place.host) else 'https'}://{place.host}/v2/{place.path}/"
        self._scope = f"repository:{place.path}:{'pull,push' if writes else 'pull'}"
        self._user, self._password, self._identity = _credentials(place)
        self._authorization = ""

    def find_manifest(self, reference: str) -> bytes | None:
        """A manifest by tag or digest; None where there is none.

        Raises:
            RefusedError: the registry refuses or fails, or gives other bytes than it was asked for.
        """

        def attempt() -> bytes | None:
            accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
            with self._ask("GET", self._base + f"manifests/{reference}", headers=accept) as answer:
                if answer.status == 404:
                    return None
                self._expect(answer, {200}, f"reading manifest {reference}")
                return answer.read(_MOST_MANIFEST)

        data = self._retried(f"reading manifest {reference}", attempt)
        if data is not None and reference.startswith("sha256:") and digest_of(data) != reference:
            raise RefusedError(f"{self._place.host} gives other bytes for {reference}: do not trust it", REGISTRY)
        return data

    def manifest(self, reference: str) -> bytes:
        """A manifest that has to be there; as `find_manifest`."""
        data = self.find_manifest(reference)
        if data is None:
            raise RefusedError(f"{self._place.host}/{self._place.path} holds no {reference}", REGISTRY)
        return data

    def blob(self, digest: str, most: int) -> bytes:
        """A small blob.

        Raises:
            RefusedError: it is larger than `most`, not there, or other bytes come.
        """

        def attempt() -> bytes:
            with self._ask("GET", self._base + f"blobs/{digest}") as answer:
                self._expect(answer, {200}, f"reading {digest}")
                return answer.read(most)

        data = self._retried(f"reading {digest}", attempt)
        if digest_of(data) != digest:
            raise RefusedError(f"{self._place.host} gives other bytes for {digest}: do not trust it", REGISTRY)
        return data

    def download(self, digest: str, size: int, target: Path) -> None:
        """Fetch a blob into a file; see `transfer.download`."""

        @contextmanager
        def ask(offset: int) -> Iterator[Answer]:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            with self._ask("GET", self._base + f"blobs/{digest}", headers=headers) as answer:
                self._expect(answer, {200, 206, 416}, f"fetching {target.name}")
                yield answer

        transfer.download(ask, target, size, digest.removeprefix("sha256:"))

    def has(self, digest: str, size: int) -> bool:
        """Whether a blob is there, whole as far as the registry tells."""

        def attempt() -> bool:
            with self._ask("HEAD", self._base + f"blobs/{digest}") as answer:
                self._expect(answer, {200, 404}, f"asking for {digest}")
                return answer.status == 200 and answer.header("Content-Length") in {"", str(size)}

        return self._retried(f"asking for {digest}", attempt)

    def upload(self, digest: str, size: int, source: Path | bytes) -> bool:
        """Push a blob; False where it is there already.

        Raises:
            RefusedError: the registry refuses or fails.
        """

        def attempt() -> bool:
            # Before every try: a registry may take its time to store a large blob, and have it although its answer was lost.
            if self.has(digest, size):
                return False
            with self._ask("POST", self._base + "blobs/uploads/") as answer:
                self._expect(answer, {202}, f"beginning to push {digest}")
                place = urljoin(answer.url, answer.header("Location"))
            place += f"{'&' if '?' in place else '?'}digest={quote(digest, safe='')}"
            kind = {"Content-Type": "application/octet-stream"}
            with self._ask("PUT", place, headers=kind, body=lambda: _pieces(source), length=size) as answer:
                self._expect(answer, {201, 204}, f"pushing {digest}")
            return True

        return self._retried(f"pushing {digest}", attempt)

    def put_manifest(self, reference: str, data: bytes) -> None:
        """Push a manifest under a tag or its digest.

        Raises:
            RefusedError: the registry refuses or fails, or takes it for another one.
        """

        def attempt() -> None:
            kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
            url = self._base + f"manifests/{reference}"
            with self._ask("PUT", url, headers=kind, body=lambda: [data], length=len(data)) as answer:
                self._expect(answer, {200, 201}, f"pushing manifest {reference}")
                if answer.header("Docker-Content-Digest") not in {"", digest_of(data)}:
                    raise RefusedError(f"{self._place.host} takes the manifest for another one: do not trust it", REGISTRY)

        self._retried(f"pushing manifest {reference}", attempt)

    def _retried(self, what: str, attempt: Callable[[], _T]) -> _T:
        return wire.retried(f"{what} at {self._place.host}", attempt, REGISTRY)

    @contextmanager
    def _ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Iterable[bytes]] | None = None,
        length: int = 0,
    ) -> Iterator[Answer]:
        """Send a request, and a second time if the registry asks who is there."""
        for again in (True, False):
            own = wire.origin(url) == wire.origin(self._base)
            secret = {"Authorization": self._authorization} if self._authorization and own else {}
            with wire.send(method, url, headers=headers, secret=secret, body=body, length=length) as answer:
                challenged = answer.status == 401 and wire.origin(answer.url) == wire.origin(self._base)
                if not (again and challenged):
                    yield answer
                    return
                told = " ".join(answer.headers.get_all("WWW-Authenticate") or [])
            self._authorization = self._authorize(told)

    def _authorize(self, challenge: str) -> str:
        """What a registry wants to see, by its challenge (RFC 9110, 11.6.1)."""
        for kind, rest in _CHALLENGE.findall(challenge):
            asked = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}
            if kind.lower() == "bearer" and asked.get("realm"):
                return f"Bearer {self._token(asked['realm'], asked.get('service', ''))}"
            if kind.lower() == "basic" and self._user:
                return self._basic()
        raise RefusedError(f"{self._place.host} asks for a login, and {_LOGIN} holds none for it", REGISTRY)

    def _basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self._user}:{self._password}".encode()).decode()

    def _token(self, realm: str, service: str) -> str:
        if realm.startswith("http:") and self._base.startswith("https:"):
            raise RefusedError(f"{self._place.host} names a token server without TLS: not asked", REGISTRY)
        question = {"service": service, "scope": self._scope} if service else {"scope": self._scope}

        def attempt() -> str:
            if self._identity:
                form = urlencode(
                    {**question, "grant_type": "refresh_token", "client_id": "pinwheel", "refresh_token": self._identity}
                )
                kind, data = {"Content-Type": "application/x-www-form-urlencoded"}, form.encode()
                asked = wire.send("POST", realm, headers=kind, body=lambda: [data], length=len(data))
            else:
                secret = {"Authorization": self._basic()} if self._user else {}
                asked = wire.send("GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(question)}", secret=secret)
            with asked as answer:
                if answer.status != 200:
                    fix = f"see the login in {_LOGIN}" if self._user or self._identity else f"{_LOGIN} holds no login for it"
                    raise RefusedError(f"{self._place.host} gives no token ({answer.status}): {fix}", REGISTRY)
                try:
                    body = json.loads(answer.read(_MOST_TOKEN))
                    token = body.get("token") or body["access_token"]
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    token = None
                if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
                    raise RefusedError(f"{self._place.host}: its token server gives no token", REGISTRY)
                return token

        return wire.retried(f"asking for a token for {self._place.host}", attempt, REGISTRY)

    def _expect(self, answer: Answer, good: set[int], what: str) -> None:
        if answer.status in good:
            return
        # Of what a server says, its error codes alone (distribution spec, "Error Codes"): words could echo secrets.
        codes = sorted(set(re.findall(rb'"code"\s*:\s*"([A-Z_]{1,40})"', b"".join(answer.chunks(1 << 16)))))
        told = " ".join([str(answer.status), *(code.decode() for code in codes)])
        fix = f": {_LOGIN} must hold a login that may" if answer.status in {401, 403} else ""
        raise RefusedError(f"{what} failed, {self._place.host}/{self._place.path} answers {told}{fix}", REGISTRY)


def digest_of(data: bytes) -> str:
    """`sha256:…` of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _pieces(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while data := file.read(wire.CHUNK):
            yield data


def _credentials(place: Reference) -> tuple[str, str, str]:
    """Name, password and identity token; each may be empty. Keys may name a path below a host, as Kubernetes has it."""
    file = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        listed = json.loads(file.read_text(encoding="utf-8")).get("auths") or {}
        fitting = {}
        for key, entry in listed.items():
            name = re.sub(r"^https?://|/(v1|v2)?/?$", "", key)
            if f"{place.host}/{place.path}/".startswith(f"{name}/"):
                fitting[name] = entry
        entry = fitting[max(fitting, key=len)] if fitting else {}
        user, _, password = base64.b64decode(entry.get("auth") or "", validate=True).decode().partition(":")
        return entry.get("username") or user, entry.get("password") or password, entry.get("identitytoken") or ""
    except FileNotFoundError:
        return "", "", ""
    except (ValueError, TypeError, AttributeError, binascii.Error) as problem:
        # Its text may hold what could not be read.
        raise RefusedError(f"{file} cannot be read as Docker's configuration: {type(problem).__name__}", USAGE) from None
