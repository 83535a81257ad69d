"""The base's Debian packages: which versions are locked, chosen by apt itself, and bringing the locked debs into the store."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import requests

from common import console, offline
from common.errors import LockError, MissingEnvironmentError, PinwheelError
from lockfiles import inputs, store
from lockfiles.debian import apt, relations
from lockfiles.debian.apt import Apt, Available, Chosen
from lockfiles.inputs import BaseInput
from lockfiles.model import Artifact, Deb
from lockfiles.python import index
from lockfiles.store import archive, mirror
from lockfiles.store.transfer import UnreachableError


def newer(wanted: BaseInput, locked: Iterable[Deb]) -> int:
    """How many locked debs are there in a newer version that fits the base.

    Raises:
        LockError: apt finds no set of packages for the base; with apt's words.
        MissingEnvironmentError: no apt, no mirror, no network.
    """
    with apt.session(wanted.suites) as session, console.step("looking for newer packages"):
        return _count_newer(session.choose(wanted), locked)


def resolve(
    wanted: BaseInput, locked: tuple[Deb, ...] = (), upgrade: frozenset[str] = frozenset()
) -> tuple[tuple[Deb, ...], int]:
    """Resolve the base: all essential packages, what `base.in` names, and all they depend on.

    A locked version stays where it can. What must move is found by trying: as few source packages as possible are let go. The
    debs of one source package move together, because advisories name source packages.

    Args:
        wanted: `base.in`.
        locked: the debs whose versions stay where that is possible.
        upgrade: names of those that move to their newest version.

    Returns:
        the debs, sorted by name; and how many of them stay although a newer version fits.

    Raises:
        LockError: apt finds no such set, with apt's words; or a locked deb that would stay is gone everywhere.
        MissingEnvironmentError: no apt, no mirror, no network.
    """
    with apt.session(wanted.suites) as session:
        known = session.available()
        by_name = {available.deb.name: available for available in known.values()}

        def source(deb: Deb) -> str:
            available = known.get(deb.artifact.sha256) or by_name.get(deb.name)
            return available.source if available else deb.name

        moving = {source(deb) for deb in locked if deb.name in upgrade or session.misplaced(deb, known)}
        staying = [deb for deb in locked if source(deb) not in moving]
        unlisted = tuple(deb for deb in staying if deb.artifact.sha256 not in known)
        gone = _obtain(session, known, unlisted)
        known |= session.offer(_without(unlisted, gone.debs))
        sources: dict[str, list[Deb]] = {}
        for deb in _without(staying, gone.debs):
            sources.setdefault(source(deb), []).append(deb)
        with console.step("resolving base.in") as notes:
            chosen, newest = _choose(session, wanted, sources)
            notes.append(f"{len(chosen)} debs, {console.size(sum(known[c.sha256].deb.artifact.size for c in chosen.values()))}")
        if still_needed := tuple(deb for deb in gone.debs if deb.name in chosen):
            raise _nowhere(replace(gone, debs=still_needed), by_name)
    debs = {name: known[choice.sha256] for name, choice in sorted(chosen.items())}
    said_of = {name: relations.read(available.fields) for name, available in debs.items()}
    needs = relations.needs(said_of)
    resolved = tuple(replace(debs[n].deb, needs=needs[n], essential=about.essential) for n, about in said_of.items())
    return resolved, _count_newer(newest, resolved)


def _choose(session: Apt, wanted: BaseInput, sources: Mapping[str, list[Deb]]) -> tuple[dict[str, Chosen], dict[str, Chosen]]:
    """What apt chooses while as many source packages as possible stay; and what it would choose if none had to."""

    @functools.cache
    def attempt(released: frozenset[str]) -> dict[str, Chosen] | None:
        try:
            return session.choose(wanted, [deb for name, debs in sources.items() if name not in released for deb in debs])
        except LockError:
            return None

    nothing = frozenset[str]()
    if (chosen := attempt(nothing)) is not None:
        return chosen, attempt(frozenset(sources)) or chosen
    newest = session.choose(wanted)
    others = [name for name, debs in sorted(sources.items()) if _moved(newest, debs)]
    if attempt(frozenset(others)) is None:
        others = sorted(sources)
    released = _fewest(lambda names: attempt(names) is not None, nothing, others)
    chosen = attempt(released)
    assert chosen is not None  # noqa: S101 - what _fewest gives was tried
    return chosen, newest


def _fewest(works: Callable[[frozenset[str]], bool], given: frozenset[str], more: list[str]) -> frozenset[str]:
    """The names of `more` without which it does not work, beside those given (Junker's QuickXplain); with all of them it does.

    A few tries for each name that is found, however many there are.
    """
    if not more or works(given):
        return given
    if len(more) == 1:
        return given | {*more}
    first, second = more[: len(more) // 2], more[len(more) // 2 :]
    needed = _fewest(works, given | {*first}, second) - {*first}
    return _fewest(works, given | needed, first)


def _moved(chosen: Mapping[str, Chosen], debs: Iterable[Deb]) -> list[Deb]:
    """The debs of which apt chose another version."""
    return [deb for deb in debs if deb.name in chosen and chosen[deb.name].sha256 != deb.artifact.sha256]


def _count_newer(newest: Mapping[str, Chosen], debs: Iterable[Deb]) -> int:
    # A mirror that lags behind the lock has older versions.
    return sum(apt.is_newer(newest[deb.name].version, deb.version) for deb in _moved(newest, debs))


def fetch(debs: tuple[Deb, ...]) -> None:
    """Bring the locked debs into the store.

    They are asked for at the user's mirror, at Debian's, and at the archives the user has set. A deb that its suite no longer
    lists is asked for at Debian's once more where its successor lies: mirrors keep a superseded file for a while after the
    list has moved on.

    Raises:
        LockError: a deb is gone everywhere, named, with its successor; or a mirror or an archive has other bytes.
        MissingEnvironmentError: no apt, no network, no disk, or a mirror that serves other bytes than it lists.
    """
    with index.session() as http:
        missing = _only(debs, store.take((deb.artifact for deb in debs), mirror.places(), http))
    if not missing:
        return
    if offline.offline():
        more = f" (and {len(missing) - 1} more debs)" if len(missing) > 1 else ""
        raise MissingEnvironmentError(
            f"{missing[0].name} {missing[0].version}{more} is not in the store, and this run is offline",
            where=f"{missing[0].artifact.file}, sha256 {missing[0].artifact.sha256}",
            fix=offline.FIX,
        )
    with apt.session(inputs.read_base().suites) as session:
        known = session.available()
        gone = _obtain(session, known, missing)
    if gone.debs:
        raise _nowhere(gone, {available.deb.name: available for available in known.values()})


@dataclass(frozen=True, slots=True)
class _Gone:
    """Debs that could not be had.

    Attributes:
        debs: which.
        listed: those that a mirror lists all the same, and the last line of apt's messages.
        refusals: what archives answered that do not work.
    """

    debs: tuple[Deb, ...] = ()
    listed: Mapping[Deb, str] = field(default_factory=dict)
    refusals: tuple[str, ...] = ()


def _obtain(session: Apt, known: Mapping[str, Available], debs: tuple[Deb, ...]) -> _Gone:
    """Bring debs into the store from wherever they can be had; returns those that are nowhere."""
    with index.session() as http:
        debs = _only(debs, store.take((deb.artifact for deb in debs), mirror.places(), http))
        if not debs:
            return _Gone()
        bases, by_name = session.bases(), {available.deb.name: available for available in known.values()}
        with (
            console.step(f"fetching {len(debs)} debs, {console.size(sum(deb.artifact.size for deb in debs))}"),
            tempfile.TemporaryDirectory(prefix="pinwheel-debs-") as scratch,
        ):
            listed = {deb: [known[deb.artifact.sha256].address] for deb in debs if deb.artifact.sha256 in known}
            message = session.download(listed, Path(scratch))
            session.download({deb: _guesses(deb, by_name, bases) for deb in debs if deb not in listed}, Path(scratch))
        pools = {name: pool for name, available in by_name.items() if (pool := _pool(available, bases))}
        debs, refusals = _from_archives(_only(debs, store.missing(deb.artifact for deb in debs)), pools, http)
    return _Gone(debs, dict.fromkeys(listed, message), refusals)


def _only(debs: Iterable[Deb], artifacts: Iterable[Artifact]) -> tuple[Deb, ...]:
    digests = {artifact.sha256 for artifact in artifacts}
    return tuple(deb for deb in debs if deb.artifact.sha256 in digests)


def _without(debs: Iterable[Deb], others: Iterable[Deb]) -> tuple[Deb, ...]:
    left_out = set(others)
    return tuple(deb for deb in debs if deb not in left_out)


def _from_archives(
    debs: tuple[Deb, ...], pools: dict[str, str], http: requests.Session
) -> tuple[tuple[Deb, ...], tuple[str, ...]]:
    """Ask the archives in their order; returns what none has, and the answers of those that do not work."""
    refusals = []
    for place in archive.places(debs, pools):
        try:
            debs = _only(debs, store.take((deb.artifact for deb in debs), (place,), http))
        except UnreachableError as problem:
            # The next one may have it all.
            debs = _only(debs, store.missing(deb.artifact for deb in debs))
            refusals.append(f"{problem.where}: {problem.what}")
    return debs, tuple(refusals)


def _nowhere(gone: _Gone, by_name: Mapping[str, Available]) -> PinwheelError:
    for deb in gone.debs:
        if deb in gone.listed:
            return MissingEnvironmentError(
                f"{deb.name} {deb.version} cannot be fetched, or the mirror's bytes are not those of the lock",
                where="; ".join((f"sha256 {deb.artifact.sha256}", gone.listed[deb], *gone.refusals)),
                fix="check the network, the disk and the mirror",
            )
    first = gone.debs[0]
    successor = by_name[first.name].deb.version if first.name in by_name else "none"
    more = f" and {len(gone.debs) - 1} more" if len(gone.debs) > 1 else ""
    upgrade = "debian" if more else first.name
    return LockError(
        f"{first.name} {first.version}{more} left Debian's mirror (superseded)",
        where="; ".join((f"lockfiles/base.lock, sha256 {first.artifact.sha256}", *gone.refusals)),
        fix=f"`invoke lock --upgrade {upgrade}` takes {first.name} {successor}, "
        f"or name an archive that has the locked one in {archive.VARIABLE}",
    )


def _guesses(deb: Deb, by_name: Mapping[str, Available], bases: tuple[str, ...]) -> list[str]:
    """Where a deb that is listed no more may still lie: in its successor's directory, on each mirror."""
    pool = _pool(by_name[deb.name], bases) if deb.name in by_name else ""
    if not pool:
        return []
    file = deb.artifact.file.replace("+", "%2b").replace("~", "%7e")
    return [f"{base}{area}{pool}/{file}" for base in bases for area in ("pool/", "pool/updates/")]


def _pool(available: Available, bases: tuple[str, ...]) -> str:
    """The folder of a package within its mirror's pool, `main/c/curl`; empty where it lies elsewhere."""
    folder = available.address.rpartition("/")[0]
    base = next((base for base in bases if folder.startswith(base)), None)
    return "" if base is None else folder.removeprefix(base).removeprefix("pool/").removeprefix("updates/")
