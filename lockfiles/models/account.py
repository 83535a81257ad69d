"""Who the user is to the hub: HF_ENDPOINT, HF_TOKEN and the hub's own token file, read as huggingface_hub reads them.

The token goes to the endpoint alone: no redirect, message or lock carries it further.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from common.errors import MissingEnvironmentError

_DEFAULT = "https://huggingface.co"


def endpoint() -> str:
    """The user's hub.

    Raises:
        MissingEnvironmentError: HF_ENDPOINT is no web address; it is not shown, for it may carry credentials.
    """
    address = os.environ.get("HF_ENDPOINT", "").rstrip("/") or _DEFAULT
    try:
        if urlsplit(address).scheme in {"http", "https"} and urlsplit(address).hostname and (urlsplit(address).port or True):
            return address
    except ValueError:
        pass
    raise MissingEnvironmentError("HF_ENDPOINT is no web address", fix=f"write it as https://host/path, default {_DEFAULT}")


def session() -> requests.Session:
    """An HTTP session with the user's proxies, certificates and netrc, and for the endpoint alone the user's token.

    Raises:
        MissingEnvironmentError: HF_ENDPOINT or the token is malformed.
    """
    address, secret = endpoint(), _token()
    own = requests.Session()
    own.headers["User-Agent"] = "pinwheel"
    # The hub compresses text on the way: then neither sizes nor ranges are the file's own.
    own.headers["Accept-Encoding"] = "identity"
    if secret:
        own.auth = _Token(secret, address)
    return own


class _Token(AuthBase):
    """Sends the token to the endpoint; on a redirect to another host requests takes it away again."""

    def __init__(self, secret: str, address: str) -> None:
        self._secret, self._origin = secret, _origin(address)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if _origin(request.url or "") == self._origin:
            request.headers["Authorization"] = f"Bearer {self._secret}"
        return request


def _token() -> str:
    """The user's token for the hub, or nothing."""
    if os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return ""
    secret = (os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or "").strip()
    if not secret:
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
        file = Path(os.path.expandvars(os.environ.get("HF_TOKEN_PATH") or f"{home}/token")).expanduser()
        try:
            secret = file.read_text().strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError):
            raise MissingEnvironmentError("your hub's token file cannot be read", where=str(file), fix="mend it") from None
    # requests would refuse it too, and show it.
    if not re.fullmatch(r"[!-~]+", secret):
        raise MissingEnvironmentError("your hub's token holds blanks or other odd characters", fix="mend HF_TOKEN")
    return secret


def _origin(address: str) -> tuple[str, str, int]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
