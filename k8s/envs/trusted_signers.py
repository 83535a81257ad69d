"""Whom an environment trusts: public keys, each with the days on which it counts, and identities that sign without a key.

Keys are written as one file, as a list of files, or as a list of mappings: `{file: k8s/keys/2027.pub, from: 2027-01-01, until:
2028-01-31}`. Both days belong to the time; without one it is open at that end. A key is changed without signing anything anew:
the new one is named beside the old one, and the old one gets an end. An identity is `{issuer: …, subject: …}`, see
registry/keyless.py.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common import paths
from common.errors import UsageError
from common.reader import Keys
from oci.envelope import PublicKey
from registry import signer
from registry.keyless import Identity
from registry.trust import Trust


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key.

    Attributes:
        file: where it lies.
        since: the first day on which it counts; None: always.
        until: the last day; None: always.
    """

    file: str
    since: datetime.date | None = None
    until: datetime.date | None = None

    def counts(self, day: datetime.date) -> bool:
        """Whether it is trusted on a day."""
        return (self.since is None or self.since <= day) and (self.until is None or day <= self.until)


def parse(keys: Keys, name: str) -> tuple[TrustedKey, ...]:
    """Read the keys at one key of an environment.

    Args:
        keys: the mapping that holds it.
        name: of the key in that mapping.

    Raises:
        UsageError: something else stands there.
    """
    written = keys.body.get(name)
    if written is None:
        raise keys.refused(name, "missing")
    if isinstance(written, str):
        return (TrustedKey(str(paths.ROOT / keys.text(name))),)
    if not isinstance(written, list) or not written:
        raise keys.refused(name, "name the file of a public key, or a list of them")
    keys.body[name] = [{"file": entry} if isinstance(entry, str) else entry for entry in written]
    found = []
    for entry in keys.each(name):
        file, since, until = entry.text("file"), _day(entry, "from"), _day(entry, "until")
        entry.end()
        if since and until and until < since:
            raise entry.refused("until", f"{until} is before {since}")
        found.append(TrustedKey(str(paths.ROOT / file), since, until))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Signers:
    """Whose signatures an environment trusts.

    Attributes:
        keys: each with its days.
        identities: who may sign without a key.
        root: the trust root's file for identities; empty: sigstore's public one.
    """

    keys: tuple[TrustedKey, ...] = ()
    identities: tuple[Identity, ...] = ()
    root: str = ""

    def named(self) -> str:
        """For people: files and identities."""
        return ", ".join([*(paths.shown(Path(key.file)) for key in self.keys), *map(str, self.identities)]) or "none"

    def trust(self, where: str, fix: str = "") -> Trust:
        """Those that count today.

        Args:
            where: the environment's file, for the error message.
            fix: what to do about a key that cannot be read; default: in the words of what reads it.

        Raises:
            UsageError: a key cannot be read, or nobody counts today.
        """
        try:
            keys = public_keys(self.keys, where) if self.keys else ()
        except UsageError as problem:
            raise UsageError(problem.what, where=problem.where, fix=fix or problem.fix) from None
        return Trust(keys, self.identities, self.root)


def signers(keys: Keys) -> Signers:
    """Read `key`, `identities` and `trust-root` of a mapping: at least one of the first two.

    Raises:
        UsageError: something else stands there.
    """
    found = []
    for entry in keys.each("identities"):
        found.append(Identity(entry.text("issuer"), entry.text("subject")))
        entry.end()
    trusted = parse(keys, "key") if "key" in keys or not found else ()
    root = keys.text("trust-root") if "trust-root" in keys else ""
    return Signers(trusted, tuple(found), str(paths.ROOT / root) if root else "")


def public_keys(trusted: Iterable[TrustedKey], where: str) -> tuple[PublicKey, ...]:
    """The keys that count today.

    Args:
        trusted: as the environment names them.
        where: the environment's file, for the error message.

    Raises:
        UsageError: one cannot be read, or none counts today.
    """
    named = tuple(trusted)
    today = datetime.datetime.now(datetime.UTC).date()
    valid = tuple(signer.public_key(key.file) for key in named if key.counts(today))
    if named and not valid:
        raise UsageError(f"none of its {len(named)} keys counts today, {today}", where=where, fix="name a key that does")
    return valid


def _day(keys: Keys, name: str) -> datetime.date | None:
    written = keys.body.pop(name, None)
    if written is None:
        return None
    try:
        # YAML reads a day without quotes as text here: the strict reader makes no dates.
        return datetime.date.fromisoformat(str(written))
    except ValueError:
        raise keys.refused(name, f"{written!r} is no day", "write it as 2027-01-31") from None
