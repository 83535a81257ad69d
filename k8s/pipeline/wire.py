"""What the pipeline's programs share: how they end, and HTTP that survives a bad line and keeps secrets at home.

Credentials go to the origin that they are for and to no other; what began with TLS goes on with it; plain HTTP is spoken to
this machine's loopback alone, unless the user's own setting names another. Bodies are streamed. A message names a host at most:
an address may carry a secret.
"""

from __future__ import annotations

import email.utils
import errno
import http.client
import ipaddress
import os
import signal
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, TypeVar
from urllib.parse import urljoin, urlsplit

# The toolkit's own exit codes (README, "Exit codes").
USAGE, ENVIRONMENT, LOCK, REGISTRY, POLICY, PUT_BACK, NOT_PUT_BACK, TERMINATED = 2, 10, 11, 14, 15, 16, 17, 143
CHUNK = 1 << 20
# Bounds of patience, in seconds: between tries, of any wait that a server asks for, for the next byte.
TRIES, PAUSE, LONGEST, TIMEOUT = 6, 1.0, 120.0, 60.0
_REDIRECTS = 5
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_T = TypeVar("_T")


class RefusedError(Exception):
    """What no second try mends.

    Args:
        what: one line: what happened, where, and what to do.
        code: the exit code.
    """

    def __init__(self, what: str, code: int = USAGE) -> None:
        super().__init__(" ".join(what.split()))
        self.code = code


class TransientError(Exception):
    """What another try may mend.

    Args:
        what: in a few words.
        wait: seconds that the server asked for.
    """

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose body is still to be read."""

    status: int
    headers: http.client.HTTPMessage
    url: str
    body: http.client.HTTPResponse

    def header(self, name: str) -> str:
        """A header's value, or nothing."""
        return self.headers.get(name, "")

    def read(self, most: int) -> bytes:
        """The whole body.

        Raises:
            RefusedError: it is larger than `most`.
            TransientError: it was cut.
        """
        data = b"".join(self.chunks(most + 1))
        if len(data) > most:
            raise RefusedError(f"{host_of(self.url)} answers with more than {most} bytes", REGISTRY)
        told = self.header("Content-Length")
        if told.isdecimal() and len(data) != int(told):
            raise TransientError("the connection was cut")
        return data

    def chunks(self, most: int) -> Iterator[bytes]:
        """The body piece by piece, `most` bytes at most."""
        while most > 0:
            try:
                data = self.body.read(min(CHUNK, most))
            except (OSError, http.client.HTTPException) as problem:
                raise TransientError(_reason(problem)) from None
            if not data:
                return
            most -= len(data)
            yield data


def host_of(url: str) -> str:
    """Whom an address names, without whatever else it carries."""
    return urlsplit(url).netloc.rpartition("@")[2]


