"""The user's credentials for a registry in Docker's config.json (docs.docker.com, "docker login", "Credential stores").

The file is `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`. DOCKER_AUTH_CONFIG may hold the same text, as CI systems
have it, and is looked at first. As Docker does, a registry's helper in `credHelpers`, else the store in `credsStore`, is asked
before its entry in `auths` counts. An entry's name may be an address, or have a path below the host, as Kubernetes has it: the
longest that fits counts.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import RegistryError

# May hold the text of Docker's configuration.
VARIABLE = "DOCKER_AUTH_CONFIG"
# Seconds for a credential helper, which may ask the user to unlock something.
_HELPER = 120.0
# What helpers print when they have no credentials (docker-credential-helpers, credentials/error.go).
_NOTHING = "credentials not found"
# Docker Hub has several names, and its entry an old address.
_HUB = "docker.io"
_HUB_NAMES = frozenset({_HUB, "index.docker.io", "registry-1.docker.io"})
_HUB_ENTRY = "https://index.docker.io/v1/"
# Beginnings of the variables that a credential helper gets: where its own store is, and how that is reached. None else.
_PASSED_ON = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_", "TMPDIR", "WSL", "XDG_", "DBUS_SESSION_", "DISPLAY", "WAYLAND_DISPLAY"),
    *("DOCKER_CONFIG", "GNUPGHOME", "GPG_TTY", "PASSWORD_STORE_", "AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "SSL_CERT_"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The user's credentials for one registry, as Docker keeps them; all empty where it has none."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def file() -> Path:
    """Where Docker's configuration lies."""
    folder = os.environ.get("DOCKER_CONFIG", "")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def read(host: str, path: str = "") -> Credentials:
    """The user's credentials for a registry.

    Args:
        host: of the registry, with its port.
        path: within the registry, that an entry's name may narrow it down to.

    Raises:
        RegistryError: Docker's configuration or a credential helper does not work.
    """
    text = os.environ.get(VARIABLE, "")
    if text and (credentials := _parse(text, host, path, f"{host} in {VARIABLE}")) != Credentials():
        return credentials
    where = f"{host} in {file()}"
    try:
        # Editors on Windows put a mark at the beginning.
        text = file().read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return Credentials()
    except (OSError, UnicodeDecodeError) as problem:
        raise _unreadable(host, where, problem) from None
    return _parse(text, host, path, where)


def _parse(text: str, host: str, path: str, where: str) -> Credentials:
    """The user's credentials by the text of one configuration; asks its credential helper."""
    try:
        # An empty file says nothing, also to Docker.
        body = json.loads(text.strip() or "{}")
        helpers = {_compared(name): named for name, named in (body.get("credHelpers") or {}).items()}
        helper = str(helpers.get(_compared(host), body.get("credsStore")) or "")
        key, entry = _entry(body.get("auths") or {}, host, path)
    except (ValueError, TypeError, AttributeError, RecursionError) as problem:
        raise _unreadable(host, where, problem) from None
    # Docker leaves an empty entry where a store keeps the login. An entry with a login counts where the store has none.
    if not helper or (entry != Credentials() and not shutil.which(f"docker-credential-{helper}")):
        return entry
    # A store keeps a login under the name that the user logged in by.
    own = _HUB_ENTRY if _compared(host) == _HUB else host
    for address in dict.fromkeys([own, key or own]):
        if (credentials := _ask_helper(helper, address, host, where)) != Credentials():
            return credentials
    return entry


def _compared(name: str) -> str:
    """A registry's name as it is compared: no scheme, version of the API or default port, the host in small letters."""
    host, slash, path = re.sub(r"^https?://|/+(v[12])?/*$", "", name, flags=re.IGNORECASE).partition("/")
    host = host.lower().removesuffix(":443")
    return f"{_HUB if host in _HUB_NAMES else host}{slash}{path}"


def _unreadable(host: str, where: str, problem: Exception) -> RegistryError:
    # The error's own text is not shown: it may hold secrets.
    what = f"your Docker credentials cannot be read: {type(problem).__name__}"
    return RegistryError(what, where=where, fix=f"mend it, or run `docker login {host}` again")


def _entry(entries: dict[str, Any], host: str, path: str) -> tuple[str, Credentials]:
    """The entry that fits best: its name, and what it holds; both empty where none does."""
    place = f"{_compared(host)}/{path}".rstrip("/") + "/"
    fitting = [key for key in entries if place.startswith(f"{_compared(key)}/")]
    if not fitting:
        return "", Credentials()
    # Of several spellings of one place, one that holds a login; of these, the one that is written as we ask.
    key = max(fitting, key=lambda key: (len(_compared(key)), bool(entries[key]), key == host))
    entry = entries[key] or {}
    try:
        # Some programs break long lines.
        decoded = base64.b64decode("".join((entry.get("auth") or "").split()), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as problem:
        raise ValueError(type(problem).__name__) from None
    user, colon, password = decoded.partition(":")
    if decoded and not colon:
        raise ValueError("no colon")
    # Docker before version 1.7 ended passwords with zero bytes.
    password = entry.get("password") or password.rstrip("\0")
    return key, Credentials(entry.get("username") or user, password, entry.get("identitytoken") or "")


def _ask_helper(helper: str, address: str, host: str, where: str) -> Credentials:
    """The user's credentials by a credential helper (github.com/docker/docker-credential-helpers, "Development")."""
    program = f"docker-credential-{helper}"
    fix = f"mend it, or run `docker login {host}` again"
    try:
        own = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        result = subprocess.run(
            [program, "get"], env=own, input=address, capture_output=True, text=True, timeout=_HELPER, check=False
        )
    except FileNotFoundError:
        what = f"your credential helper {program} is not installed"
        login = f"run `docker login {host}` again"
        raise RegistryError(what, where=where, fix=f"install it, or take it out of that configuration and {login}") from None
    except subprocess.TimeoutExpired:
        what = f"your credential helper {program} gives no answer within {_HELPER:.0f} s"
        raise RegistryError(what, where=where, fix=fix) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise RegistryError(f"your credential helper {program} cannot be run: {problem}", where=where, fix=fix) from None
    if result.returncode:
        if _NOTHING in result.stdout + result.stderr:
            return Credentials()
        # Not shown: its output may hold secrets.
        raise RegistryError(f"your credential helper {program} ends with code {result.returncode}", where=where, fix=fix)
    try:
        # Some print warnings first.
        answer, _ = json.JSONDecoder().raw_decode(result.stdout, result.stdout.find("{"))
        user, secret = answer["Username"], answer["Secret"]
        if not isinstance(user, str) or not isinstance(secret, str):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        what = f"your credential helper {program} answers, but not with credentials"
        raise RegistryError(what, where=where, fix=fix) from None
    return Credentials(identity_token=secret) if user == "<token>" else Credentials(user, secret)
