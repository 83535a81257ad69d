"""Secrets in files that are about to go into an image: private keys, logins, tokens. Says which kind and line, never what.

A finding stops a build, so each rule asks for the form of a real secret, not for a word: a header of a key counts with a key
below it, a token with the length that its issuer gives it. What is plainly a placeholder is none. Archives are not opened.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from common import private_keys

# In JSON, YAML and .properties alike; quotes may be escaped where one document stands in another.
_QUOTE = rb"""(?:\\?["'])?"""
_IS = _QUOTE + rb"\s*[:=]\s*" + _QUOTE
_BASE64 = rb"[A-Za-z0-9+/_-]+={0,2}"
# A value that is filled in later, or that its author made up: too few different characters, or one of these in it.
_MADE_UP = re.compile(
    rb"example|placeholder|change[_-]?me|redacted|your[_-]|my[_-](?:token|password|secret)|dummy|abcdefgh|12345678|xxxx|\.\.\."
    rb"|\*\*\*|[${<>{}%]",
    re.IGNORECASE,
)
_FEWEST_CHARACTERS = 8

# Kind and form of a token that its own prefix gives away.
_TOKENS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(form + rb"(?![A-Za-z0-9_])"))
    for kind, form in (
        ("a token of Hugging Face", rb"hf_[A-Za-z0-9]{34}"),
        ("a token of Hugging Face", rb"api_org_[A-Za-z0-9]{34}"),
        ("a token of GitHub", rb"gh[pousr]_[A-Za-z0-9]{36,251}"),
        ("a token of GitHub", rb"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
        ("a token of GitLab", rb"gl(?:pat|ptt|dt|rt|cbt|soat|ft|agent)-[A-Za-z0-9_-]{20,300}"),
        ("a key of Google's APIs", rb"AIza[A-Za-z0-9_-]{35}"),
        ("a client secret of Google", rb"GOCSPX-[A-Za-z0-9_-]{28}"),
        ("an access token of Google", rb"ya29\.[A-Za-z0-9_-]{60,2048}"),
        ("a token of Slack", rb"xox[abeoprs]-[0-9]+-[A-Za-z0-9-]{16,200}"),
        ("a token of Slack", rb"xapp-[0-9]-[A-Z0-9]+-[0-9]+-[A-Za-z0-9]{32,200}"),
        ("a webhook of Slack", rb"hooks\.slack\.com/services/T[A-Z0-9]+/B[A-Z0-9]+/[A-Za-z0-9]{24}"),
        ("a token of npm", rb"npm_[A-Za-z0-9]{36}"),
        ("a token of PyPI", rb"pypi-AgE[A-Za-z0-9_-]{60,2048}"),
        ("a token of Docker Hub", rb"dckr_(?:pat|oat)_[A-Za-z0-9_-]{27,200}"),
        ("a key of Weights & Biases", rb"wandb_v1_[A-Za-z0-9_]{40,200}"),
        ("a key of Anthropic", rb"sk-ant-[a-z0-9]+-[A-Za-z0-9_-]{80,200}"),
        ("a key of OpenAI", rb"sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,300}"),
        ("a key of OpenAI", rb"sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}"),
    )
)
# Kind and form of a secret that the words before it give away; the last group is the secret.
_NAMED: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    (
        "a secret key of AWS",
        re.compile(
            rb"(?:[sS](?i:ecret_?access_?key)|[aA](?i:ws_?secret(?:_?key)?))" + _IS + rb"([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
        ),
    ),
    ("a key of Weights & Biases", re.compile(rb"[wW](?i:andb[a-z_-]*key)" + _IS + rb"([0-9a-f]{40})(?![0-9a-f])")),
    (
        "a login of npm",
        re.compile(rb"(?m)^[ \t]*(?://[^\s=]+:)?_(?:authToken|auth|password)\s*=\s*" + _QUOTE + rb"([A-Za-z0-9+/=._-]{8,})"),
    ),
    ("a key of an Azure storage account", re.compile(rb"AccountKey=([A-Za-z0-9+/]{86}==)")),
    ("a login of .netrc", re.compile(rb"machine\s+[^\s\"'.]+\.[^\s\"']+\s+login\s+[^\s\"']+\s+password\s+([^\s\"']+)")),
)
_AWS_ID = re.compile(rb"A(?:KI|SI)A[A-Z2-7]{16}(?![A-Z0-9])")
_AWS_SECRET = re.compile(
    rb"(?<![A-Za-z0-9/+=])(?=[A-Za-z0-9/+]*[a-z])(?=[A-Za-z0-9/+]*[A-Z])(?=[A-Za-z0-9/+]*[0-9])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"
)
# So far from an id its secret is looked for, in bytes.
_NEAR = 300
_DOCKER_AUTH = re.compile(rb"auth" + _QUOTE + rb"\s*:\s*" + _QUOTE + rb"(" + _BASE64 + rb")")
_DOCKER_TOKEN = re.compile(rb"(?:identity|registry)token" + _QUOTE + rb"\s*:\s*" + _QUOTE + rb"([^\s\"'\\]{8,})")
_DOCKER_ENCODED = re.compile(rb"\.docker(?:configjson|cfg)" + _IS + rb"([A-Za-z0-9+/\s]{16,}={0,2})")
_KUBE_KEY = re.compile(rb"client-key-data" + _IS + rb"([A-Za-z0-9+/]{40,}={0,2})")
_KUBE_LOGIN = re.compile(rb"^[ \t\"'{,-]*(?:token|password)" + _IS + rb"([^\s\"',}]{8,})", re.MULTILINE)
_KUBE_CONFIG = re.compile(rb"kind" + _IS + rb"Config\b")
_PASSWORD = re.compile(rb"(?:^|\s)password\s*[:=]?\s*(\S+)", re.MULTILINE)
_LOGIN_IN_URL = re.compile(rb"://[^/@:\s]*:([^/@\s]+)@")
# Files that hold nothing but logins, by name.
_LOGINS: dict[str, tuple[str, re.Pattern[bytes]]] = {
    ".netrc": ("a login of .netrc", _PASSWORD),
    "_netrc": ("a login of .netrc", _PASSWORD),
    ".pypirc": ("a login of .pypirc", _PASSWORD),
    ".git-credentials": ("a login of git", _LOGIN_IN_URL),
}


