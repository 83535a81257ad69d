"""HTTP to one server: its certificates and proxies, redirects, bounds of patience, and credentials that stay at home.

Credentials go to the server's own origin, never to where a Location points otherwise; what began with TLS goes on with it. A
message names a host at most: an address may carry a secret.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from common.errors import RegistryError
from oci.client import proxy, tls
from oci.client.answer import Answer, Stream
from oci.client.blob import Piece
from oci.client.patience import Attempts, Patience, StoppedError, TransientError, asked_to_wait
from oci.client.sockets import Sockets
from oci.client.target import Server, host_of, is_loopback, resolve
from oci.client.trust import pool

Scopes = tuple[str, ...]
# Statuses for which a second try may help: RFC 9110, 15.5.9 and 15.6; RFC 6585, 4.
# Those from 520 on are Cloudflare's.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 528)})
REDIRECTED, REDIRECTS = frozenset({301, 302, 303, 307, 308}), 5
# No answer that is read whole is larger: distribution spec, "Pushing Manifests": a registry takes manifests of 4 MB at least.
LARGEST = 8 << 20
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3} [^'\")]*)")


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        method: of HTTP.
        url: the whole address.
        scopes: what a token for it must allow.
        headers: sent to every server on the way, redirects included.
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
        server: where requests go; messages name it.
        patience: bounds.
        secret: gives the headers for the server's own origin, anew for each request; default: none.
        ca: the one file of certificates that count; default: those of the system and of the user's settings.
        more: certificates in PEM that count beside those.

    Attributes:
        stopped: set by `stop`.
        away: what to do where a host does not answer that the server sends us to; empty: what is usual.
    """

    away = ""

    def __init__(
        self,
        server: Server,
        patience: Patience,
        *,
        secret: Callable[[], Mapping[str, str]] | None = None,
        ca: Path | None = None,
        more: str = "",
    ) -> None:
        self.server, self.patience = server, patience
        self._make = functools.partial(pool, server, patience.parallel, ca, more)
        self._pools: dict[proxy.Proxy | None, urllib3.PoolManager] = {}
        self._sockets, self._lock = Sockets(), threading.Lock()
        self._way(server.address)
        self.stopped = self._sockets.stopped
        self._secret = secret or dict
        self._answered = False
        self._origin = origin(server.address)

    def close(self) -> None:
        """Close all connections."""
        for opened in self._pools.values():
            opened.clear()

    def stop(self) -> None:
        """End the requests of all threads; they, and all requests from now on, raise a StoppedError."""
        self._sockets.stop()

    def scrub(self, text: str) -> str:
        """A server's message as one short line that is safe to print on a terminal."""
        return "".join(letter if " " <= letter <= "~" else " " for letter in text)[:200]

    def attempts(self, action: str, where: str = "", *, once: bool = False, sends: bool = False) -> Attempts:
        """Count the failures of one action that is tried again.

        Args:
            action: what is tried, for the error message: `reading x`.
            where: the place in the error message; default: the server's host.
            once: whether it is not worth a second try.
            sends: whether something is sent.
        """
        patience = replace(self.patience, tries=1) if once else self.patience
        return Attempts(patience, action, where or self.server.host, self.stopped, sends=sends)

    def ask(self, request: Request, action: str, *, once: bool = False) -> Answer:
        """Send a request that may be repeated, until it is answered.

        Args:
            request: its address may be a path of the server.
            action: what is tried, for the error message: `reading x`.
            once: whether it is not worth a second try.

        Raises:
            RegistryError: the server does not answer, or refuses the user.
            StoppedError: `stop` was called.
        """
        attempts = self.attempts(action, once=once, sends=request.method not in {"GET", "HEAD"})
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
        # 301 to 303 may turn a POST or PUT into a GET; no server needs them for requests with a body.
        redirects = {307, 308} if request.body else REDIRECTED
        for _ in range(REDIRECTS):
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
        """Send a request; to the server's own origin with the user's credentials."""
        own = origin(request.url) == self._origin
        return self.passing(self.open(replace(request, headers={**request.headers, **self._secret()}) if own else request))

    def passing(self, stream: Stream) -> Stream:
        """Return the answer, unless its status asks to try again later.

        Raises:
            TransientError: the status asks for that.
        """
        if stream.status in PASSING:
            answer = stream.whole(LARGEST)
            stream.close()
            reason = f"{self.server.called} answers {self.scrub(answer.explanation())}"
            raise TransientError(reason, asked_to_wait(answer.headers))
        return stream

    def open(self, request: Request) -> Stream:
        """Send one request, and nothing after it: no redirect is followed, no failure tried again.

        Raises:
            TransientError: no answer came.
            RegistryError: none can come, because TLS fails.
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
            # urllib3's own redirects and retries would send credentials elsewhere and ignore how much of an upload arrived.
            response: Any = self._way(request.url)[1].urlopen(
                request.method,
                request.url,
                body=data,
                headers=headers,
                redirect=False,
                retries=False,
                timeout=timeout,
                preload_content=False,
            )
        self._answered = True
        stream = Stream(response, request.url, self)
        if stream.status == proxy.NO_LOGIN and (on_the_way := proxy.chosen(request.url)):
            # Where no TLS leads through it, its answer looks like a server's.
            answer = stream.whole(LARGEST)
            stream.close()
            raise on_the_way.refusal(self.scrub(answer.explanation()), request.url)
        return stream

    def _way(self, url: str) -> tuple[proxy.Proxy | None, urllib3.PoolManager]:
        """The proxy to an address, which may be another than the registry's, and the connections through it."""
        on_the_way = proxy.chosen(url)
        with self._lock:
            if on_the_way not in self._pools:
                made = self._make(on_the_way)
                self._sockets.watch(made)
                self._pools[on_the_way] = made
            return on_the_way, self._pools[on_the_way]

    @contextmanager
    def translated(self, url: str) -> Iterator[None]:
        """Turn the errors of urllib3 into the errors of this package.

        Raises:
            TransientError, RegistryError, StoppedError: as `open`.
        """
        try:
            yield
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            if self.stopped.is_set():
                raise StoppedError from None
            on_the_way, connections = self._way(url)
            self._check_proxy(problem, url, on_the_way)
            untried = None if self._answered else connections
            if hopeless := tls.refusal(problem, url, self.server, on_the_way, untried):
                raise hopeless from None
            if origin(url) == self._origin:
                raise TransientError(_reason(problem)) from None
            raise TransientError(f"{_reason(problem)} by {self.elsewhere(url)}", fix=self.away) from None

    def _check_proxy(self, problem: BaseException, url: str, on_the_way: proxy.Proxy | None) -> None:
        """Say of a proxy what it is, and refuse at once what a second try cannot mend.

        Raises:
            RegistryError: the proxy refuses.
            TransientError: it cannot be reached.
        """
        if on_the_way is None or not isinstance(problem, urllib3.exceptions.ProxyError):
            return
        refusal = _TUNNEL.search(str(problem))
        if refusal and int(refusal[1][:3]) not in PASSING:
            raise on_the_way.refusal(self.scrub(refusal[1]), url) from None
        reason = f" answers {self.scrub(refusal[1])}" if refusal else f": {_reason(problem)}"
        raise TransientError(f"{on_the_way.shown}{reason}", fix="check the proxy, then run it again") from None

    def elsewhere(self, url: str) -> str:
        """A host that the server sends us to, for messages."""
        return self.scrub(f"{host_of(url)}, where {self.server.host} sends us (Location)")

    def _check_tls(self, url: str) -> None:
        parts = urlsplit(url)
        # From this machine to this machine; a server elsewhere must not lead here.
        local = is_loopback(self._origin[1]) and is_loopback(parts.hostname or "")
        plain = self.server.plain_http and (local or origin(url) == self._origin)
        if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and plain)):
            return
        raise RegistryError(
            f"{self.server.called} points to an address without TLS",
            where=self.scrub(f"{self.server.host} to {parts.scheme}://{parts.hostname}"),
            fix="behind a proxy it must be told its own https address (docker-registry: http.host, or X-Forwarded-Proto)",
        )


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address; credentials go only to the same origin."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)


def _reason(problem: BaseException) -> str:
    """What went wrong, without the address that urllib3 puts into its messages."""
    text = str(problem)
    for pattern, meaning in (
        ("refused", "connection refused"),
        ("NameResolution", "the host's name is not known"),
        ("timed out", "no answer in time"),
        ("reset", "the connection was cut"),
        ("roken pipe", "the connection was cut"),
        ("closed connection", "the connection was cut"),
        ("IncompleteRead", "the connection was cut"),
        ("EOF occurred", "the connection was cut"),
    ):
        if pattern in text or pattern in type(problem).__name__:
            return meaning
    return f"the connection failed ({type(problem).__name__})"
