"""`invoke verify REF`: which proof of an image in a registry holds, by a public key and a policy."""

from __future__ import annotations

from pathlib import Path

from common import console
from common.errors import PolicyError, UsageError
from common.files import sha256_bytes
from oci import attachments
from oci.client import access
from oci.client.access import Access
from oci.client.client import Client
from oci.client.target import Registry, meant
from oci.envelope import PublicKey, read_json
from oci.reference import ImageRef
from registry import policy, signer
from registry.keyless import Identity
from registry.policy import Policy
from registry.trust import Trust
from registry.verify import Findings, Place, verify


def show(named: str, key: str = "", policy_file: str = "", identity: Identity | None = None, root: str = "") -> str:
    """Verify an image and print the verdict; needs nothing of the build.

    Args:
        named: the image, with its registry; a tag is resolved first.
        key: the public key's file, or a URI that cosign knows; empty: that of the checkout's own pair.
        policy_file: what must hold, see policy.py; empty: its defaults.
        identity: who signed without a key; then the key counts only if it is named.
        root: the trust root's file for the identity; empty: sigstore's public one.

    Returns:
        the outcome in a few words.

    Raises:
        UsageError: the reference, the key or the policy makes no sense.
        RegistryError: the registry cannot be read, or has no such image.
        PolicyError: the policy is not met.
    """
    ref = reference(named)
    required = policy.read(Path(policy_file)) if policy_file else Policy()
    keys = () if identity and not key else (signer.public_key(key),)
    pinned, findings = look(ref, Trust(keys, (identity,) if identity else (), root), required)
    console.info(str(pinned) if ref.digest else f"{ref} is {pinned}")
    marks = {"holds": "✓ holds", "missing": "✗ missing", "bad": "✗ bad", "not asked": "- not asked"}
    console.table(
        ("proof", "verdict", "what it says"),
        [(finding.name, marks[finding.state], finding.text) for finding in findings.findings],
    )
    if not findings.holds:
        summary = "; ".join(f"{finding.name} {finding.state}: {finding.text}" for finding in findings.wrong)
        fix = "do not run it; or look whether key and policy are those you meant"
        raise PolicyError(f"the image does not carry the proof that is asked for: {summary}", where=str(pinned), fix=fix)
    return f"{pinned} carries what the policy asks for, signed by {findings.key}"


def look(
    ref: ImageRef, trusted: PublicKey | Trust, required: Policy, reached: Access | None = None
) -> tuple[ImageRef, Findings]:
    """Resolve a reference and judge what is attached to the image.

    Args:
        ref: with its registry; by tag or digest.
        trusted: whose signatures count.
        required: the policy that must be met.
        reached: how the registry that it names is reached; default: as PINWHEEL_REGISTRY says.

    Returns:
        the reference by digest, and the verdict.

    Raises:
        RegistryError: the registry cannot be read, has no such image, or serves other bytes than it names.
    """
    with Client(Registry(ref.registry, "", reached or access.of_folder())) as client:
        data = client.manifest(ref.repository, ref.digest or ref.tag or "latest")
        digest = sha256_bytes(data)
        attached = attachments.read(client, ref.repository, digest)
    for text in attachments.left_out(attached):
        console.warn(f"{ref.pin(digest)}: {text}")
    place = Place(ref.repository.rpartition("/")[2], _configuration(data))
    return ref.pin(digest), verify(attached, digest, trusted, required, place=place)


def _configuration(manifest: bytes) -> str:
    """The digest of the configuration that a manifest names; empty where it names none, as an index does."""
    try:
        return str(read_json(manifest)["config"]["digest"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def reference(text: str) -> ImageRef:
    """A reference with its registry, as somebody wrote it.

    Raises:
        UsageError: it is none, or names no registry.
    """
    try:
        ref = ImageRef.parse(text)
    except ValueError as problem:
        raise UsageError(str(problem), fix=meant(text) or "write HOST/NAME:TAG or HOST/NAME@sha256:…") from None
    if not ref.registry:
        raise UsageError(f"no registry in {text!r}", fix="write HOST/NAME:TAG or HOST/NAME@sha256:…")
    return ref
