"""Judges whether the content attached to an image is proof, by the public key and the policy; reads nothing itself.

Cosign judges the same way (`verify`, `verify-attestation --type … --policy …`): content that the key did not sign is ignored,
and every statement of one kind that it signed for this digest must meet the policy: a good one hides no bad one. But of two
smoke results or provenances by one signer the later counts (`latest`).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from images import spec
from oci import statement
from oci.attachments import Attached
from oci.envelope import PublicKey
from oci.reference import check_digest
from oci.signature import signed_statements
from oci.statement import Statement
from registry import latest, provenance, result, trust
from registry.policy import Policy
from registry.trust import Trust

State = Literal["holds", "missing", "bad", "not asked"]
NAMES = {
    statement.SIGNATURE: "signature",
    statement.SBOM: "SBOM",
    statement.PROVENANCE: "provenance",
    statement.SMOKE: "smoke",
}
# Clocks differ; a result whose time is further ahead of ours is refused.
_AHEAD = datetime.timedelta(hours=1)
# A commit in full, by SHA-1 or SHA-256; all zeros is git's word for none.
_COMMIT = re.compile(r"(?!0+$)(?:[0-9a-f]{40}|[0-9a-f]{64})")
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Place:
    """What the image is where it was found: proof of another one is not its proof, even under equal tags.

    Attributes:
        name: the last part of its repository, `llama-factory-train`: it may be copied to other registries and folders.
        config: digest of its configuration, as its manifest says; empty where the manifest names none.
    """

    name: str
    config: str


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one kind of proof.

    Attributes:
        name: `signature`, `SBOM`, `provenance`, `smoke`.
        state: `not asked` where the policy does not ask for it and it does not hold.
        text: the content of the proof if it holds, else the reason.
    """

    name: str
    state: State
    text: str


