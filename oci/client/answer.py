"""What a server answered."""

from __future__ import annotations

import json
from dataclasses import dataclass

import urllib3


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, read to its end.

    Attributes:
        status: HTTP status.
        headers: as sent; names in any case.
        data: the body's bytes.
        url: what was asked for at last, after redirects; may carry secrets in its query.
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
    def codes(self) -> tuple[str, ...]:
        """The error codes of the body (OCI distribution spec, "Error Codes")."""
        return tuple(code for code, _ in self._errors())

    def said(self) -> str:
        """What the server said of its refusal, all of it: it may echo secrets, see `Auth.scrub`."""
        told = "; ".join(f"{code} {message}".strip() for code, message in self._errors())
        return f"{self.status} {told}".strip()

    def _errors(self) -> list[tuple[str, str]]:
        try:
            return [(str(one.get("code", "")), str(one.get("message", ""))) for one in json.loads(self.data)["errors"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return []
