"""Names of arguments, variables and keys that say that they hold an image (which ones: k8s/prepare/image_texts.py)."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAMED = re.compile(
    r".*images?(?:[._-]?(?:names?|ref(?:erence)?s?|ur[li]s?)|\.repository)?|(?:.*[^a-z0-9])?related_image_.+", re.IGNORECASE
)
# Keys below the key of an image.
_BELOW = {"name", "newname", "ref", "reference", "repository", "uri", "url"}
# What stands at such a name and is none: numbers, modes, paths, addresses, pictures and disks.
NO_IMAGE = re.compile(
    r"|[-+]?[\d.]+|true|false|none|null|auto|always|never|(?:\.{0,2}|~)/.*|(?!docker:|oci:)[a-z][a-z0-9+.-]*:(?://.*|[^/]*,.*)"
    r"|[^:@]+\.(?:png|jpe?g|gif|svg|webp|bmp|tiff?|qcow2|img|iso|raw|vmdk)",
    re.IGNORECASE,
)


def is_image_name(name: str) -> bool:
    """Whether an argument, a variable or a key of this name holds an image."""
    return bool(_NAMED.fullmatch(name))


def part(parent: str, key: str, value: str, beside: Mapping[str, str]) -> str:
    """The image that a value below the key of one names, with its other parts; empty where it names none."""
    if NO_IMAGE.fullmatch(value.strip()) or "\n" in value.strip():
        return ""
    named, key = is_image_name(parent), key.lower()
    if key == "repository":
        return _joined(value, beside) if named or beside.get("tag") or beside.get("digest") else ""
    sure = key in _BELOW - {"name"} or re.fullmatch(r"[\w.-]+/[\w./-]+:[\w.-]+", value)
    return value.strip() if named and (sure or (key == "name" and re.search("[/:@]", value))) else ""


def _joined(repository: str, beside: Mapping[str, str]) -> str:
    """The reference that Helm's values write in parts."""
    written = f"{beside['registry']}/{repository}" if beside.get("registry") else repository
    tag = f":{beside['tag']}" if beside.get("tag") and "@" not in beside["tag"] else ""
    return f"{written}{tag}" + (f"@{beside['digest']}" if beside.get("digest") else "")