@dataclass(frozen=True, slots=True)
class Findings:
    """The verdict on one image.

    Attributes:
        digest: of the image.
        key: whose signatures count: `key 0123456789abcdef`.
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
        """The findings that do not meet the policy."""
        return tuple(finding for finding in self.findings if finding.state in ("missing", "bad"))


# Characters of a finding's text: a stranger may have written part of it.
_LONGEST = 400


class _BadError(Exception):
    """Why a statement does not meet the policy."""


def verify(
    attached: Sequence[Attached],
    digest: str,
    trusted: PublicKey | Trust,
    policy: Policy,
    *,
    place: Place | None = None,
    now: datetime.datetime | None = None,
) -> Findings:
    """Judge what is attached to an image.

    Args:
        attached: everything that is attached.
        digest: of the image manifest, as computed from its bytes.
        trusted: whose signatures count.
        policy: what must hold.
        place: where the image was found; None: nobody looked, and the digest alone counts.
        now: the time that ages are counted to; default: the present.
    """
    at, who = now or datetime.datetime.now(datetime.UTC), trust.of(trusted)
    checks: tuple[tuple[str, bool, Callable[[dict[str, Any]], str]], ...] = (
        (statement.SIGNATURE, policy.signature, lambda _: f"by {who}"),
        (statement.SBOM, policy.sbom, _sbom),
        (statement.PROVENANCE, policy.provenance, lambda predicate: _provenance(predicate, policy, place)),
        (statement.SMOKE, policy.smoke != "none", lambda predicate: _smoke(predicate, digest, policy, place, at)),
    )
    findings = tuple(_judge(attached, digest, who, kind, check, place, required=required) for kind, required, check in checks)
    return Findings(digest, str(who), findings)


def _judge(
    attached: Sequence[Attached],
    digest: str,
    who: Trust,
    kind: str,
    check: Callable[[dict[str, Any]], str],
    place: Place | None,
    *,
    required: bool,
) -> Finding:
    name, good = NAMES[kind], signed_statements(attached, digest, who.signed, kind)
    if not good:
        reason = _why_missing(attached, digest, who, kind)
        state: State = "bad" if reason else "missing"
        return Finding(name, state if required else "not asked", _shown(reason) or "none is attached")
    try:
        counting = latest.of(kind, good, who)
        for parsed in counting:
            _check_subject(parsed, digest, place)
        texts = [check(parsed.predicate) for parsed in counting]
    except _BadError as problem:
        return Finding(name, "bad" if required else "not asked", _shown(str(problem)))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as problem:
        problem_text = f"signed, but not of the form we know: {type(problem).__name__} {problem}"
        return Finding(name, "bad" if required else "not asked", _shown(problem_text))
    return Finding(name, "holds", _shown(texts[-1]))


def _shown(text: str) -> str:
    """The text as it is safe to print: one line, no control characters, not too long."""
    cut = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return "".join(letter if letter.isprintable() else "�" for letter in cut)


def _why_missing(attached: Sequence[Attached], digest: str, who: Trust, kind: str) -> str:
    """Why content that looks like proof of a kind does not count; empty if nothing looks like it."""
    reason = ""
    for item in attached:
        if item.envelope is None:
            # Its kind cannot be read: the tag or the annotation must tell.
            reason = reason or ("something attached cannot be read" if _may_be(item, kind) else "")
            continue
        try:
            parsed = statement.parse(item.envelope)
        except ValueError as problem:
            reason = reason or (str(problem) if _may_be(item, kind) else "")
            continue
        if parsed.kind != kind:
            continue
        if not who.signed(item):
            reason = f"not signed by {who}, or altered since"
        elif digest not in parsed.digests:
            reason = f"signed for another image: {', '.join(parsed.digests)}"
    return reason


def _may_be(item: Attached, kind: str) -> bool:
    if item.tag == "sig" or kind == statement.SIGNATURE:
        return item.tag == "sig" and kind == statement.SIGNATURE
    annotations = (item.layer or {}).get("annotations")
    return isinstance(annotations, dict) and annotations.get("predicateType") == kind


def _check_subject(parsed: Statement, digest: str, place: Place | None) -> None:
    """Refuse a statement about the image of another name; what was signed by digest alone names none."""
    names = {name.rpartition("/")[2] for name, about in zip(parsed.names, parsed.digests, strict=True) if about == digest}
    unnamed = parsed.kind == statement.SIGNATURE and names == {""}
    if place and place.name not in names and not unnamed:
        raise _BadError(f"signed for {', '.join(sorted(names)) or 'no name'}, and this is {place.name}")


def _name_of(role: Any) -> str:
    """What the image of a role is called, by this checkout."""
    if not isinstance(role, str) or role not in spec.roles():
        raise _BadError(f"no such image: {role!r}; there are {', '.join(spec.roles())}")
    return spec.read(role).name


def _sbom(predicate: dict[str, Any]) -> str:
    if predicate["bomFormat"] != "CycloneDX":
        raise _BadError(f"not CycloneDX but {predicate['bomFormat']!r}")
    components = predicate["components"]
    if not isinstance(components, list) or not components:
        raise _BadError("it names no components")
    for component in components:
        named = component.get("purl") or component.get("name")
        if not isinstance(named, str) or not any(_is_sha256(one["alg"], one["content"]) for one in component["hashes"]):
            raise _BadError(f"a component without name or SHA-256: {named or component!r}")
    return f"CycloneDX {predicate['specVersion']}, {len(components)} components"


def _is_sha256(algorithm: Any, content: Any) -> bool:
    return algorithm == "SHA-256" and isinstance(content, str) and _HEX.fullmatch(content) is not None


def _provenance(predicate: dict[str, Any], policy: Policy, place: Place | None) -> str:
    kind, builder = predicate["buildDefinition"]["buildType"], str(predicate["runDetails"]["builder"]["id"])
    if kind != provenance.build_type():
        raise _BadError(f"another kind of build: {kind}; ours, by images/shared.toml, is {provenance.build_type()}")
    if policy.builder and builder != policy.builder:
        raise _BadError(f"built by {builder}, and {policy.builder} is asked for")
    commit, clean = provenance.revision(predicate)
    if not _COMMIT.fullmatch(commit):
        raise _BadError(f"it names no revision of the sources, but {commit!r}")
    if not clean and not policy.dirty:
        raise _BadError(f"the sources differed from revision {commit}")
    count = _inputs(predicate["buildDefinition"])
    role, internal = (
        predicate["buildDefinition"]["externalParameters"]["image"],
        predicate["buildDefinition"]["internalParameters"],
    )
    name = _name_of(role)
    if place and name != place.name:
        raise _BadError(f"of the image {role!r}, which is {name}, and this is {place.name}")
    if place and check_digest(internal["config"]) != place.config:
        raise _BadError(f"of the configuration {internal['config']}, and this image has {place.config or 'none'}")
    finished = predicate["runDetails"]["metadata"].get("finishedOn", "")
    at = f", {finished}" if finished else ""
    return f"revision {commit}{'' if clean else ', DIRTY'}, {count} inputs, built by {builder}{at}"


def _inputs(definition: dict[str, Any]) -> int:
    """How many inputs a provenance names, each by its digest: the locks and what they hold, beside the sources' revision."""
    check_digest(definition["internalParameters"]["inputs"])
    dependencies = definition["resolvedDependencies"]
    locks, packages = 0, 0
    for dependency in dependencies:
        name, address = dependency.get("name"), str(dependency.get("uri", ""))
        if address.startswith("git+"):
            continue
        if not (name or address) or not _is_sha256("SHA-256", dependency["digest"].get("sha256")):
            raise _BadError(f"an input without name or SHA-256: {name or address or dependency!r}")
        locks, packages = locks + (str(name).startswith("lockfiles/")), packages + address.startswith("pkg:")
    if not locks or not packages:
        raise _BadError(f"it names {locks} locks and {packages} packages as inputs: one of each at least is what an image has")
    return len(dependencies)


