"""Who the user is to a registry: nobody, a name and password (RFC 7617), or a token that a server gives for them.

Tokens: distribution's "Token Authentication Specification"
(https://distribution.github.io/distribution/spec/auth/token/) and its OAuth2 form.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode, urlsplit

from common.errors import RegistryError
from oci.client import credentials
from oci.client.answer import Answer
from oci.client.credentials import Credentials
from oci.client.http import Scopes
from oci.client.target import Registry, is_loopback, resolve

# WWW-Authenticate (RFC 9110, 11.6.1): a parameter, a scheme before its parameters, or the one scheme that some write alone.
_LETTER = r"[\w!#$%&'*+.^`|~-]"
_TOKEN = f"(?<!{_LETTER}){_LETTER}++"
_ITEM = re.compile(
    rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]*))|({_TOKEN})(?=\s+{_TOKEN}\s*=)|\b(basic)\b', re.IGNORECASE
)
# The specification's default, and how long before its end a token is no longer used.
_LIFETIME, _MARGIN = 60.0, 5.0


class RefusedError(RegistryError):
    """The registry does not know the user (status 401), or does not let them (403)."""

    status = 0


@dataclass(frozen=True, slots=True)
class _Challenge:
    """How a registry asks for credentials: `realm`, `service` and `scope` only with Bearer."""

    bearer: bool
    realm: str = ""
    service: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    expires: float


class Auth:
    """Answers a registry's challenges; for several threads.

    Args:
        target: the registry; credentials go there, and to the token server it names.
        fetch: sends a request without any credentials of its own: method, address, headers, body.
    """

    def __init__(self, target: Registry, fetch: Callable[[str, str, dict[str, str], bytes], Answer]) -> None:
        self._target, self._fetch = target, fetch
        self._lock = threading.RLock()
        self._credentials: Credentials | RegistryError | None = None
        self._challenge: _Challenge | None = None
        # The scope that the registry named when it refused these scopes: some name their repositories differently.
        self._named_scopes: dict[Scopes, str] = {}
        self._tokens: dict[Scopes, _Token] = {}
        # Seconds that the last token lasts from its making on; 0 without one.
        self.lifetime = 0.0
        # Every token so far: a server may repeat an old one in its messages.
        self._issued: set[str] = set()

    def prepare(self) -> None:
        """Read the user's credentials now, as a helper may be slow; a failure is raised only when they are needed."""
        with self._lock, suppress(RegistryError):
            self._login()

    def header(self, scopes: Scopes) -> str:
        """The Authorization header for a request; empty as long as the registry asked for none.

        Raises:
            RegistryError: the token server refuses or fails.
        """
        with self._lock:
            if self._challenge is None:
                return ""
            if not self._challenge.bearer:
                return f"Basic {self._basic()}" if self._login().username else ""
            token = self._tokens.get(scopes)
            if token is None or token.expires <= time.monotonic():
                token = self._tokens[scopes] = self._request_token(self._challenge, scopes)
            return f"Bearer {token.text}"

    def challenged(self, answer: Answer, scopes: Scopes, authorization: str) -> bool:
        """Take note of a 401. Returns whether the request is worth another try.

        Args:
            answer: the 401 of the registry.
            scopes: of the request.
            authorization: its Authorization header.
        """
        challenge = _challenge(answer.lines("WWW-Authenticate"))
        if challenge is None:
            return False
        with self._lock:
            # Another thread may have got a new token meanwhile: do not throw that one away.
            if (token := self._tokens.get(scopes)) and authorization == f"Bearer {token.text}":
                del self._tokens[scopes]
            self._challenge, self._named_scopes[scopes] = challenge, challenge.scope
            return challenge.bearer or (not authorization and bool(self._login().username))

    def scrub(self, text: str) -> str:
        """A server's message as one short line, without any of our secrets."""
        with self._lock:
            login = self._credentials if isinstance(self._credentials, Credentials) else Credentials()
            secrets = {login.password, login.identity_token, self._basic() if login.password else "", *self._issued}
        # The longest first: one may be a part of another. The text is cut only afterwards, so that no half of a secret stays.
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, "***")
        return re.sub(r"[^ -~]+", " ", text)[:200]

    def _login(self) -> Credentials:
        """The user's credentials, read once; a failure is kept and raised again.

        None where others could read along: what comes by plain HTTP is judged by its digest, a login has nothing like it. The
        answer could also name the token server of somebody who stands in between.
        """
        if self._target.in_the_clear:
            return Credentials()
        if self._credentials is None:
            try:
                self._credentials = credentials.read(self._target.host, self._target.prefix)
            except RegistryError as problem:
                self._credentials = problem
        if isinstance(self._credentials, RegistryError):
            raise self._credentials
        return self._credentials

    def _basic(self) -> str:
        login = self._login()
        return base64.b64encode(f"{login.username}:{login.password}".encode()).decode()

    def _request_token(self, challenge: _Challenge, scopes: Scopes) -> _Token:
        login = self._login()
        realm = urlsplit(resolve(self._target.host, "", challenge.realm))
        # By plain HTTP no login is sent, but on this machine.
        plain = self._target.in_the_clear or (self._target.plain_http and is_loopback(realm.hostname or ""))
        if realm.scheme != "https" and not (realm.scheme == "http" and plain):
            raise RegistryError(
                "the registry sends the user's credentials somewhere without TLS",
                where=self._target.host,
                fix="ask who runs it to mend the realm of its token server",
            )
        token_scopes = tuple(dict.fromkeys([*scopes, *self._named_scopes.get(scopes, "").split()]))
        if login.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": login.identity_token, "client_id": "pinwheel"}
            form |= {"service": challenge.service, "scope": " ".join(token_scopes)}
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._fetch("POST", challenge.realm, headers, urlencode(form).encode())
        else:
            said = [("service", challenge.service)] if challenge.service else []
            query = urlencode([*said, *(("scope", scope) for scope in token_scopes)], quote_via=quote)
            address = f"{challenge.realm}{'&' if realm.query else '?'}{query}"
            headers = {"Authorization": f"Basic {self._basic()}"} if login.username else {}
            answer = self._fetch("GET", address, headers, b"")
        if answer.status in {400, 401, 403}:
            raise refused(self._target, f"the token server answers {self.scrub(answer.explanation())}")
        try:
            body = json.loads(answer.data)
            text = body.get("token") or body["access_token"]
            lifetime = float(body.get("expires_in") or _LIFETIME)
            if not 200 <= answer.status < 300 or not re.fullmatch(r"[!-~]+", text):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            what = f"the token server answers {answer.status} and gives no token"
            fix = "ask who runs the registry whether the realm that it names is right"
            raise RegistryError(what, where=self._target.host, fix=fix) from None
        self._issued.add(text)
        self.lifetime = lifetime
        return _Token(text, time.monotonic() + lifetime - min(_MARGIN, lifetime / 2))


