"""What the user's own uv and pip settings say: which indexes there are, their logins, and whose certificates are trusted.

Read in uv's way first (its variables, then uv.toml), then in pip's. Addresses are kept without the logins that may stand in
them: a login is sent to its index alone, and shown nowhere.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from common import paths, pip
from common.errors import MissingEnvironmentError
from lockfiles.inputs import DEFAULT

# In the order in which requests reads them; the last two are uv's and pip's own.
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT")
_SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Index:
    """A package index of the user's.

    Attributes:
        name: as uv's settings call it; empty for one that has no name there.
        url: of its simple interface, without a login.
        said: which setting names it, for messages.
        login: user and password for it; never shown.
    """

    name: str
    url: str
    said: str
    login: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def called(self) -> str:
        """As messages name it: never by its address."""
        return f"your index {self.name}" if self.name else "your index"

    def covers(self, address: str) -> bool:
        """Whether an address lies on the same server."""
        return _origin(address) == _origin(self.url)


def default() -> Index:
    """The index that is asked for whatever [sources] does not give another one.

    UV_DEFAULT_INDEX, UV_INDEX_URL, uv.toml, then pip's configuration (PIP_INDEX_URL and its files), else the one pip itself
    would ask.

    Raises:
        MissingEnvironmentError: the configuration cannot be read; another index than the user's is never asked instead.
    """
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if value := os.environ.get(variable):
            return _index(value, variable)
    for file, body in _uv_files():
        for entry in body.get("index", []):
            if entry.get("default") is True:
                return _entry(entry, file)
        if value := body.get("index-url") or body.get("pip", {}).get("index-url"):
            return _index(value, file)
    if found := _pip("index-url"):
        return replace(_index(found[0], "your pip configuration"), name="")
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    return Index("", PYPI_SIMPLE_ENDPOINT, "")


def further() -> tuple[Index, ...]:
    """The other indexes that the settings name; asked only for what [sources] of an input takes from them.

    Raises:
        MissingEnvironmentError: the configuration cannot be read.
    """
    found: list[Index] = []
    for variable in ("UV_INDEX", "UV_EXTRA_INDEX_URL"):
        found += [_index(value, variable) for value in os.environ.get(variable, "").split()]
    for file, body in _uv_files():
        found += [_entry(entry, file) for entry in body.get("index", []) if entry.get("default") is not True]
        for table in (body, body.get("pip", {})):
            found += [_index(value, file) for value in table.get("extra-index-url", [])]
    said = "PIP_EXTRA_INDEX_URL" if os.environ.get("PIP_EXTRA_INDEX_URL") else "your pip configuration"
    found += [replace(_index(value, said), name="") for value in _pip("extra-index-url")]
    main = default()
    distinct: dict[str, Index] = {}
    for index in found:
        # Of one name, and of one address, what is said first counts, as in uv; a name is worth more than none.
        if index.url != main.url and index.name not in {other.name for other in distinct.values() if other.name}:
            known = distinct.get(index.url)
            distinct[index.url] = index if known is None or not known.name else known
    return tuple(distinct.values())


def named(name: str) -> Index:
    """The index that [sources] of an input means by a name.

    Raises:
        MissingEnvironmentError: the settings know no such name, or cannot be read.
    """
    main = default()
    if name == DEFAULT or name == main.name:
        return main
    for index in further():
        if index.name == name:
            return index
    raise MissingEnvironmentError(
        f"your configuration has no index {name}",
        fix=f'set UV_INDEX="{name}=ADDRESS", or write [[index]] with its name and url in ~/.config/uv/uv.toml; '
        f"its login goes into {login_variables(name)}, or into netrc",
    )


def login_variables(name: str) -> str:
    """The variables that hold the login of an index, for messages."""
    return f"UV_INDEX_{_variable(name)}_USERNAME and UV_INDEX_{_variable(name)}_PASSWORD"


def find_links() -> str:
    """Which setting names folders or pages of files beside the indexes, which are never looked at; empty for none."""
    for variable in ("UV_FIND_LINKS", "PIP_FIND_LINKS"):
        if os.environ.get(variable):
            return variable
    for file, body in _uv_files():
        if body.get("find-links") or body.get("pip", {}).get("find-links"):
            return file
    return "your pip configuration" if _pip("find-links") else ""


def bundle() -> str:
    """The file or folder of certificates that the user trusts instead of the built-in ones; empty for those.

    Raises:
        MissingEnvironmentError: a setting names one that is not there.
    """
    for variable in _BUNDLES:
        if value := os.environ.get(variable):
            return _there(value, variable)
    on = {"1", "true", "yes", "on"}
    if any(os.environ.get(variable, "").lower() in on for variable in ("UV_NATIVE_TLS", "UV_SYSTEM_CERTS")):
        return str(_SYSTEM_BUNDLE) if _SYSTEM_BUNDLE.exists() else ""
    found = _pip("cert")
    return _there(found[0], "your pip configuration") if found else ""


def uv_logins(indexes: tuple[Index, ...]) -> dict[str, str]:
    """The logins of indexes as variables that uv reads; nothing else may carry them to it."""
    found: dict[str, str] = {}
    for index in indexes:
        if index.name and index.login:
            variable = f"UV_INDEX_{_variable(index.name)}"
            found |= {f"{variable}_USERNAME": index.login[0], f"{variable}_PASSWORD": index.login[1]}
    return found


def with_login(index: Index) -> str:
    """The address with its login in it, for the one variable of uv's that takes no login beside it."""
    if index.login is None:
        return index.url
    parts = urlsplit(index.url)
    user, password = (quote(part, safe="") for part in index.login)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc}"))


