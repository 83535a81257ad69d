"""HTTP to one server: its certificates and proxies, redirects, bounds of patience, and credentials that stay at home.

Credentials go to the server's own origin, never to where a Location points otherwise; what began with TLS goes on with it. A
message names a host at most: an address may carry a secret.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from common.errors import RegistryError
from oci.client.answer import Answer, Stream
from oci.client.blob import Piece
from oci.client.patience import Attempts, Patience, StoppedError, TransientError, asked_to_wait
from oci.client.sockets import Sockets
from oci.client.target import Server, is_loopback, resolve
from oci.client.trust import pool

Scopes = tuple[str, ...]
# RFC 9110, 15.5.9, RFC 6585, 4, and RFC 9110, 15.6: what a second try may cure.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = 5
# No answer that is read whole is larger: distribution spec, "Pushing Manifests": a registry takes manifests of 4 MB at least.
LARGEST = 8 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        method: of HTTP.
        url: the whole address.
        scopes: what a token for it must allow.
        headers: for whoever answers in the end.
        body: gives what is sent, from its start every time.
        wait: seconds for the answer; 0: the bound of `Patience`.
        most: bytes of an answer that is read whole.
    """

    method: str
    url: str
    scopes: Scopes = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], bytes | Piece] | None = None
    wait: float = 0
    most: int = LARGEST