def refused(target: Registry, reason: str, *, why: str = "", writes: bool = False) -> RefusedError:
    """The error of a user that the registry does not let in.

    Args:
        target: the registry.
        reason: its status and words.
        why: its words about more than logging in; a login would not help then.
        writes: whether the user wants to push.
    """
    fix = f"run `docker login {target.host}` as a user who may {'push' if writes else 'read'} there"
    if why:
        fix = "the registry's own words say why; ask who runs it"
    if target.in_the_clear:
        fix = "no login is sent by plain HTTP: give the registry a certificate, or let it ask for none"
    return RefusedError(f"the registry refuses: {reason}", where=target.host, fix=fix)


def _challenge(lines: list[str]) -> _Challenge | None:
    """The challenge to answer: Bearer if there is one, else Basic; None if the registry names neither."""
    challenges: list[tuple[str, dict[str, str]]] = []
    for line in lines:
        for name, quoted, plain, scheme, alone in _ITEM.findall(line):
            if scheme or alone:
                challenges.append(((scheme or alone).lower(), {}))
            elif challenges:
                challenges[-1][1][name.lower()] = re.sub(r"\\(.)", r"\1", quoted) or plain
    for scheme, values in challenges:
        if scheme == "bearer" and values.get("realm"):
            return _Challenge(True, values["realm"], values.get("service", ""), values.get("scope", ""))
    return _Challenge(bearer=False) if any(scheme == "basic" for scheme, _ in challenges) else None