def _smoke(predicate: dict[str, Any], digest: str, policy: Policy, place: Place | None, now: datetime.datetime) -> str:
    more = predicate[result.EXTENSION]
    on = "GPU" if more["gpu"] is True else "CPU"
    passed, failed = _names(predicate["passedTests"]), _names(predicate["failedTests"])
    if predicate["result"] != "PASSED" or failed:
        first = f", first {failed[0]}" if failed else ""
        raise _BadError(f"result {predicate['result']}: {len(failed)} rungs did not pass{first}")
    if not passed or len(set(passed)) != len(passed):
        raise _BadError(f"{len(passed)} rungs are said to have passed, {len(set(passed))} of them different")
    entries = [one for one in predicate["configuration"] if one["digest"].get("sha256") == digest.removeprefix("sha256:")]
    if not entries:
        raise _BadError("the run was not about this image")
    for entry in entries:
        _check_ran(entry, place)
    gpus = [f"{gpu['name']}, driver {gpu['driver']}" for gpu in more["host"]["gpus"]]
    if policy.smoke == "gpu" and (on == "CPU" or not gpus):
        raise _BadError("proven on a CPU, and a GPU is asked for")
    missing = sorted(policy.wanted_rungs() - set(passed))
    if policy.smoke != "none" and missing:
        raise _BadError(f"{len(missing)} of the rungs asked for are not among the passed ones: {', '.join(missing[:3])}")
    started = datetime.datetime.fromisoformat(more["started"])
    if started.tzinfo is None:
        raise _BadError(f"a time without a zone: {more['started']}")
    age = now - started
    if age < -_AHEAD:
        raise _BadError(f"from the future: {more['started']}")
    if policy.max_age_days and age > datetime.timedelta(days=policy.max_age_days):
        raise _BadError(f"{age.days} days old, and {policy.max_age_days} are allowed")
    host = gpus[0] if on == "GPU" and gpus else more["host"]["cpu"]
    return f"passed on {on} ({host}), {len(passed)} rungs, {more['started']}"


def _check_ran(entry: dict[str, Any], place: Place | None) -> None:
    """Refuse a run in which this digest stood for another image. Of a run before it was noted, no configuration is known."""
    if place is None:
        return
    said = entry["annotations"]
    if entry["name"] != place.name or _name_of(said["role"]) != place.name:
        raise _BadError(f"it ran as {entry['name']}, {said['role']}, and this is {place.name}")
    if said.get("config", place.config) != place.config:
        raise _BadError(f"it ran with the configuration {said['config']}, and this image has {place.config or 'none'}")


def _names(listed: Any) -> list[str]:
    # A string would count as a list of its letters, and a missing list as no failure.
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise _BadError(f"rungs that are no list of names: {listed!r}")
    return listed