def is_loopback(host: str) -> bool:
    """Whether a host, with or without port, is this machine itself."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: who gets what is secret."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)


@contextmanager
def send(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    secret: Mapping[str, str] | None = None,
    body: Callable[[], Iterable[bytes]] | None = None,
    length: int = 0,
    plain: bool = False,
    context: ssl.SSLContext | None = None,
) -> Iterator[Answer]:
    """Send a request, follow redirects, and give the answer, whatever its status.

    Args:
        method: of HTTP.
        url: where to.
        headers: for whoever answers in the end.
        secret: headers for the address's own origin alone.
        body: gives what is sent, from its start every time.
        length: its bytes.
        plain: whether plain HTTP may go to another host than this one.
        context: of TLS, where the system's is not meant.

    Raises:
        TransientError: there was no answer, or one that asks to come again.
        RefusedError: no answer will ever be taken: TLS fails, or a redirect leads where nothing may go.
    """
    # No error processor and no redirect handler: every answer comes back as it is. Proxies are the environment's.
    opener = urllib.request.OpenerDirector()
    handlers = (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(context=context))
    for handler in handlers:
        opener.add_handler(handler)
    own = origin(url)
    for _ in range(_REDIRECTS + 1):
        _check(url, own, plain=plain)
        sent = {"User-Agent": "pinwheel", "Accept-Encoding": "identity", **(headers or {})}
        if origin(url) == own:
            sent |= secret or {}
        if method not in {"GET", "HEAD"}:
            sent["Content-Length"] = str(length)
        data = body() if body else (None if method in {"GET", "HEAD"} else b"")
        request = urllib.request.Request(url, data=data, headers=sent, method=method)  # noqa: S310 - checked above
        try:
            response = opener.open(request, timeout=TIMEOUT)
        except (OSError, http.client.HTTPException) as problem:
            _check_certificate(problem, url)
            raise TransientError(_reason(problem)) from None
        with response:
            status, location = response.status, response.headers.get("Location", "")
            if status in ({307, 308} if body else {301, 302, 303, 307, 308}) and location and method != "POST":
                url = urljoin(url, location)
                continue
            if status in _PASSING:
                raise TransientError(f"{host_of(url)} answers {status}", _asked(response.headers.get("Retry-After", "")))
            yield Answer(status, response.headers, url, response)
            return
    raise RefusedError(f"{own[1]} redirects in circles", REGISTRY)


def retried(what: str, attempt: Callable[[], _T], code: int) -> _T:
    """Try until it works; as often, and as far apart, as is decent.

    Raises:
        RefusedError: it never did.
    """
    for number in range(1, TRIES + 1):
        try:
            return attempt()
        except TransientError as problem:
            if number == TRIES:
                raise RefusedError(f"{what} failed {TRIES} times, at last: {problem}", code) from None
            pause(number, problem, what)
    raise AssertionError


def pause(number: int, problem: TransientError, what: str) -> None:
    """Wait before the next try; says so."""
    wait = min(max(problem.wait, PAUSE * 2 ** (number - 1)), LONGEST)
    say(f"{what}: {problem}; again in {wait:.0f} s")
    time.sleep(wait)


def say(text: str) -> None:
    """One line of progress."""
    print(text, flush=True)


def start(program: str, main: Callable[[list[str]], int]) -> NoReturn:
    """Run a program to its exit code: one line for each way to fail that somebody can act on."""
    # As a container's first process, Python would not end on SIGTERM by itself. Nothing is left to clean up: what was fetched
    # in part is gone on from.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(TERMINATED))
    try:
        code = main(sys.argv[1:])
    except RefusedError as problem:
        print(f"{program}: {problem}", file=sys.stderr, flush=True)
        code = problem.code
    except OSError as problem:
        full = "no space left: make the volume larger" if problem.errno in _FULL else problem.strerror or type(problem).__name__
        print(f"{program}: {problem.filename or 'the disk'}: {full}", file=sys.stderr, flush=True)
        code = ENVIRONMENT
    sys.stdout.flush()
    # Not sys.exit, which waits for threads that still fetch what nobody wants any more.
    os._exit(code)


def _check(url: str, own: tuple[str, str, int], *, plain: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    # Never down from TLS, not even to this machine.
    if parts.scheme != "http" or own[0] != "http" or not (plain or is_loopback(parts.netloc.rpartition("@")[2])):
        raise RefusedError(
            f"{own[1]} leads to an address without TLS ({parts.scheme}://{host_of(url)}): not followed", REGISTRY
        )


def _check_certificate(problem: BaseException, url: str) -> None:
    cause = problem.reason if isinstance(problem, urllib.error.URLError) else problem
    if isinstance(cause, ssl.SSLCertVerificationError):
        fix = "name the file of its CA in SSL_CERT_FILE"
        raise RefusedError(f"{host_of(url)}: its certificate is not trusted ({cause.verify_message}): {fix}", ENVIRONMENT)
    if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
        raise RefusedError(f"{host_of(url)} does not speak TLS: give it a certificate", ENVIRONMENT)


def _asked(told: str) -> float:
    """What Retry-After asks for (RFC 9110, 10.2.3), in seconds."""
    if told.isdecimal():
        return float(told[:6])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(told).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def _reason(problem: BaseException) -> str:
    """What went wrong, without whatever text a library makes of an address."""
    cause = problem.reason if isinstance(problem, urllib.error.URLError) else problem
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return "no answer in time" if isinstance(cause, TimeoutError) else "the connection was cut"
