"""Whose signatures count: public keys, and identities that sign without a key. A statement of one of them is a statement.

All of them speak together: what one of them says is bad is bad, so that a changed key hides no failure that the old one signed.
A later statement takes the place of an earlier one of the same signer alone (`verify`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from oci.attachments import Attached
from oci.envelope import PublicKey, fingerprint
from registry import keyless
from registry.keyless import Identity, NotVerifiedError


@dataclass(frozen=True, slots=True)
class Trust:
    """Who is trusted.

    Attributes:
        keys: public keys.
        identities: who may sign without a key.
        root: the trust root's file for identities; empty: sigstore's public one.
    """

    keys: tuple[PublicKey, ...] = ()
    identities: tuple[Identity, ...] = ()
    root: str = ""

    def signed(self, item: Attached) -> bool:
        """Whether one of them signed what is attached."""
        return bool(self.signers(item))

    def signers(self, item: Attached) -> frozenset[str]:
        """Those of them that signed what is attached."""
        envelope = item.envelope
        if envelope is None:
            return frozenset()
        if keys := [key for key in self.keys if envelope.holds(key)]:
            return frozenset(map(_name, keys))
        return _by(item.bundle, self.identities, self.root) if self.identities and item.bundle else frozenset()

    def __str__(self) -> str:
        return " or ".join([*map(_name, self.keys), *map(str, self.identities)]) or "nobody"


def of(trusted: PublicKey | Trust) -> Trust:
    """One key as whom to trust."""
    return trusted if isinstance(trusted, Trust) else Trust((trusted,))


def _name(key: PublicKey) -> str:
    return f"key {fingerprint(key)}"


@functools.lru_cache(maxsize=256)
def _by(bundle: bytes, identities: tuple[Identity, ...], root: str) -> frozenset[str]:
    try:
        return frozenset({str(keyless.signer(bundle, identities, root))})
    except NotVerifiedError:
        return frozenset()
