"""Whether what is attached to an image is proof: pure, from what was read, the public key and the policy.

Cosign judges the same way (`verify`, `verify-attestation --type … --policy …`): what the key did not sign is as if it were not
there, and of what it signed for this digest every piece of one kind must please the policy: no good one hides a bad one.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from oci import statement
from oci.attachments import Attached
from oci.envelope import PublicKey, fingerprint
from oci.signature import signed_statements
from registry import provenance, result
from registry.policy import Policy

State = Literal["holds", "missing", "bad", "not asked"]
NAMES = {
    statement.SIGNATURE: "signature",
    statement.SBOM: "SBOM",
    statement.PROVENANCE: "provenance",
    statement.SMOKE: "smoke",
}
# Clocks differ; more than this ahead of ours is no result of a run.
_AHEAD = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to be said of one kind of proof.

    Attributes:
        name: `signature`, `SBOM`, `provenance`, `smoke`.
        state: `not asked` where the policy does not want it and it does not hold.
        text: what it says when it holds, why not otherwise.
    """

    name: str
    state: State
    text: str


@dataclass(frozen=True, slots=True)
class Findings:
    """The verdict on one image.

    Attributes:
        digest: of the image.
        key: fingerprint of the key that was asked for.
        findings: one for each kind of proof.
    """

    digest: str
    key: str
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether the policy is met."""
        return not self.wrong

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """What does not meet the policy."""
        return tuple(one for one in self.findings if one.state in ("missing", "bad"))


# Characters of what is told of one finding: it may hold what a stranger wrote.
_LONGEST = 400


class _BadError(Exception):
    """Why a statement does not please the policy."""


def verify(
    attached: Sequence[Attached], digest: str, key: PublicKey, policy: Policy, *, now: datetime.datetime | None = None
) -> Findings:
    """Judge what is attached to an image.

    Args:
        attached: everything that is.
        digest: of the image manifest, as computed from its bytes.
        key: whose signatures count.
        policy: what must hold.
        now: the time that ages are counted to; default: the present.
    """
    at = now or datetime.datetime.now(datetime.UTC)
    checks: tuple[tuple[str, bool, Callable[[dict[str, Any]], str]], ...] = (
        (statement.SIGNATURE, policy.signature, lambda _: f"by key {fingerprint(key)}"),
        (statement.SBOM, policy.sbom, _sbom),
        (statement.PROVENANCE, policy.provenance, lambda said: _provenance(said, policy)),
        (statement.SMOKE, policy.smoke != "none", lambda said: _smoke(said, digest, policy, at)),
    )
    findings = tuple(_judge(attached, digest, key, kind, check, asked=asked) for kind, asked, check in checks)
    return Findings(digest, fingerprint(key), findings)


def _judge(
    attached: Sequence[Attached],
    digest: str,
    key: PublicKey,
    kind: str,
    check: Callable[[dict[str, Any]], str],
    *,
    asked: bool,
) -> Finding:
    name, good = NAMES[kind], signed_statements(attached, digest, key, kind)
    if not good:
        reason = _why_none(attached, digest, key, kind)
        state: State = "bad" if reason else "missing"
        return Finding(name, state if asked else "not asked", _shown(reason) or "none is attached")
    try:
        texts = [check(said.predicate) for _, said in good]
    except _BadError as problem:
        return Finding(name, "bad" if asked else "not asked", _shown(str(problem)))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as problem:
        what = f"signed, but not of the form we know: {type(problem).__name__} {problem}"
        return Finding(name, "bad" if asked else "not asked", _shown(what))
    return Finding(name, "holds", _shown(texts[-1]))


def _shown(text: str) -> str:
    """As a terminal may have it: one line, no control characters, not without end."""
    cut = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return "".join(one if one.isprintable() else "�" for one in cut)


def _why_none(attached: Sequence[Attached], digest: str, key: PublicKey, kind: str) -> str:
    """Why what looks like proof of a kind is none; empty when nothing does."""
    reason = ""
    for one in attached:
        if one.envelope is None:
            # Nobody can tell what it was to be.
            reason = reason or ("something attached cannot be read" if _could_be(one, kind) else "")
            continue
        try:
            said = statement.parse(one.envelope)
        except ValueError as problem:
            reason = reason or (str(problem) if _could_be(one, kind) else "")
            continue
        if said.kind != kind:
            continue
        if not one.envelope.holds(key):
            reason = f"not signed by key {fingerprint(key)}, or altered since"
        elif digest not in said.digests:
            reason = f"signed for another image: {', '.join(said.digests)}"
    return reason


def _could_be(one: Attached, kind: str) -> bool:
    if one.tag == "sig" or kind == statement.SIGNATURE:
        return one.tag == "sig" and kind == statement.SIGNATURE
    annotations = (one.layer or {}).get("annotations")
    return isinstance(annotations, dict) and annotations.get("predicateType") == kind


def _sbom(said: dict[str, Any]) -> str:
    if said["bomFormat"] != "CycloneDX":
        raise _BadError(f"not CycloneDX but {said['bomFormat']!r}")
    return f"CycloneDX {said['specVersion']}, {len(said['components'])} components"


def _provenance(said: dict[str, Any], policy: Policy) -> str:
    kind, builder = said["buildDefinition"]["buildType"], str(said["runDetails"]["builder"]["id"])
    if kind != provenance.build_type():
        raise _BadError(f"another kind of build: {kind}; ours, by images/shared.toml, is {provenance.build_type()}")
    if policy.builder and builder != policy.builder:
        raise _BadError(f"built by {builder}, and {policy.builder} is asked for")
    commit, clean = provenance.revision(said)
    if not clean and not policy.dirty:
        raise _BadError(f"the sources differed from revision {commit}")
    count = len(said["buildDefinition"]["resolvedDependencies"])
    finished = said["runDetails"]["metadata"].get("finishedOn", "")
    when = f", {finished}" if finished else ""
    return f"revision {commit}{'' if clean else ', DIRTY'}, {count} inputs, built by {builder}{when}"


def _smoke(said: dict[str, Any], digest: str, policy: Policy, now: datetime.datetime) -> str:
    more = said[result.EXTENSION]
    on = "GPU" if more["gpu"] is True else "CPU"
    passed, failed = _names(said["passedTests"]), _names(said["failedTests"])
    if said["result"] != "PASSED" or failed:
        named = f", first {failed[0]}" if failed else ""
        raise _BadError(f"result {said['result']}: {len(failed)} rungs did not pass{named}")
    if digest.removeprefix("sha256:") not in {one["digest"].get("sha256") for one in said["configuration"]}:
        raise _BadError("the run was not about this image")
    gpus = [f"{one['name']}, driver {one['driver']}" for one in more["host"]["gpus"]]
    if policy.smoke == "gpu" and (on == "CPU" or not gpus):
        raise _BadError("proven on a CPU, and a GPU is asked for")
    lacking = sorted(policy.wanted_rungs() - set(passed))
    if policy.smoke != "none" and lacking:
        raise _BadError(f"{len(lacking)} of the rungs asked for are not among the passed ones: {', '.join(lacking[:3])}")
    started = datetime.datetime.fromisoformat(more["started"])
    if started.tzinfo is None:
        raise _BadError(f"no time of the world: {more['started']}")
    age = now - started
    if age < -_AHEAD:
        raise _BadError(f"from the future: {more['started']}")
    if policy.max_age_days and age > datetime.timedelta(days=policy.max_age_days):
        raise _BadError(f"{age.days} days old, and {policy.max_age_days} are allowed")
    host = gpus[0] if on == "GPU" and gpus else more["host"]["cpu"]
    return f"passed on {on} ({host}), {len(passed)} rungs, {more['started']}"


def _names(listed: Any) -> list[str]:
    # A text would pass for the letters it holds, and nothing at all for no failure.
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise _BadError(f"rungs that are no list of names: {listed!r}")
    return listed
