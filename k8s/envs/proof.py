"""What images and models must carry in an environment: `proof`, `model` and `models` in its file."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.reader import Keys
from k8s.envs import trusted_signers
from k8s.envs.trusted_signers import Signers
from lockfiles.audit.model import SEVERITIES, Severity
from oci.reference import ImageRef
from registry import policy
from registry.policy import Policy


@dataclass(frozen=True, slots=True)
class AuditLimit:
    """What may be known of the packages of an image, by the advisory data of the day on which it is asked.

    Attributes:
        max_severity: the worst that a known defect may have.
        max_age_days: how old the data may be.
    """

    max_severity: Severity
    max_age_days: int


@dataclass(frozen=True, slots=True)
class Gate:
    """What an image must carry.

    Attributes:
        signers: whose signatures count.
        policy: what must hold.
        refuse: whether an image that does not carry it is refused; or only warned about.
        audit: what may be known of its packages; None: nobody asks.
    """

    signers: Signers
    policy: Policy = field(default_factory=Policy)
    refuse: bool = True
    audit: AuditLimit | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is served.

    Attributes:
        reference: by digest.
        signers: whose signature counts; None: it is not looked at before a deploy.
    """

    reference: ImageRef
    signers: Signers | None = None


def gate(top: Keys) -> Gate | None:
    """Read `proof`; None where no proof is asked for.

    Raises:
        UsageError: it holds something else than it may.
    """
    if top.body.get("proof") == "none":
        del top.body["proof"]
        return None
    keys = top.below("proof")
    signers, refuse = trusted_signers.signers(keys), keys.flag("refuse", default=True)
    asked = policy.parse(keys.body.pop("policy", {}), f"{keys.file}, proof.policy")
    audit = _audit(keys.below("audit")) if "audit" in keys else None
    keys.end()
    if audit and not asked.sbom:
        raise keys.refused("audit", "what an image holds, its SBOM says, and policy.sbom asks for none")
    return Gate(signers, asked, refuse, audit)


def _audit(keys: Keys) -> AuditLimit:
    written = keys.text("max-severity")
    severity = next((one for one in SEVERITIES if one == written and one != "malware"), None)
    if severity is None:
        raise keys.refused("max-severity", f"expected {', '.join(SEVERITIES[:-1])}, got {written!r}: malware is never allowed")
    days = keys.number("max-age-days", 1, 3650, 7)
    keys.end()
    return AuditLimit(severity, days)


def models(keys: Keys, registry: str, *, strict: bool) -> dict[str, Model]:
    """Read `models`, by workload.

    Args:
        keys: the mapping.
        registry: of the environment.
        strict: whether each must have somebody whose signature counts.

    Raises:
        UsageError: it holds something else than it may.
    """
    found = {}
    for place in tuple(keys.body):
        if place.count("/") != 1 or not all(place.split("/")):
            raise keys.refused(place, "write namespace/name")
        found[place] = model(keys.below(place), registry, strict=strict)
    return found


def model(keys: Keys, registry: str, *, strict: bool) -> Model:
    """Read one model; as `models`."""
    written = keys.text("reference")
    signers = trusted_signers.signers(keys) if "key" in keys or "identities" in keys else None
    keys.end()
    if strict and not signers:
        raise keys.refused("key", "production serves no model whose signature nobody verified")
    try:
        reference = ImageRef.parse(written)
    except ValueError:
        raise keys.refused("reference", f"{written!r} is no reference") from None
    if not reference.pinned or reference.tag:
        raise keys.refused("reference", f"{written} is not by digest alone: write {registry}/…@sha256:…")
    if not written.startswith(f"{registry}/"):
        raise keys.refused("reference", f"{written} is not in the environment's registry, {registry}")
    return Model(reference, signers)
