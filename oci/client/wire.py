"""Requests to one registry, with the credentials that it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from common.errors import RegistryError
from oci.client.answer import Answer, Stream
from oci.client.auth import Auth, refused
from oci.client.http import LARGEST, PASSING, Http, Request, origin
from oci.client.patience import Patience, TransientError, asked_to_wait
from oci.client.target import Registry


class Wire(Http):
    """Sends requests to one registry and answers its challenges; for several threads at once.

    Args:
        target: the registry.
        patience: bounds.
    """

    def __init__(self, target: Registry, patience: Patience) -> None:
        super().__init__(target, patience)
        self.target = target
        self._auth = Auth(target, self._fetch)
        self.prepare = self._auth.prepare

    def scrub(self, text: str) -> str:
        """What the registry said in one short line, every secret taken out of it."""
        return self._auth.scrub(text)

    def refusal(self, what: str, answer: Answer) -> RegistryError:
        """The error for an answer that is none of the expected."""
        where = f"{self.target.host} answers {self.scrub(answer.said())}"
        return RegistryError(f"{what} failed", where=where, fix="the registry's answer says why; see its documentation or log")

    def _authorized(self, request: Request) -> Stream:
        if origin(request.url) != self._origin:
            return self.passing(self.open(request))
        for again in (True, False):
            used = self._auth.header(request.scopes)
            stream = self.open(replace(request, headers={**request.headers, **({"Authorization": used} if used else {})}))
            if stream.status not in {401, 403}:
                break
            answer = stream.whole(LARGEST)
            stream.close()
            if stream.status == 401 and again and self._auth.challenged(answer, request.scopes, used):
                continue
            raise refused(self.target.host, self.scrub(answer.said()))
        return self.passing(stream)

    def _fetch(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """For the token server; tried again by whoever wanted the token."""
        give: Callable[[], bytes] | None = (lambda: body) if body else None
        stream = self.open(Request(method, url, headers=headers, body=give))
        try:
            answer = stream.whole(LARGEST)
        finally:
            stream.close()
        if answer.status in PASSING:
            # Its words are not shown: `scrub` waits for who is asking for the token.
            raise TransientError(f"the token server answers {answer.status}", asked_to_wait(answer.headers))
        return answer
