"""The deploy key of an environment: it signs the release record, so that a put-back or a rollback applies no other text.

A key pair of its own, not that of images or models: who deploys need not push, and who pushes need not deploy. The private half
is what PINWHEEL_DEPLOY_KEY names: a file in PEM without a passphrase, or whatever cosign knows (a file of its own, a KMS URI,
`env://NAME`). Without the variable it is `.keys/deploy.key` of the checkout, made on first use. The public halves stand in the
environment's file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common import console, paths
from common.errors import UsageError
from k8s.envs.environment import Environment
from k8s.envs.trusted_signers import public_keys
from oci import envelope
from oci.envelope import PublicKey
from registry import signer

VARIABLE = "PINWHEEL_DEPLOY_KEY"


@dataclass(frozen=True, slots=True)
class DeployKey:
    """A key that an environment trusts, ready to sign.

    Attributes:
        sign: gives the signature (ECDSA over P-256 and SHA-256, DER) of bytes.
    """

    sign: Callable[[bytes], bytes]


def trusted(env: Environment) -> tuple[PublicKey, ...]:
    """The public keys whose records count; without any in the environment's file, that of the checkout, if it was made.

    Raises:
        UsageError: one cannot be read, or none counts today.
    """
    if env.deploy_keys:
        return public_keys(env.deploy_keys, env.file)
    own = signer.folder() / "deploy.pub"
    return (signer.public_key(str(own)),) if own.exists() else ()


def load(env: Environment) -> DeployKey:
    """The key to sign the environment's record with; the checkout's own is made if there is none.

    Raises:
        UsageError: there is none that the environment trusts.
        MissingEnvironmentError: cosign is needed and missing, or cannot use the key.
    """
    name = os.environ.get(VARIABLE, "")
    own = signer.folder() / "deploy.key"
    if not name and env.deploy_keys and not own.exists():
        fix = f"name the private half of one of {named(env)} in {VARIABLE}"
        raise UsageError("no deploy key to sign the release record with", where=env.file, fix=fix)
    place = Path(name) if name else own
    if not name:
        with signer.own_folder() as folder:
            if not own.exists():
                signer.keep_pair(folder, "deploy", *signer.make_pair())
                console.info(f"made a key pair that signs release records: {paths.shown(own)}; another machine needs it too")
    if place.is_file() and b"BEGIN PRIVATE KEY" in (pem := place.read_bytes()):
        private = envelope.private_key(pem, paths.shown(place))
        public, sign = private.public_key(), lambda data: envelope.sign(private, data)
    else:
        by_cosign = signer.signer(name)
        public, sign = by_cosign.public, by_cosign.sign
    if envelope.fingerprint(public) not in {envelope.fingerprint(key) for key in trusted(env)}:
        what = f"the deploy key is {envelope.fingerprint(public)}, which {env.name} does not trust"
        raise UsageError(what, where=name or paths.shown(own), fix=f"it trusts {named(env)}: name one of these in {VARIABLE}")
    return DeployKey(sign)


def named(env: Environment) -> str:
    """The files of the public keys that count, for messages."""
    return ", ".join(paths.shown(Path(key.file)) for key in env.deploy_keys) or paths.shown(signer.folder() / "deploy.pub")
