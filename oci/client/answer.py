"""Answers of a server: read to their end, or still to be read."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import urllib3

from common.errors import RegistryError
from oci.client.patience import UnusableError
from oci.client.target import Server

CHUNK = 1 << 20
# An answer that is read whole may take so many seconds, or come at so many bytes a second.
_PATIENT, _SLOWEST = 30.0, 1024
# Words of a message that gives no reason: "requested access to the resource is denied".
_BARE = 7
# Of a message about who asks, however long: "your authorization token has expired".
_LOGIN = re.compile(r"authenticat|credential|token|log ?in\b|expired", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, read to its end.

    Attributes:
        status: HTTP status.
        headers: as sent; names in any case.
        data: the body's bytes.
        url: the last address that was asked for, after redirects; may carry secrets in its query.
    """

    status: int
    headers: urllib3.HTTPHeaderDict
    data: bytes
    url: str

    def header(self, name: str) -> str:
        """A header's value, or nothing."""
        return self.headers.get(name, "")

    def lines(self, name: str) -> list[str]:
        """All lines of a header that may come several times."""
        return list(self.headers.getlist(name))

    @property
    def framed(self) -> bool:
        """Whether it says where its body ends; else a connection that was cut looks like that (RFC 9112, 6.3)."""
        return bool(self.header("Content-Length") or self.header("Transfer-Encoding"))

    @property
    def codes(self) -> tuple[str, ...]:
        """The error codes of the body (OCI distribution spec, "Error Codes")."""
        return tuple(code for code, _ in self._errors())

    def beyond_login(self) -> bool:
        """Whether the server says of a refusal what no login mends: a quota, a scanner, a rule."""
        reasons = (message for code, message in self._errors() if code != "UNAUTHORIZED")
        return any(len(reason.split()) > _BARE and not _LOGIN.search(reason) for reason in reasons)

    def explanation(self) -> str:
        """The status and the server's own error messages, all of them: they may repeat secrets, see `Http.scrub`."""
        errors = "; ".join(f"{code} {message}".strip() for code, message in self._errors())
        # What stands before the registry answers with web pages, its storage in XML, and Go's server in a line of text.
        other = re.search(rb"<(?:title|Message)>([^<]{1,200})|\A([^<{\[][^\n]{0,200})\s*\Z", self.data) if not errors else None
        said = (other[1] or other[2]).decode(errors="replace").removeprefix(str(self.status)) if other else errors
        return f"{self.status} {said.strip()}".strip()

    def _errors(self) -> list[tuple[str, str]]:
        try:
            body = json.loads(self.data)
            # Token servers have forms of their own: RFC 6749, 5.2, and Docker Hub's.
            own = {
                "code": body.get("error"),
                "message": body.get("error_description") or body.get("message") or body.get("details"),
            }
            listed = body.get("errors") or [own]
            return [(str(error.get("code") or ""), str(error.get("message") or "")) for error in listed]
        except (ValueError, TypeError, AttributeError, RecursionError):
            return []


class _Translator(Protocol):
    """What `http.Http` is to an answer: names the server, and knows what its errors mean."""

    server: Server

    def translated(self, url: str) -> AbstractContextManager[None]: ...


class Stream:
    """An answer whose body is still to be read; `close` it.

    Args:
        response: urllib3's.
        url: the address that was asked for.
        http: that sent the request.

    Attributes:
        status: HTTP status.
        headers: as sent; names in any case.
        url: the last address that was asked for, after redirects.
        bodiless: whether its body is left unread, as if a HEAD had been asked.
    """

    def __init__(self, response: Any, url: str, http: _Translator) -> None:
        self._response, self._http, self._ended = response, http, False
        self.bodiless = False
        self.status: int = response.status
        self.headers: urllib3.HTTPHeaderDict = response.headers
        self.url = url

    def header(self, name: str) -> str:
        """A header's value, or nothing."""
        return self.headers.get(name, "")

    def chunks(self, most: int) -> Iterator[bytes]:
        """The body piece by piece, `most` bytes at most.

        Raises:
            TransientError: it was cut.
            StoppedError: the client was stopped.
        """
        return self._read(most, self._response.read)

    def _pieces(self, most: int) -> Iterator[bytes]:
        """As `chunks`, but as they arrive: a server that drips them does not hold us until enough are there."""
        return self._read(most, self._response.read1)

    def _read(self, most: int, read: Callable[..., bytes]) -> Iterator[bytes]:
        while most > 0 and not self._ended and not self.bodiless:
            with self._http.translated(self.url):
                data = read(min(CHUNK, most), decode_content=False)
            if not data:
                self._ended = True
                return
            most -= len(data)
            yield data

    def whole(self, most: int) -> Answer:
        """The answer with all of its body.

        Raises:
            UnusableError: it is larger than `most` bytes.
            RegistryError: it comes more slowly than any line is.
            TransientError: it was cut.
        """
        data, began = b"", time.monotonic()
        for piece in self._pieces(most + 1):
            data += piece
            took = time.monotonic() - began
            if took > _PATIENT and len(data) < took * _SLOWEST:
                what = f"{self._http.server.called} sends {len(data)} bytes of an answer in {took:.0f} s"
                raise RegistryError(what, where=self._http.server.host, fix="ask who runs it, or look at the network")
        if len(data) > most:
            size = f"{most >> 20} MiB" if most >= CHUNK else f"{most} bytes"
            what = f"{self._http.server.called} answers with more than {size}"
            raise UnusableError(what, where=self._http.server.host, why=f"it has more than {size}")
        return Answer(self.status, self.headers, data, self.url)

    def close(self) -> None:
        """Give the connection back; one whose answer was not read to its end is closed."""
        if self._ended:
            self._response.release_conn()
        else:
            self._response.close()
