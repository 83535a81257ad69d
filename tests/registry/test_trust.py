"""Several keys and identities are trusted together: what one of them says counts, the good and the bad."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from oci import bundle, statement
from oci.attachments import Attached
from registry.keyless import Identity
from registry.policy import Policy
from registry.trust import Trust
from registry.verify import verify
from tests.registry import signing
from tests.registry.signing import DIGEST, NOW, OTHER, OWN
from tests.registry.test_keyless import BUNDLE, WHO

BOTH = Trust((OWN.public_key(), OTHER.public_key()))
SMOKE = Policy(signature=False, sbom=False, provenance=False)


def ran(key: ec.EllipticCurvePrivateKey, *, passed: bool) -> Attached:
    body = signing.smoke() if passed else {**signing.smoke(), "result": "FAILED", "failedTests": ["train"]}
    return signing.attest(statement.SMOKE, body, key=key)


def test_a_statement_of_either_key_counts_while_both_are_trusted() -> None:
    assert verify([ran(OWN, passed=True)], DIGEST, BOTH, SMOKE, now=NOW).holds
    assert verify([ran(OTHER, passed=True)], DIGEST, BOTH, SMOKE, now=NOW).holds
    assert not verify([ran(OTHER, passed=True)], DIGEST, Trust((OWN.public_key(),)), SMOKE, now=NOW).holds


def test_a_new_key_hides_no_failure_that_the_old_one_signed() -> None:
    both = [ran(OWN, passed=False), ran(OTHER, passed=True)]
    assert not verify(both, DIGEST, BOTH, SMOKE, now=NOW).holds


def test_nobody_is_trusted_where_nobody_is_named() -> None:
    found = verify([ran(OWN, passed=True)], DIGEST, Trust(), SMOKE, now=NOW)
    assert not found.holds
    assert found.key == "nobody"


@pytest.mark.parametrize(
    ("identity", "signed"), [(WHO, True), (Identity(WHO.issuer, "somebody@example.com"), False)], ids=["own", "another"]
)
def test_an_identity_speaks_by_its_bundle_alone(identity: Identity, signed: bool) -> None:
    item = Attached(bundle.parse(BUNDLE), bundle=BUNDLE)
    assert Trust(identities=(identity,)).signed(item) is signed
    assert not Trust(identities=(identity,)).signed(Attached(bundle.parse(BUNDLE)))
    # The envelope that is judged is the bundle's own.
    assert json.loads(BUNDLE)["dsseEnvelope"]["payload"] == json.loads(bundle.parse(BUNDLE).json())["payload"]


def test_a_trust_root_of_ones_own_is_read(tmp_path: Path) -> None:
    item = Attached(bundle.parse(BUNDLE), bundle=BUNDLE)
    with pytest.raises(Exception, match="no trust root"):
        Trust(identities=(WHO,), root=str(tmp_path / "absent.json")).signed(item)
