"""Whose signatures count: public keys, and identities that sign without a key. A statement of one of them is a statement.

All of them speak together: what one of them says is bad is bad, so that a changed key hides no failure that the old one signed.
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
        if item.envelope is None:
            return False
        if any(item.envelope.holds(key) for key in self.keys):
            return True
        return bool(self.identities and item.bundle) and _by(item.bundle, self.identities, self.root)

    def __str__(self) -> str:
        keys = [f"key {fingerprint(key)}" for key in self.keys]
        return " or ".join([*keys, *map(str, self.identities)]) or "nobody"


def of(trusted: PublicKey | Trust) -> Trust:
    """One key as whom to trust."""
    return trusted if isinstance(trusted, Trust) else Trust((trusted,))


@functools.lru_cache(maxsize=256)
def _by(bundle: bytes, identities: tuple[Identity, ...], root: str) -> bool:
    try:
        keyless.signer(bundle, identities, root)
    except NotVerifiedError:
        return False
    return True