@dataclass(frozen=True, slots=True)
class Secret:
    """What was found, without the secret itself.

    Attributes:
        kind: what it is, for people: `a token of GitHub`.
        line: where it begins, counted from 1.
    """

    kind: str
    line: int


def find(name: str, data: bytes) -> Secret | None:
    """The first secret in a file; None where there is none.

    Args:
        name: of the file, without its folder.
        data: all of it.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        # Text as some editors and shells of Windows write it.
        data = data.decode("utf-16", errors="replace").encode(errors="replace")
    found = [(at, kind) for rule in _RULES for kind, at in rule(data)]
    if name in _LOGINS:
        kind, form = _LOGINS[name]
        found += [(match.start(), kind) for match in form.finditer(data) if not _made_up(match[1], fewest=1)]
    if not found:
        return None
    at, kind = min(found)
    return Secret(kind, data.count(b"\n", 0, at) + 1)


def _made_up(secret: bytes, *, fewest: int = _FEWEST_CHARACTERS) -> bool:
    return len(set(secret)) < fewest or _MADE_UP.search(secret) is not None


def _within_a_word(data: bytes, at: int) -> bool:
    """Whether a letter, a digit or an underscore stands before: a name in a program. A pattern that asks for it is slow."""
    return re.match(rb"\w", data[max(0, at - 1) : at]) is not None


def _tokens(data: bytes) -> Iterator[tuple[str, int]]:
    for kind, form in _TOKENS:
        for match in form.finditer(data):
            if not _within_a_word(data, match.start()) and not _made_up(match[0]):
                yield kind, match.start()


def _named(data: bytes) -> Iterator[tuple[str, int]]:
    for kind, form in _NAMED:
        fewest = 2 if "login" in kind else _FEWEST_CHARACTERS
        yield from ((kind, match.start()) for match in form.finditer(data) if not _made_up(match[1], fewest=fewest))


def _aws(data: bytes) -> Iterator[tuple[str, int]]:
    for match in _AWS_ID.finditer(data):
        around = data[max(0, match.start() - _NEAR) : match.end() + _NEAR]
        if (
            not _within_a_word(data, match.start())
            and not _made_up(match[0])
            and any(not _made_up(secret[0]) for secret in _AWS_SECRET.finditer(around))
        ):
            yield "a key of AWS with its secret", match.start()


def _docker(data: bytes) -> Iterator[tuple[str, int]]:
    kind = "a login of a registry (docker)"
    for match in _DOCKER_AUTH.finditer(data):
        if re.fullmatch(rb"[^:\s\x00-\x1f]+:[^\x00-\x1f]+", _decoded(match[1])):
            yield kind, match.start(1)
    if b"auths" in data:
        yield from ((kind, match.start(1)) for match in _DOCKER_TOKEN.finditer(data) if not _made_up(match[1]))
        if _has_login(data):
            yield kind, data.index(b"auths")
    for match in _DOCKER_ENCODED.finditer(data):
        inner = _decoded(b"".join(match[1].split()))
        if any(True for _ in _docker(inner)):
            yield kind, match.start()


def _has_login(data: bytes) -> bool:
    """Whether a JSON document holds a password for a registry."""
    try:
        body: Any = json.loads(data)
    except (ValueError, RecursionError):
        return False
    auths = body.get("auths") if isinstance(body, dict) else None
    entries = auths.values() if isinstance(auths, dict) else ()
    return any(isinstance(entry, dict) and any(entry.get(key) for key in ("auth", "password")) for entry in entries)


def _kubernetes(data: bytes) -> Iterator[tuple[str, int]]:
    for match in _KUBE_KEY.finditer(data):
        if next(private_keys.find(_decoded(match[1])), None):
            yield "a client key of a kubeconfig", match.start()
    if b"users" in data and _KUBE_CONFIG.search(data):
        for match in _KUBE_LOGIN.finditer(data):
            if not _made_up(match[1], fewest=2):
                yield "a login of a kubeconfig", match.start(1)


def _google(data: bytes) -> Iterator[tuple[str, int]]:
    account = re.search(rb"\"type\\?\"\s*:\s*\\?\"service_account\b", data)
    if account and next(private_keys.find(data), None):
        yield "a key of a Google service account", account.start()


def _decoded(text: bytes) -> bytes:
    """What base64 stands for; empty where it is none."""
    try:
        return base64.b64decode(text.rstrip(b"=") + b"=" * (-len(text.rstrip(b"=")) % 4), altchars=None, validate=True)
    except (binascii.Error, ValueError):
        return b""


_RULES: tuple[Callable[[bytes], Iterator[tuple[str, int]]], ...] = (
    _google,
    _kubernetes,
    _docker,
    _aws,
    _tokens,
    _named,
    private_keys.find,
)
