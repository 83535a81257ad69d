"""The set of a recorded release, read strictly: what Pinwheel did not write is refused."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from common.errors import MissingEnvironmentError, PolicyError
from k8s.envs.environment import Environment
from k8s.objects import findings, manifests
from k8s.objects.findings import Finding
from k8s.objects.manifests import Manifest
from k8s.prepare import checked, pin
from k8s.prepare.rendered import Pin, RenderedSet
from k8s.rollouts import release
from k8s.rollouts.release import History, Release
from oci.reference import ImageRef


def place_of(history: History, recorded: Release) -> str:
    """Where the set of a release stands, for messages."""
    return f"release {recorded.number}, ConfigMap {history.namespace}/{release.NAME}"


def read_set(history: History, recorded: Release, env: Environment) -> RenderedSet:
    """The set of a release, ready to be sent.

    Args:
        history: the record.
        recorded: a release of it.
        env: its environment.

    Raises:
        MissingEnvironmentError: the set is neither in the record nor on this machine.
        PolicyError: the set is no longer what Pinwheel wrote.
    """
    text = history.set_text(recorded)
    place = place_of(history, recorded)
    if text is None:
        fix = f"it was too large for the record: roll back on the machine of {recorded.who}"
        raise MissingEnvironmentError("the set of this release is not here", where=place, fix=fix)
    objects = objects_in(text, place)
    titles = {manifest.identity: manifest.title for manifest in objects}
    pins = []
    for (identity, path), reference in sorted(pin.images(objects, env.kubernetes).items(), key=str):
        try:
            pinned = ImageRef.parse(reference)
        except ValueError:
            pinned = None
        if pinned is None or not pinned.pinned:
            what = f"{titles[identity]} runs {reference} at {findings.shown(path)}, which is no digest"
            raise PolicyError(f"the set in the release record was edited: {what}", where=place, fix="do not use it")
        pins.append(Pin(titles[identity], identity, path, reference, pinned))
    return RenderedSet(objects, tuple(pins), ())


def sendable(recorded: RenderedSet, env: Environment, namespaces: AbstractSet[str], place: str) -> RenderedSet:
    """The set again, if it may be sent today: what applies a recorded set trusts its signature, and no more than today's rules.

    Args:
        recorded: the set.
        env: its environment.
        namespaces: those of the set in git; a recorded set reaches no others.
        place: where it stands, for messages.

    Raises:
        PolicyError: a rule refuses it now.
    """
    for manifest in recorded.objects:
        reached = manifest.name if manifest.kind == "Namespace" else manifest.namespace
        if reached and reached not in namespaces:
            what = f"{manifest.title} is in a namespace that the set in git has not"
            raise PolicyError(what, where=place, fix="to go back to that release check out its revision and deploy it")
    if problems := checked.again(recorded.objects, env):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise PolicyError(
            f"today's rules refuse the set: {problems[0].text()}{more}",
            where=place,
            fix="check out the release's revision, mend that, and deploy it",
        )
    return recorded


def namespaces_of(objects: Iterable[Manifest]) -> frozenset[str]:
    """The namespaces that objects are in, or make."""
    return frozenset({manifest.name if manifest.kind == "Namespace" else manifest.namespace for manifest in objects} - {""})


def objects_in(text: str, place: str) -> tuple[Manifest, ...]:
    """The objects of a recorded set's text.

    Args:
        text: the set.
        place: where it stands, for messages.

    Raises:
        PolicyError: a part of it cannot be read.
    """
    objects = []
    for parsed in manifests.parse(text, place):
        if isinstance(parsed, Finding):
            raise PolicyError("the set in the release record was edited", where=parsed.text(), fix="do not use it")
        objects.append(parsed)
    return tuple(objects)
