"""What was signed without a key: an identity of an OIDC login, vouched for by Fulcio's certificate and Rekor's log entry.

Verified by sigstore's own library, offline: nothing is asked of any service, and no trust root is fetched. The trust root is
the public one that the library brings (locked by hash like all of it), or a file of your own (`TrustedRoot` of sigstore's
protobuf-specs).
Read are bundles of version 0.3 (application/vnd.dev.sigstore.bundle.v0.3+json), which cosign 3 and GitHub's attestations write.
"""

from __future__ import annotations

import functools
import importlib.resources
import logging
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common import paths
from common.errors import UsageError

_PUBLIC = "https://tuf-repo-cdn.sigstore.dev"


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """Who may sign without a key.

    Attributes:
        issuer: the OIDC issuer, a URI: `https://token.actions.githubusercontent.com`.
        subject: exactly what the certificate says: a mail address, or a workflow's URI with its ref.
    """

    issuer: str
    subject: str

    def __str__(self) -> str:
        return f"{self.subject} of {self.issuer}"


class NotVerifiedError(Exception):
    """Why a bundle does not speak for an identity."""


def signer(bundle: bytes, identities: Iterable[Identity], root: str = "") -> Identity:
    """Which of the identities signed a bundle.

    Args:
        bundle: JSON.
        identities: who may sign.
        root: the trust root's file; empty: the public one.

    Raises:
        NotVerifiedError: none of them did, or the bundle does not hold by this trust root.
        UsageError: the trust root cannot be read.
    """
    # Half a second to import: only who names identities pays for it.
    from sigstore.errors import Error
    from sigstore.models import Bundle
    from sigstore.verify import Verifier, policy

    trusted = _root(root)
    reasons = []
    try:
        verifier = Verifier(trusted_root=trusted)
        parsed = Bundle.from_json(bundle)
        for identity in identities:
            try:
                verifier.verify_dsse(parsed, policy.Identity(identity=identity.subject, issuer=identity.issuer))
            except Error as problem:
                reasons.append(str(problem))
                continue
            return identity
    except Exception as problem:  # noqa: BLE001 - a stranger wrote the bundle, and the library lets many errors of others through
        raise NotVerifiedError(_brief(str(problem) or type(problem).__name__)) from None
    raise NotVerifiedError(_brief(reasons[-1]) if reasons else "no identity is asked for")


@functools.lru_cache(maxsize=4)
def _root(file: str):  # type: ignore[no-untyped-def]
    from sigstore.models import TrustedRoot

    # The library warns about what it then refuses.
    logging.getLogger("sigstore").setLevel(logging.ERROR)
    if file:
        try:
            return TrustedRoot.from_file(file)
        except Exception as problem:  # noqa: BLE001 - whatever is wrong with the file is the user's to mend
            fix = "give a TrustedRoot of sigstore in JSON, as `cosign trusted-root create` writes it"
            raise UsageError(f"no trust root: {_brief(str(problem))}", where=paths.shown(Path(file)), fix=fix) from None
    brought = importlib.resources.files("sigstore") / "_store" / urllib.parse.quote(_PUBLIC, safe="") / "trusted_root.json"
    with importlib.resources.as_file(brought) as path:
        return TrustedRoot.from_file(str(path))


def _brief(text: str) -> str:
    return " ".join(text.split())[:300]
