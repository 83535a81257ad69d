"""Requests to one registry, with the credentials that it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from common.errors import RegistryError
from oci.client.answer import Answer, Stream
from oci.client.auth import Auth, refused
from oci.client.http import LARGEST, PASSING, Http, Request, origin
from oci.client.patience import Patience, TransientError, UnusableError, asked_to_wait
from oci.client.target import Registry

# The registry cannot read, or does not have, what was asked for: RFC 9110, 15.5.
_ABOUT_IT = frozenset({400, 404, 406, 410, 412, 416, 422, 451})


class Wire(Http):
    """Sends requests to one registry and answers its challenges; for several threads at once.

    Args:
        target: the registry.
        patience: bounds.
        writes: whether the user wants to push.
    """

    def __init__(self, target: Registry, patience: Patience, *, writes: bool = False) -> None:
        super().__init__(target, patience, more=target.ca)
        self.target, self._writes = target, writes
        self._auth = Auth(target, self._fetch)
        self.prepare = self._auth.prepare

    @property
    def token_lifetime(self) -> float:
        """Seconds that the registry's tokens last; 0 where it gives none."""
        return self._auth.lifetime

    def scrub(self, text: str) -> str:
        """The registry's message as one short line, without any of our secrets."""
        return self._auth.scrub(text)

    def refusal(self, action: str, answer: Answer) -> RegistryError:
        """The error for an unexpected answer; an UnusableError where it is about this one thing alone."""
        where = f"{self.target.host} answers {self.scrub(answer.explanation())}"
        if origin(answer.url) != self._origin:
            where = f"{self.elsewhere(answer.url)} answers {self.scrub(answer.explanation())}, and gets no login"
        fix = "the registry's answer says why; see its documentation or log"
        if "NAME_UNKNOWN" in answer.codes:
            fix = "there is no such repository: look at the name" + (", or create it there first" if self._writes else "")
        if answer.status in _ABOUT_IT:
            return UnusableError(f"{action} failed", where=where, fix=fix, why=f"the registry answers {answer.status}")
        return RegistryError(f"{action} failed", where=where, fix=fix)

    def _with_login(self, request: Request) -> dict[str, str]:
        authorization = self._auth.header(request.scopes)
        return {**request.headers, **({"Authorization": authorization} if authorization else {})}

    def _authorized(self, request: Request) -> Stream:
        if origin(request.url) != self._origin:
            return self.passing(self.open(request))
        for may_retry in (True, False):
            authorization = self._auth.header(request.scopes)
            stream = self.open(replace(request, headers=self._with_login(request)))
            if stream.status not in {401, 403}:
                break
            answer = stream.whole(LARGEST)
            stream.close()
            if stream.status == 401 and may_retry and self._auth.challenged(answer, request.scopes, authorization):
                continue
            if request.method == "HEAD":
                # Its answer has no body: the same question with one tells the reason.
                reason = self.open(replace(request, method="GET", headers=self._with_login(request)))
                answer = reason.whole(LARGEST)
                reason.close()
            words = self.scrub(answer.explanation())
            # Quotas, scanners and rules speak of something else than of who asks.
            plain = stream.status == 401 or not answer.words() or set(answer.codes) <= {"UNAUTHORIZED"}
            problem = refused(self.target, words, why="" if plain else words, writes=self._writes)
            problem.status = stream.status
            raise problem
        return self.passing(stream)

    def _fetch(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Send a request to the token server, once; whoever needs the token tries again."""
        give_body: Callable[[], bytes] | None = (lambda: body) if body else None
        stream = self.open(Request(method, url, headers=headers, body=give_body))
        try:
            answer = stream.whole(LARGEST)
        finally:
            stream.close()
        if answer.status in PASSING:
            # Its message is not shown: `scrub` needs the lock that the thread asking for the token holds.
            raise TransientError(f"the token server answers {answer.status}", asked_to_wait(answer.headers))
        return answer
