"""Requests to one registry, with the credentials that it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from common.errors import RegistryError
from oci.client.answer import Answer, Stream
from oci.client.auth import Auth, refused
from oci.client.http import LARGEST, PASSING, REDIRECTED, REDIRECTS, Http, Request, origin
from oci.client.patience import Patience, TransientError, UnusableError, asked_to_wait
from oci.client.target import Registry, resolve

# Answers to a HEAD from who does not take that method, or has signed an address for GET alone; or who has a reason to say.
_ASK_BY_GET = frozenset({401, 403, 405, 501})
# The registry cannot read, or does not have, what was asked for: RFC 9110, 15.5.
_ABOUT_IT = frozenset({400, 404, 406, 410, 412, 416, 422, 451})


class Wire(Http):
    """Sends requests to one registry and answers its challenges; for several threads at once.

    Args:
        target: the registry.
        patience: bounds.
        writes: whether the user wants to push.
    """

    # Behind a proxy a registry may not know what it is called outside.
    away = "if that is to be the registry itself, tell it its own address (http.host, or X-Forwarded-Host and -Port)"

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
        fix = "the registry's answer says why; see its documentation or log"
        if origin(answer.url) != self._origin:
            where = f"{self.elsewhere(answer.url)} answers {self.scrub(answer.explanation())}, and gets no login"
            fix = self.away
        if "NAME_UNKNOWN" in answer.codes:
            fix = "there is no such repository: look at the name" + (", or create it there first" if self._writes else "")
        if answer.status in _ABOUT_IT:
            return UnusableError(f"{action} failed", where=where, fix=fix, why=f"the registry answers {answer.status}")
        return RegistryError(f"{action} failed", where=where, fix=fix)

    def _authorized(self, request: Request) -> Stream:
        stream = self._let_in(request)
        if request.method == "HEAD" and stream.status in _ASK_BY_GET:
            # Such an answer has no body: the same question with one tells the reason, or is not refused at all.
            stream.close()
            stream = self._let_in(replace(request, method="GET"))
            stream.bodiless = stream.status < 300
        return self.passing(stream)

    def _let_in(self, request: Request) -> Stream:
        """Send a request with the user's login, where it goes to the registry; a refusal is an error unless it has no body."""
        if origin(request.url) != self._origin:
            return self.open(request)
        for may_retry in (True, False):
            authorization = self._auth.header(request.scopes)
            headers = {**request.headers, **({"Authorization": authorization} if authorization else {})}
            stream = self.open(replace(request, headers=headers))
            if stream.status not in {401, 403}:
                return stream
            answer = stream.whole(LARGEST)
            stream.close()
            if not (stream.status == 401 and may_retry and self._auth.challenged(answer, request.scopes, authorization)):
                break
        if request.method == "HEAD":
            return stream
        words = self.scrub(answer.explanation())
        why = words if stream.status != 401 and answer.beyond_login() else ""
        problem = refused(self.target, words, why=why, writes=self._writes)
        problem.status = stream.status
        raise problem

    def _fetch(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Send a request to the token server, once; whoever needs the token tries again."""
        give_body: Callable[[], bytes] | None = (lambda: body) if body else None
        request, named = Request(method, url, headers=headers, body=give_body), origin(url)
        for _ in range(REDIRECTS):
            stream = self.open(request)
            try:
                answer = stream.whole(LARGEST)
            finally:
                stream.close()
            location = answer.header("Location")
            if body or not location or answer.status not in REDIRECTED:
                break
            url = resolve(self.target.host, request.url, location)
            self._check_tls(url)
            # The login is for the server that the registry named.
            request = replace(request, url=url, headers=headers if origin(url) == named else {})
        if answer.status in PASSING:
            raise TransientError(f"the token server answers {self.scrub(answer.explanation())}", asked_to_wait(answer.headers))
        return answer
