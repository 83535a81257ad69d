"""`invoke verify REF --subject WHO --issuer URI`, the whole way: from bundles in a registry, as cosign 3 attaches them."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import ExitCode, PolicyError, UsageError
from oci import bundle as bundles
from oci import statement
from oci.attachments import Attached
from oci.client.blob import Blob
from oci.client.client import Client
from oci.client.target import Registry
from oci.descriptor import INDEX
from oci.reference import ImageRef
from registry import inspect
from registry.keyless import Identity
from registry.policy import Policy
from registry.trust import Trust
from tests.oci.conftest import QUICK
from tests.oci.double import Double
from tests.oci.real import RealRegistry
from tests.registry import signing
from tests.registry.own_sigstore import OwnSigstore
from tests.registry.pushing import CONFIG, DIGEST, EARLIER, LATER, REPOSITORY, bundle, ran, reference

WHO = Identity(
    "https://token.actions.githubusercontent.com",
    "https://github.com/acme/images/.github/workflows/release.yml@refs/heads/main",
)
ANOTHER = Identity(WHO.issuer, "https://github.com/acme/images/.github/workflows/release.yml@refs/heads/evil")
FAILED = {"result": "FAILED", "failedTests": ["train"]}
SAID: dict[str, dict[str, Any]] = {
    statement.SIGNATURE: {},
    statement.SBOM: signing.COMPONENTS,
    statement.PROVENANCE: signing.build(config_digest=CONFIG),
    statement.SMOKE: ran(),
}
SIGSTORE = OwnSigstore()


def said(
    kind: str, predicate: dict[str, Any], who: Identity = WHO, by: OwnSigstore = SIGSTORE, digest: str = DIGEST
) -> Attached:
    data = by.bundle(statement.make(kind, REPOSITORY, digest, predicate), who)
    return Attached(bundles.parse(data), bundle=data)


def changed(item: Attached, act: Callable[[dict[str, Any]], None]) -> Attached:
    body = json.loads(item.bundle)
    act(body)
    data = json.dumps(body).encode()
    return Attached(bundles.parse(data), bundle=data)


def without(kind: str) -> list[Attached]:
    return [said(other, predicate) for other, predicate in SAID.items() if other != kind]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return SIGSTORE.root(tmp_path_factory.mktemp("root") / "root.json")


def verified(double: Double, root: str, who: Identity = WHO, key: str = "") -> str:
    return inspect.show(str(reference(double)), key, "", who, root)


def test_what_an_identity_signed_holds_for_it_alone(double: Double, root: str, capsys: pytest.CaptureFixture[str]) -> None:
    bundle(double, *without(""))
    assert verified(double, root).endswith(f"signed by {WHO}")
    assert capsys.readouterr().out.count("✓ holds") == 4
    for other in (ANOTHER, Identity(WHO.issuer.upper(), WHO.subject), Identity("https://accounts.google.com", WHO.subject)):
        with pytest.raises(PolicyError, match="signature bad: not signed by") as caught:
            verified(double, root, other)
        assert caught.value.exit_code == ExitCode.POLICY
    with pytest.raises(PolicyError):
        # Nobody of the public sigstore knows these logs.
        verified(double, "")


def test_a_key_that_is_named_beside_an_identity_must_be_there(double: Double, root: str, tmp_path: Path) -> None:
    bundle(double, *without(""))
    with pytest.raises(UsageError, match="key"):
        verified(double, root, key=str(tmp_path / "absent.pub"))


def replayed(item: Attached) -> Attached:
    """The envelope of another signature, beside the certificate and log entry of this one."""
    other = json.loads(said(statement.SMOKE, ran(started=LATER)).bundle)["dsseEnvelope"]
    return changed(item, lambda body: body.update(dsseEnvelope=other))


def passed_instead(item: Attached) -> Attached:
    def act(body: dict[str, Any]) -> None:
        payload = base64.b64decode(body["dsseEnvelope"]["payload"]).replace(b"FAILED", b"PASSED").replace(b'["train"]', b"[]")
        body["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()

    return changed(item, act)


def not_logged(body: dict[str, Any]) -> None:
    body["verificationMaterial"]["tlogEntries"] = []


def without_time(body: dict[str, Any]) -> None:
    del body["verificationMaterial"]["tlogEntries"][0]["inclusionPromise"]


def logged_later(body: dict[str, Any]) -> None:
    body["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = "4102444800"


REFUSED: dict[str, Callable[[], Attached]] = {
    "failed": lambda: said(statement.SMOKE, {**ran(), **FAILED}),
    "failed, altered to passed": lambda: passed_instead(said(statement.SMOKE, {**ran(), **FAILED})),
    "by another identity": lambda: said(statement.SMOKE, ran(), ANOTHER),
    "by another sigstore": lambda: said(statement.SMOKE, ran(), by=OwnSigstore()),
    "by another authority": lambda: said(
        statement.SMOKE, ran(), by=OwnSigstore(certificates=SIGSTORE.certificates, log=SIGSTORE.log)
    ),
    "not in the log of certificates": lambda: said(
        statement.SMOKE, ran(), by=OwnSigstore(authority=SIGSTORE.authority, log=SIGSTORE.log)
    ),
    "not in the log": lambda: said(
        statement.SMOKE, ran(), by=OwnSigstore(authority=SIGSTORE.authority, certificates=SIGSTORE.certificates)
    ),
    "about another image": lambda: said(statement.SMOKE, ran(), digest="sha256:" + "e" * 64),
    "another envelope": lambda: replayed(said(statement.SMOKE, ran())),
    "no log entry": lambda: changed(said(statement.SMOKE, ran()), not_logged),
    "no time": lambda: changed(said(statement.SMOKE, ran()), without_time),
    "another time": lambda: changed(said(statement.SMOKE, ran()), logged_later),
    "before the authority": lambda: said(
        statement.SMOKE,
        ran(),
        by=OwnSigstore(SIGSTORE.now - datetime.timedelta(days=2), SIGSTORE.authority, SIGSTORE.certificates, SIGSTORE.log),
    ),
    "by a key": lambda: signing.attest(statement.SMOKE, ran(), digest=DIGEST),
}


@pytest.mark.parametrize("attack", REFUSED.values(), ids=REFUSED)
def test_a_result_that_the_identity_did_not_sign_so_is_none(double: Double, root: str, attack: Callable[[], Attached]) -> None:
    bundle(double, *without(statement.SMOKE), attack())
    with pytest.raises(PolicyError, match="smoke (bad|missing)"):
        verified(double, root)


@pytest.mark.parametrize("later", [[], [ANOTHER]], ids=["alone", "another identity failed later"])
def test_the_later_word_of_an_identity_counts_and_of_nobody_else(double: Double, root: str, later: list[Identity]) -> None:
    """Cosign only appends: an earlier failure stays for ever."""
    failed = [
        said(statement.SMOKE, {**ran(started=at), **FAILED}, who) for at, who in [(EARLIER, WHO), *((LATER, w) for w in later)]
    ]
    bundle(double, *without(statement.SMOKE), *failed, said(statement.SMOKE, ran(started=LATER)))
    assert verified(double, root)
    # Who trusts both hears both.
    both = Trust(identities=(WHO, ANOTHER), root=root)
    assert inspect.look(reference(double), both, Policy())[1].holds is not bool(later)


def test_a_key_and_an_identity_are_trusted_together(double: Double, root: str) -> None:
    bundle(double, *without(statement.SMOKE), signing.attest(statement.SMOKE, ran(), digest=DIGEST))
    both = Trust((signing.OWN.public_key(),), (WHO,), root)
    assert inspect.look(reference(double), both, Policy())[1].holds
    with pytest.raises(PolicyError, match="smoke bad: not signed by"):
        verified(double, root)


@pytest.mark.host
def test_the_same_holds_through_debians_registry(double: Double, root: str, tmp_path: Path) -> None:
    bundle(double, *without(""))
    real = RealRegistry(tmp_path / "registry")
    real.start()
    try:
        with Client(Registry(real.address, ""), QUICK, writes=True) as client:
            for digest, data in double.blobs[REPOSITORY].items():
                with Blob("proof", digest, len(data), data) as blob:
                    client.upload(REPOSITORY, blob, lambda _: None)
            # The list of referrers names the others.
            for name, (kind, data) in sorted(double.manifests[REPOSITORY].items(), key=lambda held: held[1][0] == INDEX):
                client.put_manifest(REPOSITORY, name, data, kind)
        ref = str(ImageRef(real.address, REPOSITORY, "1"))
        if double.referrers:
            # It has no such API, and nobody kept the list.
            with pytest.raises(PolicyError, match="smoke missing"):
                inspect.show(ref, "", "", WHO, root)
        else:
            assert inspect.show(ref, "", "", WHO, root).endswith(f"signed by {WHO}")
            with pytest.raises(PolicyError, match="smoke bad: not signed by"):
                inspect.show(ref, "", "", ANOTHER, root)
    finally:
        real.stop()
