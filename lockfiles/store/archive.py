"""Archives of Debian packages that left the mirrors: addresses that the user configures.

PINWHEEL_DEB_ARCHIVE holds address templates, separated by blanks and asked in their order, such as
`https://archive.example.com/debian/{pool}/{file}`. They may carry credentials and are never shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from common.errors import UsageError
from lockfiles.model import Artifact, Deb
from lockfiles.store.transfer import Place

VARIABLE = "PINWHEEL_DEB_ARCHIVE"
_KNOWN = ("file", "name", "version", "sha256", "pool")


def places(debs: Iterable[Deb], pools: Mapping[str, str]) -> tuple[Place, ...]:
    """The archives that the user has set, in their order.

    Args:
        debs: those that may be asked for.
        pools: the folder of a package on Debian's mirror, by name, as far as it is known: `main/c/curl`.

    Raises:
        UsageError: a template names something that no deb has, or is no address.
    """
    by_content = {deb.artifact.sha256: deb for deb in debs}
    return tuple(
        _place(template, f"address {number} of {VARIABLE}", by_content, pools)
        for number, template in enumerate(os.environ.get(VARIABLE, "").split(), 1)
    )


def _place(template: str, shown: str, debs: Mapping[str, Deb], pools: Mapping[str, str]) -> Place:
    if not template.startswith(("http://", "https://", "file:///")):
        raise UsageError(f"{shown} is no address", fix="it begins with http://, https:// or file:///")
    if strange := set(re.findall(r"\{(\w*)\}", template)) - set(_KNOWN):
        allowed = ", ".join(f"{{{name}}}" for name in _KNOWN)
        raise UsageError(f"{shown} names {{{min(strange)}}}", fix=f"there are {allowed}")

    def locate(artifact: Artifact) -> str:
        deb = debs[artifact.sha256]
        values = {
            "file": artifact.file,
            "name": deb.name,
            "version": deb.version,
            "sha256": artifact.sha256,
            "pool": f"pool/{pools.get(deb.name) or _usual_pool(deb.name)}",
        }
        return re.sub(r"\{(\w+)\}", lambda match: quote(values[match[1]], safe="/" if match[1] == "pool" else ""), template)

    fix = f"check the network and {VARIABLE}"
    return Place(locate, lambda _: shown, fix, f"it serves another file by that name; correct {VARIABLE}")


def _usual_pool(name: str) -> str:
    """Where Debian keeps a package whose source has the same name (Debian's archive layout, "The pool")."""
    return f"main/{name[:4] if name.startswith('lib') else name[:1]}/{name}"
