"""Requests to one registry: credentials, redirects, TLS and retries in one place.

Credentials go to the registry's own origin and to its token server, never to where a Location points otherwise; and what began
with TLS goes on with it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import urllib3

from common.errors import RegistryError
from oci.client.answer import Answer
from oci.client.auth import Auth, Scopes, refused
from oci.client.blob import Piece
from oci.client.patience import Attempts, Policy, StoppedError, TransientError, asked_to_wait
from oci.client.sockets import Sockets
from oci.client.target import Registry, is_loopback, resolve
from oci.client.trust import pool

# RFC 9110, 15.5.9, RFC 6585, 4, and RFC 9110, 15.6: what a second try may cure.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = 5
# No answer we read is larger: distribution spec, "Pushing Manifests": a registry takes manifests of 4 MB at least.
_LARGEST = 8 << 20
_TLS_FIX = "put the registry's CA into /etc/docker/certs.d/{host}/ca.crt, or name it in SSL_CERT_FILE"


@dataclass(frozen=True, slots=True)
class _Request:
    """One request; `body` gives what is sent, from its start every time."""

    method: str
    url: str
    scopes: Scopes
    headers: dict[str, str]
    body: Callable[[], bytes | Piece] | None
    wait: float = 0


class Wire:
    """Sends requests; for several threads at once.

    Args:
        target: the registry.
        policy: bounds.

    Attributes:
        stopped: set by `stop`.
    """

    def __init__(self, target: Registry, policy: Policy) -> None:
        self.target, self.policy = target, policy
        self._pool = pool(target, policy.parallel)
        self._sockets = Sockets(self._pool)
        self.stopped = self._sockets.stopped
        self._auth = Auth(target, self._fetch)
        self.scrub, self.prepare = self._auth.scrub, self._auth.prepare
        self._origin = _origin(target.address)

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def stop(self) -> None:
        """End what other threads wait for; they, and all that is asked from now on, get a StoppedError."""
        self._sockets.stop()

    def ask(
        self,
        method: str,
        url: str,
        what: str,
        scopes: Scopes,
        *,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        once: bool = False,
    ) -> Answer:
        """Send a request that may be repeated, until it is answered.

        Args:
            method: of HTTP.
            url: a path of the registry, or a whole address.
            what: says in an error what was tried.
            scopes: what a token for it must allow.
            headers: more of them.
            body: what is sent.
            once: whether it is not worth a second try.

        Raises:
            RegistryError: it does not answer, or refuses the user.
            StoppedError: `stop` was called.
        """
        policy = replace(self.policy, tries=1) if once else self.policy
        attempts = Attempts(policy, what, self.target.host, self.stopped)
        while True:
            try:
                return self.send(method, url, scopes, headers=headers, body=(lambda: body) if body else None)
            except TransientError as problem:
                attempts.failed(problem)

    def send(
        self,
        method: str,
        url: str,
        scopes: Scopes,
        *,
        headers: dict[str, str] | None = None,
        body: Callable[[], bytes | Piece] | None = None,
        wait: float = 0,
    ) -> Answer:
        """Send a request once, to wherever it is redirected, and again if the registry asks who is there.

        Args:
            method: of HTTP.
            url: a path of the registry, or a whole address.
            scopes: what a token for it must allow.
            headers: more of them.
            body: gives what is sent, from its start every time.
            wait: seconds for the answer; 0: the policy's.

        Raises:
            TransientError: it may succeed another time.
            RegistryError: it will not.
            StoppedError: `stop` was called.
        """
        url = resolve(self.target.host, self.target.address + "/", url)
        for _ in range(_REDIRECTS):
            self._check_tls(url)
            answer = self._authorized(_Request(method, url, scopes, headers or {}, body, wait))
            location = answer.header("Location")
            # 301 to 303 may turn a request into another one; no registry needs them for what it is sent.
            if answer.status not in ({307, 308} if body else {301, 302, 303, 307, 308}) or not location:
                return answer
            url = resolve(self.target.host, url, location)
        raise RegistryError("the registry redirects in circles", where=self.target.host, fix="ask who runs it")

    def refusal(self, what: str, answer: Answer) -> RegistryError:
        """The error for an answer that is none of the expected."""
        where = f"{self.target.host} answers {self.scrub(answer.said())}"
        return RegistryError(f"{what} failed", where=where, fix="the registry's answer says why; see its documentation or log")

    def _authorized(self, request: _Request) -> Answer:
        if _origin(request.url) != self._origin:
            return self._passing(self._raw(request))
        for again in (True, False):
            used = self._auth.header(request.scopes)
            headers = {**request.headers, "Authorization": used} if used else request.headers
            answer = self._raw(replace(request, headers=headers))
            if answer.status == 401 and again and self._auth.challenged(answer, request.scopes, used):
                continue
            break
        if answer.status in {401, 403}:
            raise refused(self.target.host, self.scrub(answer.said()))
        return self._passing(answer)

    def _passing(self, answer: Answer) -> Answer:
        if answer.status in _PASSING:
            raise TransientError(f"the registry answers {self.scrub(answer.said())}", asked_to_wait(answer.headers))
        return answer

    def _fetch(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """For the token server; retried by whoever wanted the token."""
        answer = self._raw(_Request(method, url, (), headers, (lambda: body) if body else None))
        if answer.status in _PASSING:
            raise TransientError(f"the token server answers {answer.status}", asked_to_wait(answer.headers))
        return answer

    def _raw(self, request: _Request) -> Answer:
        if self.stopped.is_set():
            raise StoppedError
        data = request.body() if request.body else (b"" if request.method in {"POST", "PUT", "PATCH"} else None)
        headers = {"User-Agent": "pinwheel", "Accept-Encoding": "identity", **request.headers}
        if data is not None:
            headers["Content-Length"] = str(len(data))
        timeout = urllib3.Timeout(connect=self.policy.connect, read=request.wait or self.policy.read)
        try:
            # urllib3's own redirects and retries know neither whose the credentials are nor what a registry keeps.
            answer = self._pool.urlopen(
                request.method,
                request.url,
                body=data,
                headers=headers,
                redirect=False,
                retries=False,
                timeout=timeout,
                preload_content=False,
            )
            try:
                read = b"" if request.method == "HEAD" else answer.read(_LARGEST + 1, decode_content=False)
                if len(read) > _LARGEST:
                    said = f"the registry answers with more than {_LARGEST >> 20} MiB"
                    raise RegistryError(said, where=self.target.host, fix="ask who runs it")
            except BaseException:
                answer.close()
                raise
            answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            if self.stopped.is_set():
                raise StoppedError from None
            self._check_certificate(problem, request.url)
            raise TransientError(_reason(problem)) from None
        return Answer(answer.status, answer.headers, read, request.url)

    def _check_tls(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme == "https" or (parts.scheme == "http" and self.target.plain_http and is_loopback(parts.hostname or "")):
            return
        raise RegistryError(
            "the registry points to an address without TLS",
            where=self.scrub(f"{self.target.host} to {parts.scheme}://{parts.hostname}"),
            fix="behind a proxy it must be told its own https address (docker-registry: http.host, or X-Forwarded-Proto)",
        )

    def _check_certificate(self, problem: BaseException, url: str) -> None:
        """Refuse at once what no second try mends: a certificate nobody vouches for, a server without TLS."""
        cause: BaseException | None = problem
        while cause is not None:
            if isinstance(cause, ssl.SSLError) and cause.reason in {"CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER"}:
                host = self.scrub(urlsplit(url).netloc.rpartition("@")[2])
                if isinstance(cause, ssl.SSLCertVerificationError):
                    said = f"the registry's certificate is not trusted: {cause.verify_message}"
                    raise RegistryError(said, where=host, fix=_TLS_FIX.format(host=self.target.host)) from None
                fix = "Pinwheel speaks plain HTTP to this machine's loopback alone: give the registry a certificate"
                raise RegistryError("the registry does not speak TLS", where=host, fix=fix) from None
            inner = cause.args[-1] if cause.args else None
            cause = inner if isinstance(inner, BaseException) else cause.__cause__ or cause.__context__


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)


def _reason(problem: BaseException) -> str:
    """What went wrong, without the address that urllib3 puts into its messages."""
    text = str(problem)
    for sign, said in (
        ("refused", "connection refused"),
        ("NameResolution", "the host's name is not known"),
        ("timed out", "no answer in time"),
        ("reset", "the connection was cut"),
        ("roken pipe", "the connection was cut"),
        ("closed connection", "the connection was cut"),
    ):
        if sign in text or sign in type(problem).__name__:
            return said
    return f"the connection failed ({type(problem).__name__})"
