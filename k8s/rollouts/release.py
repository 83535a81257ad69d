"""The release record: what was deployed when, by whom, from what, with which proof; kept in the cluster it speaks of.

It is the ConfigMap `pinwheel-release` in the namespace that the environment names (`target.cluster.namespace`), or in the first
of the set: inside the cluster, so that a rollback from any machine knows it, and in a namespace of ours, whose readers may see
the set anyway. A release is written as `begun` before the first object is sent and ended afterwards: one that stays `begun` was
killed.

The deploy key signs what is written (signed_record.py), and what it did not sign is never applied: who may write one ConfigMap
gains nothing else. A record without a signature, as earlier versions of Pinwheel wrote it, counts for its number alone.

Kept are the last five releases that ran, and the last that did not. With each its whole set, compressed, as long as all of it
fits into an object; of a set that does not, the digest alone is in the record, and the text on the machine that deployed it.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common import console, paths, reader
from common.errors import PinwheelError, PolicyError, UsageError
from common.files import sha256_bytes, write_whole
from k8s.envs.environment import ClusterTarget, Environment
from k8s.objects import strict_yaml
from k8s.objects.manifests import Manifest
from k8s.rollouts import signed_record
from k8s.rollouts.circumstances import Excuse
from k8s.rollouts.kubectl import CONFIG_MAP_ROOM, Kubectl, refusal

NAME = "pinwheel-release"
# How the record writes a time, UTC: later ones sort behind.
KEPT = 5
# A set is text of some kilobytes; more than this was not written here.
_MOST_RELEASES = 1 << 31
_LARGEST = 64 << 20

State = Literal["begun", "running", "put back", "half done"]


@dataclass(frozen=True, slots=True)
class Release:
    """One deploy to a cluster.

    Attributes:
        number: counts up, from 1.
        state: `begun`; `running`: read back; `put back`: failed, and the release before it runs again; `half done`: failed, and
            nothing could be put back.
        who: the person and the machine.
        begun: UTC.
        ended: UTC; empty while `begun`.
        source: git revision the manifests come from.
        set: digest of the whole set's text.
        images: every image reference of the set, sorted.
        proof: what the gate found, by image; empty where the environment asks for none.
        rollback_of: the release whose set this is, where it was made by a rollback.
        pruned: objects of earlier releases that it deleted.
        excuse: why it was deployed without proof; null where everything carries it.
    """

    number: int
    state: State
    who: str
    begun: str
    ended: str
    source: str
    set: str
    images: tuple[str, ...]
    proof: tuple[tuple[str, str], ...]
    rollback_of: int | None = None
    pruned: tuple[str, ...] = ()
    excuse: Excuse | None = None

    @property
    def position(self) -> int:
        """The release whose place in the history this one has: after a rollback that of the release gone back to."""
        return self.rollback_of or self.number

    def text(self) -> str:
        """The release for people."""
        back = f", back to release {self.rollback_of}" if self.rollback_of else ""
        return f"release {self.number} ({self.who}, {self.ended or self.begun}, from {self.source[:12]}{back})"


@dataclass(frozen=True, slots=True)
class History:
    """The record of one environment.

    Attributes:
        environment: its name.
        namespace: where the record lies.
        releases: oldest first.
        sets: texts by digest.
        version: of the ConfigMap in the cluster; empty: there is none.
        counted: the number of the newest release that is not among them: of an unsigned record, or one that was deleted.
    """

    environment: str
    namespace: str
    releases: tuple[Release, ...] = ()
    sets: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    counted: int = 0

    @property
    def last(self) -> Release | None:
        """The newest release, however it ended."""
        return self.releases[-1] if self.releases else None

    @property
    def next_number(self) -> int:
        """The number of the next release."""
        return (self.last.number if self.last else self.counted) + 1

    @property
    def good(self) -> Release | None:
        """The newest release that ran: what is put back when a deploy fails."""
        return next((release for release in reversed(self.releases) if release.state == "running"), None)

    @property
    def unfinished(self) -> Release | None:
        """The newest release, if it may have left the cluster with parts of it."""
        return self.last if self.last and self.last.state in ("begun", "half done") else None

    def with_release(self, release: Release, text: str = "") -> History:
        """The record with a release added, or ended, and what is too old left out."""
        earlier = [other for other in self.releases if other.number != release.number]
        ran = [other for other in earlier if other.state == "running"]
        failed = [other for other in earlier if other.state != "running"]
        # Of those that ran only four where this one is the fifth; while it is begun, what it may have to go back to stays.
        ran = ran[1 - KEPT :] if release.state == "running" else ran[-KEPT:]
        kept = sorted([*ran, *failed[-1:], release], key=lambda other: other.number)
        named = {other.set for other in kept}
        sets = {**self.sets, **({release.set: text} if text else {})}
        return dataclasses.replace(
            self, releases=tuple(kept), sets={digest: other for digest, other in sets.items() if digest in named}
        )

    def set_text(self, release: Release) -> str | None:
        """The set of a release: from the record, else from this machine; None where neither holds it."""
        if release.set in self.sets:
            return self.sets[release.set]
        place = local(self.environment, release.set)
        text = place.read_text() if place.is_file() else ""
        return text if digest_of(text) == release.set else None


def home(target: ClusterTarget, objects: Sequence[Manifest]) -> str:
    """The namespace of the release record and the lease.

    Raises:
        UsageError: the environment names none, and the set has none.
    """
    if target.namespace:
        return target.namespace
    own = {manifest.name for manifest in objects if manifest.kind == "Namespace"}
    names = sorted(own or {manifest.namespace for manifest in objects} - {""})
    if not names:
        raise UsageError(
            "no namespace for the release record", where=f"context {target.context}", fix="write `target.cluster.namespace`"
        )
    return names[0]


def digest_of(text: str) -> str:
    """The digest a set goes by."""
    return sha256_bytes(text.encode())


def local(environment: str, digest: str) -> Path:
    """Where this machine keeps the text of a set that it deployed."""
    return paths.dist() / "deploy" / environment / f"{digest.removeprefix('sha256:')[:16]}.yaml"


def keep(environment: str, text: str) -> Path:
    """Keep a set on this machine."""
    place = local(environment, digest_of(text))
    write_whole(place, text)
    return place


def version(kubectl: Kubectl, namespace: str) -> str:
    """The version of the record's ConfigMap; empty where there is none.

    Raises:
        MissingEnvironmentError: the cluster does not show it.
    """
    body = kubectl.get("configmaps", namespace, NAME)
    return str(body["metadata"]["resourceVersion"]) if body else ""


def read(kubectl: Kubectl, env: Environment, namespace: str) -> History:
    """The record as the cluster holds it; an empty one where it holds none, or an unsigned one.

    Raises:
        MissingEnvironmentError: the cluster does not show it.
        PolicyError: it is another environment's, or not what a deploy wrote last.
        UsageError: a deploy key of the environment cannot be read.
    """
    # The registry first: what it knows is never newer than what the cluster is asked for afterwards.
    newest = signed_record.newest(env)
    known = newest.number if newest else 0
    body, where = kubectl.get("configmaps", namespace, NAME), f"ConfigMap {namespace}/{NAME}"
    if body is None:
        if known:
            console.warn(f"{where} is gone, which held {known} releases: nothing before can be gone back to")
        return History(env.name, namespace, counted=known)
    fix = "put it back from a backup, or delete it: the next deploy starts anew, and nothing before can be rolled back to"
    try:
        data, there = body["data"], str(body["metadata"]["resourceVersion"])
        owner, written, signature = str(data["environment"]), str(data["releases.json"]), data.get("signature.json")
        if owner == env.name and signature is not None:
            signed = signed_record.verify(env, written, str(signature), where)
        releases = tuple(reader.record(Release, entry) for entry in json.loads(written))
        if not all(0 < past.number < _MOST_RELEASES for past in releases):
            raise ValueError("a number that no deploy writes")
        sets = {}
        for packed in (body.get("binaryData") or {}).values():
            text = _unpacked(packed)
            sets[digest_of(text)] = text
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, zlib.error) as problem:
        raise PolicyError(f"the release record cannot be read: {problem!r}", where=where, fix=fix) from None
    if owner != env.name:
        fix = "name another `namespace` under `target.cluster`, or delete the record if that environment is no more"
        raise PolicyError(f"the release record there is that of environment {owner!r}", where=where, fix=fix)
    if signature is None and not newest:
        console.warn(f"the release record is not signed, so nothing in it can be gone back to: {where}; a deploy signs its own")
        return History(env.name, namespace, version=there, counted=max((past.number for past in releases), default=0))
    if signature is None or signed.number < known or (newest and signed.number == known and signed != newest):
        what = f"the release record is older than release {known}, the newest that {env.registry}/releases knows"
        raise PolicyError(what, where=where, fix=signed_record.FIX)
    return History(env.name, namespace, releases, sets, there)


def _unpacked(packed: str) -> str:
    engine = zlib.decompressobj(wbits=31)
    text = engine.decompress(base64.b64decode(packed), _LARGEST)
    if not engine.eof:
        raise ValueError("a set that does not end")
    return text.decode()


def _body(history: History, signature: str) -> dict[str, Any]:
    written = _written(history)
    data = {"environment": history.environment, "releases.json": written, "signature.json": signature}
    room, sets = CONFIG_MAP_ROOM - len(written) - len(signature), {}
    for release in reversed(history.releases):  # The newest are those one goes back to.
        name = release.set.removeprefix("sha256:") + ".yaml.gz"
        if release.set in history.sets and name not in sets:
            packed = base64.b64encode(gzip.compress(history.sets[release.set].encode(), mtime=0)).decode()
            if len(packed) <= room:
                room -= len(packed)
                sets[name] = packed
    labels = {"app.kubernetes.io/part-of": "pinwheel", "app.kubernetes.io/managed-by": "pinwheel"}
    metadata = {"name": NAME, "namespace": history.namespace, "labels": labels}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": data,
        "binaryData": dict(sorted(sets.items())),
    }


def _written(history: History) -> str:
    """The releases as the record has them: the text that is signed."""
    return json.dumps([dataclasses.asdict(release) for release in history.releases], indent=1, sort_keys=True) + "\n"


def write(kubectl: Kubectl, env: Environment, history: History) -> None:
    """Sign the record and write it; only who holds the lease does. Of a release that ended the registry is told, too.

    Raises:
        PolicyError: the cluster refuses it.
        UsageError: there is no deploy key that the environment trusts.
        MissingEnvironmentError: the cluster does not take it now, or the key cannot be used.
    """
    if history.last is None:
        return
    signature = signed_record.sign(env, history.last.number, _written(history))
    answer = kubectl.apply(strict_yaml.dump([_body(history, signature)]))
    if answer.code:
        fix = f"let your account `get`, `create` and `patch` ConfigMaps in {history.namespace}"
        raise _worded(refusal(answer, "the release record cannot be written", fix), history)
    if history.last.state != "begun":
        signed_record.keep(env, signature)


def _worded(problem: PinwheelError, history: History) -> PinwheelError:
    place = f"ConfigMap {history.namespace}/{NAME}"
    return type(problem)(problem.what, where=f"{place}: {problem.where}", fix=problem.fix)
