"""What makes a release record trustworthy: the deploy key's statement about it, and the newest one that the registry keeps.

The statement (an in-toto Statement in a DSSE envelope) is about the digest of the record's text, and names the environment and
the number of its newest release. It lies beside the text in the ConfigMap, and after each deploy also in the registry, in the
repository `releases` beside the images: who may only write the ConfigMap cannot put an older record, signed too, in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common import console
from common.errors import PolicyError, RegistryError
from common.files import sha256_bytes
from k8s.envs.environment import Environment
from k8s.rollouts import deploy_key
from oci import attachments, envelope, statement
from oci.client.client import Client
from oci.client.patience import Patience
from oci.client.target import Registry
from oci.envelope import IN_TOTO, Envelope, PublicKey

KIND = "https://pinwheel.dev/release-record/v1"
# The images' proof was read from the same registry a moment ago: one that is away now is soon given up.
_PATIENCE = Patience(tries=3)
FIX = "look who wrote it; delete it, and the next deploy starts anew: nothing before can be gone back to"


@dataclass(frozen=True, slots=True)
class Signed:
    """What the deploy key says of a record.

    Attributes:
        number: of its newest release.
        digest: of its text.
    """

    number: int
    digest: str


def sign(env: Environment, number: int, text: str) -> str:
    """The statement about a record, as JSON.

    Args:
        env: whose record it is.
        number: of its newest release.
        text: the record.

    Raises:
        UsageError: there is no key that the environment trusts.
        MissingEnvironmentError: the key cannot be used.
    """
    predicate = {"environment": env.name, "number": number}
    payload = statement.make(KIND, env.name, sha256_bytes(text.encode()), predicate)
    unsigned = Envelope(IN_TOTO, payload, ())
    return Envelope(IN_TOTO, payload, (deploy_key.load(env).sign(unsigned.signed),)).json().decode()


def verify(env: Environment, text: str, signature: str, where: str) -> Signed:
    """What the deploy key says of exactly this text.

    Args:
        env: whose record it is.
        text: the record.
        signature: the statement about it.
        where: the record's place, for messages.

    Raises:
        PolicyError: no key that the environment trusts signed this text for this environment.
        UsageError: a key of the environment cannot be read.
    """
    keys = deploy_key.trusted(env)
    try:
        sealed = envelope.parse(signature.encode())
        signed = _read(env, sealed, keys)
    except ValueError as problem:
        raise PolicyError(f"the release record's signature cannot be read: {problem}", where=where, fix=FIX) from None
    if signed is None:
        fix = "see `deploy-keys` in docs/deploy.md: name the key that signed it, if it is yours; else " + FIX
        what = f"no key that {env.name} trusts ({deploy_key.named(env)}) signed the release record"
        raise PolicyError(what, where=where, fix=fix)
    if signed.digest != sha256_bytes(text.encode()):
        raise PolicyError("the release record was changed by somebody else than a deploy", where=where, fix=FIX)
    return signed


def newest(env: Environment) -> Signed | None:
    """The newest record that the registry knows; None where it knows none, or the environment asks for no proof.

    Raises:
        UsageError: a key of the environment, or the authority of its registry, cannot be read.
    """
    if env.proof is None:
        return None
    keys = deploy_key.trusted(env)
    try:
        with Client(_registry(env), _PATIENCE) as client:
            attached = attachments.read(client, _repository(env), _place(env))
    except RegistryError as problem:
        console.warn(f"nobody knows whether the release record is the newest: {problem.line()}")
        return None
    read = (_read(env, item.envelope, keys) for item in attached if item.envelope)
    return max((signed for signed in read if signed), key=lambda signed: signed.number, default=None)


def keep(env: Environment, signature: str) -> None:
    """Keep the statement about a record in the registry, as the newest."""
    if env.proof is None:
        return
    try:
        with Client(_registry(env), _PATIENCE, writes=True) as client:
            kept = envelope.parse(signature.encode())
            attachments.write(client, _repository(env), _place(env), "att", (), (kept,))
    except RegistryError as problem:
        where = f"{env.registry}/releases"
        console.warn(f"the newest release is not kept in {where}, so that an older record is not noticed: {problem.line()}")


def _read(env: Environment, sealed: Envelope, keys: Sequence[PublicKey]) -> Signed | None:
    """What a key of the environment says; None where none of them says it, or it is about something else."""
    if not any(sealed.holds(key) for key in keys):
        return None
    try:
        read = statement.parse(sealed)
    except ValueError:
        return None
    number = read.predicate.get("number")
    if read.kind != KIND or len(read.digests) != 1 or read.predicate.get("environment") != env.name or type(number) is not int:
        return None
    return Signed(number, read.digests[0])


def _registry(env: Environment) -> Registry:
    return Registry(env.registry.partition("/")[0], "", env.network.access())


def _repository(env: Environment) -> str:
    path = env.registry.partition("/")[2]
    return f"{path}/releases" if path else "releases"


def _place(env: Environment) -> str:
    """The digest under whose tag the statement lies: of the environment's name, as that may not be a tag itself."""
    return sha256_bytes(env.name.encode())