class Http:
    """Sends requests to one server; for several threads at once.

    Args:
        server: whom; messages name it.
        patience: bounds.
        secret: gives the headers for the server's own origin, anew for each request; default: none.
        ca: the one file of certificates that count; default: those of the system and of the user's settings.

    Attributes:
        stopped: set by `stop`.
    """

    def __init__(
        self,
        server: Server,
        patience: Patience,
        *,
        secret: Callable[[], Mapping[str, str]] | None = None,
        ca: Path | None = None,
    ) -> None:
        self.server, self.patience = server, patience
        self._pool = pool(server, patience.parallel, ca)
        self._sockets = Sockets(self._pool)
        self.stopped = self._sockets.stopped
        self._secret = secret or dict
        self._origin = origin(server.address)

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def stop(self) -> None:
        """End what other threads wait for; they, and all that is asked from now on, get a StoppedError."""
        self._sockets.stop()

    def scrub(self, text: str) -> str:
        """A server's words in one short line that a terminal may have."""
        return "".join(letter if " " <= letter <= "~" else " " for letter in text)[:200]

    def attempts(self, what: str, where: str = "", *, once: bool = False) -> Attempts:
        """Counts the failures of one thing that is tried again.

        Args:
            what: says in an error what was tried.
            where: says in an error where; default: the server's host.
            once: whether it is not worth a second try.
        """
        patience = replace(self.patience, tries=1) if once else self.patience
        return Attempts(patience, what, where or self.server.host, self.stopped)

    def ask(self, request: Request, what: str, *, once: bool = False) -> Answer:
        """Send a request that may be repeated, until it is answered.

        Args:
            request: its address may be a path of the server.
            what: says in an error what was tried.
            once: whether it is not worth a second try.

        Raises:
            RegistryError: it does not answer, or refuses the user.
            StoppedError: `stop` was called.
        """
        attempts = self.attempts(what, once=once)
        while True:
            try:
                return self.send(request)
            except TransientError as problem:
                attempts.failed(problem)

    def send(self, request: Request) -> Answer:
        """Send a request once and read its answer, whatever its status.

        Raises:
            TransientError: it may succeed another time.
            RegistryError: it will not.
            StoppedError: `stop` was called.
        """
        with self.stream(request) as stream:
            return stream.whole(request.most)

    @contextmanager
    def stream(self, request: Request) -> Iterator[Stream]:
        """Send a request once, to wherever it is redirected; its answer is to be read piece by piece.

        Raises:
            TransientError, RegistryError, StoppedError: as `send`.
        """
        url = resolve(self.server.host, self.server.address + "/", request.url)
        # 301 to 303 may turn a request into another one; no server needs them for what it is sent.
        redirects = {307, 308} if request.body else {301, 302, 303, 307, 308}
        for _ in range(_REDIRECTS):
            self._check_tls(url)
            stream = self._authorized(replace(request, url=url))
            try:
                location = stream.header("Location")
                if stream.status not in redirects or not location:
                    yield stream
                    return
                url = resolve(self.server.host, url, location)
            finally:
                stream.close()
        raise RegistryError(f"{self.server.called} redirects in circles", where=self.server.host, fix="ask who runs it")

    def _authorized(self, request: Request) -> Stream:
        """Send a request with what the server may know of the user."""
        own = origin(request.url) == self._origin
        return self.passing(self.open(replace(request, headers={**request.headers, **self._secret()}) if own else request))

    def passing(self, stream: Stream) -> Stream:
        """The answer, unless it asks to come again.

        Raises:
            TransientError: it does.
        """
        if stream.status in PASSING:
            answer = stream.whole(LARGEST)
            stream.close()
            told = f"{self.server.called} answers {self.scrub(answer.said())}"
            raise TransientError(told, asked_to_wait(answer.headers))
        return stream

    def open(self, request: Request) -> Stream:
        """Send one request, and nothing after it: no redirect is followed, no failure tried again.

        Raises:
            TransientError: there was no answer.
            RegistryError: there will be none: TLS fails.
            StoppedError: `stop` was called.
        """
        if self.stopped.is_set():
            raise StoppedError
        data = request.body() if request.body else (b"" if request.method in {"POST", "PUT", "PATCH"} else None)
        headers = {"User-Agent": "pinwheel", "Accept-Encoding": "identity", **request.headers}
        if data is not None:
            headers["Content-Length"] = str(len(data))
        timeout = urllib3.Timeout(connect=self.patience.connect, read=request.wait or self.patience.read)
        with self.translated(request.url):
            # urllib3's own redirects and retries know neither whose the credentials are nor what a server keeps.
            response: Any = self._pool.urlopen(
                request.method,
                request.url,
                body=data,
                headers=headers,
                redirect=False,
                retries=False,
                timeout=timeout,
                preload_content=False,
            )
        return Stream(response, request.url, self)

    @contextmanager
    def translated(self, url: str) -> Iterator[None]:
        """Turn what urllib3 raises into what this package raises.

        Raises:
            TransientError, RegistryError, StoppedError: as `open`.
        """
        try:
            yield
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            if self.stopped.is_set():
                raise StoppedError from None
            self._check_certificate(problem, url)
            raise TransientError(_reason(problem)) from None

    def _check_tls(self, url: str) -> None:
        parts = urlsplit(url)
        plain = self.server.plain_http and (is_loopback(parts.hostname or "") or origin(url) == self._origin)
        if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and plain)):
            return
        raise RegistryError(
            f"{self.server.called} points to an address without TLS",
            where=self.scrub(f"{self.server.host} to {parts.scheme}://{parts.hostname}"),
            fix="behind a proxy it must be told its own https address (docker-registry: http.host, or X-Forwarded-Proto)",
        )

    def _check_certificate(self, problem: BaseException, url: str) -> None:
        """Refuse at once what no second try mends: a certificate nobody vouches for, a server without TLS."""
        cause: BaseException | None = problem
        while cause is not None:
            if isinstance(cause, ssl.SSLError) and cause.reason in {"CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER"}:
                host = self.scrub(urlsplit(url).netloc.rpartition("@")[2])
                if isinstance(cause, ssl.SSLCertVerificationError):
                    what = f"{self.server.called}'s certificate is not trusted: {cause.verify_message}"
                    fix = f"put the CA into /etc/docker/certs.d/{self.server.host}/ca.crt, or name it in SSL_CERT_FILE"
                    raise RegistryError(what, where=host, fix=fix) from None
                fix = "Pinwheel speaks plain HTTP to this machine's loopback alone: give the server a certificate"
                raise RegistryError(f"{self.server.called} does not speak TLS", where=host, fix=fix) from None
            inner = cause.args[-1] if cause.args else None
            cause = inner if isinstance(inner, BaseException) else cause.__cause__ or cause.__context__


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address: who gets what is secret."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)


def _reason(problem: BaseException) -> str:
    """What went wrong, without the address that urllib3 puts into its messages."""
    text = str(problem)
    for sign, meaning in (
        ("refused", "connection refused"),
        ("NameResolution", "the host's name is not known"),
        ("timed out", "no answer in time"),
        ("reset", "the connection was cut"),
        ("roken pipe", "the connection was cut"),
        ("closed connection", "the connection was cut"),
        ("IncompleteRead", "the connection was cut"),
    ):
        if sign in text or sign in type(problem).__name__:
            return meaning
    return f"the connection failed ({type(problem).__name__})"
