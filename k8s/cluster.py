"""Applying a set to a cluster, and putting the last good set back when that fails.

The last good set is kept on this machine (`dist/deploy/<environment>/last-good.yaml`): a deploy from another machine does not
know it and, failing, can only say what is where.

Success means: apply returned 0, every workload finished its rollout, and every image of every live object was read back and is
the pinned one. An apply is not atomic and a rollout status may speak of the version before: none of the three says the others.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import console, paths
from common.errors import DeployNotRolledBackError, DeployRolledBackError, PinwheelError, PolicyError
from common.files import write_whole
from common.run import Result
from k8s import findings, manifests, nodes, receipt, strict_yaml
from k8s.environment import ClusterTarget, Environment
from k8s.kubectl import Kubectl, Patience, brief, conflicts, refusal
from k8s.manifests import Manifest
from k8s.pin import Images, image_line, images
from k8s.render import RenderedSet

_WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet"}
_DIFF_HEAD = re.compile(r"^diff .* \S*/LIVE-\d+/(?P<name>\S+) \S+$", re.MULTILINE)
_HIDDEN = re.compile(r"^(?:diff |--- |\+\+\+ )")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a deploy found and did.

    Attributes:
        before: the images that were there.
        changed: objects that were created or changed, and which of the two.
    """

    before: Images
    changed: tuple[tuple[str, str], ...]


class _FailedError(Exception):
    """Something went wrong after the first object was sent."""


def last_good(environment: str) -> Path:
    """Where the last set that ran well is kept."""
    return receipt.folder() / environment / "last-good.yaml"


def deploy(rendered: RenderedSet, env: Environment, target: ClusterTarget, patience: Patience, *, dry_run: bool) -> Outcome:
    """Apply a checked, pinned set and see that it runs.

    Args:
        rendered: the set.
        env: where it goes, with the version of the cluster.
        target: the cluster.
        patience: how long to wait.
        dry_run: say what would happen and change nothing.

    Returns:
        What was there before, and what changed.

    Raises:
        MissingEnvironmentError: no kubectl, no such context, no answer; nothing was sent.
        PolicyError: the cluster refuses the set; nothing was sent but missing namespaces.
        DeployRolledBackError: it failed, and the last good set runs again.
        DeployNotRolledBackError: it failed, and the last good set does not run.
    """
    kubectl = Kubectl(target.context, patience)
    kubectl.preflight(env.kubernetes)
    there = _manifests(kubectl.live(rendered.text()))
    before = images(there, env.kubernetes)
    changed = _plan(kubectl, rendered, there, dry_run=dry_run)
    for pin in rendered.pins:
        console.info(image_line(pin, before.get((pin.identity, pin.path), "")))
    if rendered.placements and kubectl.labelled(nodes.DRIVER) is False:
        # No refusal: an autoscaler may make such a node as soon as a pod waits for it.
        console.warn(
            f"no node of the cluster carries the label {nodes.DRIVER}: pods with a GPU wait until one does; "
            f"install NVIDIA's GPU feature discovery, or write `gpu-labels: none` ({env.file})"
        )
    if dry_run:
        console.done("dry run: nothing was sent")
        return Outcome(before, changed)
    text = rendered.text()
    try:
        _put(kubectl, text, rendered.objects, env.kubernetes, f"applying {len(rendered.objects)} objects")
    except (_FailedError, KeyboardInterrupt) as problem:
        why = str(problem) or "interrupted from the keyboard"
        new = [one for one, what in changed if what == "created"]
        _put_back(kubectl, env, why, new)
    write_whole(last_good(env.name), text)
    console.done(
        f"running      every image was read back from the cluster; kept as last good: {paths.shown(last_good(env.name))}"
    )
    return Outcome(before, changed)


def _manifests(bodies: Iterable[Mapping[str, Any]]) -> list[Manifest]:
    return [Manifest("cluster", dict(body), {}) for body in bodies]


def _plan(kubectl: Kubectl, rendered: RenderedSet, there: Sequence[Manifest], *, dry_run: bool) -> tuple[tuple[str, str], ...]:
    """Show what an apply would do, by asking the server. Makes missing namespaces, without which it cannot answer."""
    exists = {one.identity for one in there}
    missing = [one for one in rendered.objects if one.kind == "Namespace" and one.identity not in exists]
    answerable = list(rendered.objects)
    if missing and dry_run:
        names = {one.name for one in missing}
        answerable = [one for one in answerable if one.namespace not in names]
    elif missing:
        said = kubectl.apply(strict_yaml.dump(one.body for one in missing))
        if said.code:
            raise refusal(said, "the cluster refuses a namespace", "see its words; nothing was sent")
    said = kubectl.diff(strict_yaml.dump(one.body for one in answerable))
    if said.code > 1:
        made = f"; made before: {', '.join(one.title for one in missing)}" if missing and not dry_run else ""
        raise _refused(kubectl, said, answerable, made)
    differs = {match["name"] for match in _DIFF_HEAD.finditer(said.stdout)}
    changed = []
    for one in rendered.objects:
        if one.identity not in exists:
            changed.append((one.title, "created"))
        elif _diff_name(one) in differs:
            changed.append((one.title, "changed"))
    for title, what in changed:
        console.info(f"{what:<12} {title}")
    if not changed:
        console.info("unchanged    the cluster holds the whole set already")
    if said.code == 1:
        created = {_diff_name(one) for one in rendered.objects if one.identity not in exists}
        _show(said.stdout, created)
    return tuple(changed)