def _there(value: str, said: str) -> str:
    if Path(value).exists():
        return value
    raise MissingEnvironmentError(f"{said} names no file of certificates", where=value, fix="correct it, or take it away")


def _index(value: str, said: str) -> Index:
    """An index from uv's `NAME=ADDRESS` or an address alone."""
    name, equals, address = value.partition("=")
    if not (equals and _NAME.fullmatch(name)):
        name, address = "", value
    address = address.strip()
    try:
        parts = urlsplit(address)
        login = (unquote(parts.username or ""), unquote(parts.password or "")) if "@" in parts.netloc else None
        good = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or True)
    except ValueError:
        good = False
    if not good:
        # It is not shown, for it may carry a login.
        raise MissingEnvironmentError(f"{said} names no index", fix="write its address as https://host/path/simple")
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return Index(name, bare, said, _login(name) or login)


def _entry(entry: dict[str, Any], file: str) -> Index:
    name = entry.get("name", "")
    return _index(f"{name}={entry.get('url', '')}" if name else str(entry.get("url", "")), file)


def _login(name: str) -> tuple[str, str] | None:
    user, password = (os.environ.get(f"UV_INDEX_{_variable(name)}_{part}", "") for part in ("USERNAME", "PASSWORD"))
    return (user, password) if name and (user or password) else None


def _variable(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _origin(address: str) -> tuple[str, str, int | None]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _uv_files() -> list[tuple[str, dict[str, Any]]]:
    """Uv's settings files, the one that counts more first (uv's documentation, "Configuration files")."""
    if os.environ.get("UV_NO_CONFIG", "").lower() in {"1", "true"}:
        return []
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    files = [paths.ROOT / "uv.toml", home / "uv/uv.toml", Path("/etc/uv/uv.toml")]
    if own := os.environ.get("UV_CONFIG_FILE"):
        files = [Path(own)]
    found = []
    for file in files:
        try:
            body = tomllib.loads(file.read_text())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as problem:
            said = f"your uv configuration cannot be read: {type(problem).__name__}"
            raise MissingEnvironmentError(said, where=str(file), fix="mend it") from None
        indexes = body.get("index", [])
        if not isinstance(indexes, list) or not all(isinstance(entry, dict) for entry in indexes):
            raise MissingEnvironmentError("your uv configuration has an odd `index`", where=str(file), fix="write [[index]]")
        found.append((paths.shown(file), body))
    return found


def _pip(key: str) -> list[str]:
    """The values of a setting of pip's, its variable first."""
    try:
        value = pip.settings("install").get(key, "")
    except ValueError as problem:
        raise MissingEnvironmentError(f"your pip configuration cannot be read: {problem}", fix="mend it") from None
    return [value] if key == "cert" and value else value.split()
