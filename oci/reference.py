"""Digests and image references.

Grammar: OCI distribution spec 1.1 ("Pulling manifests") and the reference grammar of distribution/reference, restricted to
sha256, the one algorithm Pinwheel writes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")


def check_digest(text: str) -> str:
    """Return `text` if it is a digest `sha256:<64 lower-case hex>`.

    Raises:
        ValueError: it is not.
    """
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"not a sha256 digest: {text!r}")
    return text


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image reference as people write it.

    Attributes:
        registry: host with optional port; empty when the reference names none (`debian:12`).
        repository: path within the registry.
        tag: empty when absent.
        digest: `sha256:…`, empty when absent.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> ImageRef:
        """Parse a reference.

        As Docker does, the first component is a host only when it holds a dot or a colon, or is `localhost`.

        Raises:
            ValueError: not a reference.
        """
        rest, at, digest = text.partition("@")
        if at:
            check_digest(digest)
        head, slash, tail = rest.partition("/")
        registry = ""
        if slash and ("." in head or ":" in head or head == "localhost"):
            registry, rest = head, tail
        name, colon, tag = rest.rpartition(":")
        if not colon:
            name, tag = rest, ""
        elif not _TAG.fullmatch(tag):
            raise ValueError(f"not an image reference (tag): {text!r}")
        port = registry.rpartition(":")[2] if re.search(r":[0-9]+$", registry) else "1"
        if registry and not (_HOST.fullmatch(registry) and 0 < int(port) < 65536):
            raise ValueError(f"not an image reference (host): {text!r}")
        if not _REPOSITORY.fullmatch(name) or len(name) > 255:
            raise ValueError(f"not an image reference (repository): {text!r}")
        return cls(registry, name, tag, digest)

    @classmethod
    def in_registry(cls, text: str, *, pinned: bool) -> ImageRef:
        """Parse `host/path`, or where it must be pinned `host/path@sha256:…`; no tag, and no reference without a host.

        Raises:
            ValueError: it is no such reference.
        """
        form = "registry/path@sha256:<64 hex digits>" if pinned else "registry/path"
        try:
            ref = cls.parse(text)
        except ValueError:
            raise ValueError(f"not a reference of the form {form}: {text[:300]!r}") from None
        if not ref.registry or ref.tag or ref.pinned != pinned:
            raise ValueError(f"not a reference of the form {form}: {text[:300]!r}")
        return ref

    def __str__(self) -> str:
        text = f"{self.registry}/{self.repository}" if self.registry else self.repository
        if self.tag:
            text += f":{self.tag}"
        if self.digest:
            text += f"@{self.digest}"
        return text

    @property
    def pinned(self) -> bool:
        """Whether the reference names a digest."""
        return bool(self.digest)

    def pin(self, digest: str) -> ImageRef:
        """The same repository at `digest`, without a tag: the digest alone says what runs.

        Raises:
            ValueError: `digest` is no digest.
        """
        return ImageRef(self.registry, self.repository, "", check_digest(digest))


def short(digest: str) -> str:
    """The first twelve hex digits, enough for a person to compare."""
    return digest.removeprefix("sha256:")[:12]