def _diff_name(one: Manifest) -> str:
    """The file name that kubectl diff gives an object."""
    group, slash, version = one.api_version.partition("/")
    return ".".join([group, version] if slash else [group]) + f".{one.kind}.{one.namespace}.{one.name}"


def _show(diff: str, created: set[str]) -> None:
    """Print the changed lines; a new object would only repeat its file."""
    hidden = False
    for line in diff.splitlines():
        if match := _DIFF_HEAD.match(line):
            hidden = match["name"] in created
        elif not hidden and not _HIDDEN.match(line) and line[:1] in "+-" and line.strip("+- "):
            console.info(f"    {line}")


def _refused(kubectl: Kubectl, said: Result, objects: Sequence[Manifest], made: str) -> PinwheelError:
    """Why the server would not take the set, by object: kubectl does not say which object a conflict is about."""
    lines = []
    for one in objects:
        answer = kubectl.apply(strict_yaml.dump([one.body]), dry_run=True)
        for found in conflicts(answer.stderr):
            lines.append(f"{one.title}: {found.field} belongs to {found.owner}")
        if answer.code and not conflicts(answer.stderr):
            lines.append(f"{one.title}: {brief(answer)}")
    for line in lines:
        console.warn(line)
    owned = conflicts(said.stderr)
    what = "the cluster refuses the set, nothing was sent" + made
    if not owned:
        return refusal(said, what, "see its words")
    fix = "take the field out of the manifest, or have its owner let go of it; nothing is ever taken by force"
    return PolicyError(what, where="; ".join(lines) or brief(said), fix=fix)


def _put(kubectl: Kubectl, text: str, objects: Sequence[Manifest], version: str, doing: str, *, again: float = 0) -> None:
    """Apply, wait, read back.

    Args:
        kubectl: of the cluster.
        text: the set.
        objects: the same, read.
        version: of Kubernetes, for finding images.
        doing: says what happens now.
        again: for how many seconds a failed rollout status is asked again.

    Raises:
        _FailedError: one of the three went wrong.
    """
    with console.step(doing):
        said = kubectl.apply(text)
    if said.code:
        raise _FailedError(f"apply failed: {brief(said)}")
    deadline = time.monotonic() + kubectl.patience.rollout
    for one in objects:
        if one.kind in _WORKLOADS and one.api_version == "apps/v1":
            with console.step(f"waiting for {one.title}"):
                _wait(kubectl, one, deadline, again)
    wanted = images(objects, version)
    try:
        live = images(_manifests(kubectl.live(text)), version)
    except PinwheelError as problem:
        raise _FailedError(problem.line()) from None
    for (identity, path), reference in sorted(wanted.items(), key=str):
        found = live.get((identity, path), "nothing")
        if found != reference:
            place = f"{identity[1]} {identity[2]}/{identity[3]}"
            raise _FailedError(f"{place} runs {found} at {findings.shown(path)}, not {reference}")


def _wait(kubectl: Kubectl, one: Manifest, deadline: float, again: float) -> None:
    tolerant_until = time.monotonic() + again
    while True:
        said = kubectl.rollout(one.kind, one.namespace, one.name, deadline - time.monotonic())
        if not said.code:
            return
        if time.monotonic() >= min(tolerant_until, deadline):
            raise _FailedError(f"{one.title} does not get ready: {brief(said)}")
        time.sleep(min(kubectl.patience.pause, 1))


def _put_back(kubectl: Kubectl, env: Environment, why: str, new: Sequence[str]) -> None:
    """Apply the last good set again; never returns."""
    console.warn(f"failed: {why}")
    place = last_good(env.name)
    look = f"look at it with `kubectl --context {kubectl.context} get all -A -l app.kubernetes.io/part-of=pinwheel`"
    left = f"; made by this deploy and still there: {', '.join(new)}" if new else ""
    if not place.exists():
        what = f"{why}; there is no last good set to put back, the cluster is as the failed deploy left it{left}"
        raise DeployNotRolledBackError(what, where=kubectl.context, fix=f"mend the cause and deploy again, or {look}") from None
    text = place.read_text()
    objects = [one for one in manifests.parse(text, str(place)) if isinstance(one, Manifest)]
    try:
        _put(kubectl, text, objects, env.kubernetes, "putting the last good set back", again=kubectl.patience.settle)
    except (_FailedError, KeyboardInterrupt) as problem:
        what = f"{why}; putting the last good set back failed too: {problem or 'interrupted'}{left}"
        fix = f"apply {paths.shown(place)} by hand with --server-side --field-manager=pinwheel, or {look}"
        raise DeployNotRolledBackError(what, where=kubectl.context, fix=fix) from None
    what = f"{why}; the last good set runs again{left}"
    raise DeployRolledBackError(what, where=kubectl.context, fix="mend the cause and deploy again") from None
