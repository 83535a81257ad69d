"""Which manifests name another one as their subject (OCI distribution spec 1.1, "Listing Referrers")."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from common.errors import RegistryError
from oci.client.answer import Answer
from oci.client.target import resolve

# The most pages that are asked for; each must list something.
_PAGES = 50
# Beside 4xx, of which the specification names 404, what registries answer that lack the referrers API.
_ABSENT = frozenset({204, 501, 505})


class UnreadableError(Exception):
    """The registry answers with something else than a list."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__()


def read(ask: Callable[[str], Answer], host: str, repository: str, digest: str, most: int) -> list[dict[str, Any]] | None:
    """Descriptors of the manifests whose subject is this one, of all pages.

    Args:
        ask: gets an address of the registry.
        host: of the registry.
        repository: the whole path within it.
        digest: of the subject.
        most: how many there may be. A longer list is refused, never cut: its end may hold the one that matters.

    Returns:
        None where the registry lacks the API, or answers its address with a web page, or with nothing, as some do.

    Raises:
        UnreadableError: it answers with something else than a list.
        RegistryError: it does not answer, or lists more.
    """
    descriptors: list[dict[str, Any]] = []
    url = f"/v2/{repository}/referrers/{digest}"
    for page in range(_PAGES):
        answer = ask(url)
        if not page and (answer.status in _ABSENT or 300 <= answer.status < 500):
            return None
        body = _json(answer) if answer.status == 200 else None
        if answer.status == 200 and not page and (body is None or (isinstance(body, dict) and body.get("manifests") is None)):
            return None
        listed = body.get("manifests") if isinstance(body, dict) else None
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise UnreadableError(answer)
        descriptors += listed
        following = _next(answer)
        if len(descriptors) > most or (following and not listed):
            break
        if not following:
            return descriptors
        url = resolve(host, answer.url, following)
    raise RegistryError(
        f"more than {most} manifests refer to one image, or pages without end",
        where=f"{host}/{repository}@{digest}",
        fix="remove what does not belong there: none of it is passed over",
    )


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.data)
    except (ValueError, RecursionError):
        return None


def _next(answer: Answer) -> str:
    """The address of the next page: the Link header (RFC 8288) with the relation `next`; empty after the last page."""
    for target, parameters in re.findall(r"<([^>]*)>([^<]*)", ",".join(answer.lines("Link"))):
        relations = re.findall(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s;,]+))", parameters, re.IGNORECASE)
        if any("next" in (quoted or plain).lower().split() for quoted, plain in relations):
            return str(target).strip()
    return ""
