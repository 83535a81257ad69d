"""The gate of a deploy: what is attached to the digest decides, not what the lock or a receipt says of it."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.errors import PolicyError, RegistryError, UsageError
from k8s import deploy
from oci import statement
from oci.client.client import Client
from oci.client.target import Registry
from oci.descriptor import MANIFEST
from registry.attach import Proof, deliver
from registry.signer import Signer
from tests.k8s.conftest import API, REPO, Checkout
from tests.k8s.prepare import models
from tests.oci.conftest import QUICK
from tests.oci.double import Double, digest_of, serving
from tests.registry import signing
from tests.registry.pushing import DIGEST, EARLIER, IMAGE, MINE, THEIRS
from tests.registry.signing import OTHER, OWN

NAME = f"{API}-cpu"


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with serving() as state:
        state.blobs[f"team/{NAME}"][digest_of(b"{}")] = b"{}"
        state.manifests[f"team/{NAME}"][DIGEST] = (MANIFEST, IMAGE)
        yield state


@pytest.fixture
def gated(checkout: Checkout, double: Double) -> Checkout:
    """The environment `local`, which takes its images from the double and asks for our key and a GPU-less proof."""
    public = OWN.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (checkout.root / "own.pub").write_bytes(public)
    for folder in checkout.manifests.iterdir():
        # One image is enough to be refused.
        if folder.name != "inference":
            shutil.rmtree(folder)
    file = checkout.root / "k8s/envs/rendered.yaml"
    text = re.sub(r"(?m)^registry: .*$", f"registry: {double.address}/team", file.read_text())
    file.write_text(text.replace("proof: none\n", "proof:\n  key: own.pub\n"))
    models.named(checkout.root, "rendered")
    checkout.lock({NAME: DIGEST})
    checkout.keep("inference")
    # Provenance names the version of Pinwheel that made it.
    shutil.copy(REPO.parent / "pyproject.toml", checkout.root)
    return checkout


def attach(double: Double, key: Signer = MINE, **run: Any) -> None:
    """Signature, SBOM and provenance; with a smoke result where a run is described."""
    predicates = {statement.SBOM: signing.COMPONENTS, statement.PROVENANCE: signing.build()}
    if run:
        predicates[statement.SMOKE] = signing.smoke(**{"train_digest": DIGEST, **run})
    proof = Proof(dataclasses.replace(signing.BUILT, name=NAME, digest=DIGEST), predicates)
    with Client(Registry.parse(f"{double.address}/team"), QUICK, writes=True) as client:
        deliver(client, proof, key)


def rendered(checkout: Checkout) -> bool:
    return (checkout.root / "dist/rendered").exists()


def test_a_proven_digest_is_deployed_and_its_proof_is_told(
    gated: Checkout, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    attach(double, started=EARLIER)
    assert deploy.deploy("rendered").result == "rendered"
    assert re.search(rf"proven +{double.address}/team/{NAME}@{DIGEST}: smoke passed on CPU", capsys.readouterr().out)


def test_a_digest_without_a_smoke_result_is_refused_and_nothing_is_written(gated: Checkout, double: Double) -> None:
    attach(double)
    with pytest.raises(PolicyError, match="1 image without the proof rendered asks for: smoke missing") as refused:
        deploy.deploy("rendered")
    assert (refused.value.exit_code, rendered(gated)) == (15, False)
    assert DIGEST in refused.value.line()


def test_a_digest_that_nobody_signed_is_refused(gated: Checkout, double: Double) -> None:
    with pytest.raises(PolicyError, match="signature missing.*SBOM missing.*provenance missing.*smoke missing"):
        deploy.deploy("rendered")
    assert not rendered(gated)


def test_proof_by_another_key_is_refused(gated: Checkout, double: Double) -> None:
    attach(double, THEIRS, started=EARLIER)
    with pytest.raises(PolicyError, match="not signed by key"):
        deploy.deploy("rendered")
    assert OTHER is not OWN


def test_proof_from_a_cpu_is_refused_where_a_gpu_is_asked_for(gated: Checkout, double: Double) -> None:
    attach(double, started=EARLIER)
    file = gated.root / "k8s/envs/rendered.yaml"
    file.write_text(file.read_text().replace("key: own.pub\n", "key: own.pub\n  policy: {smoke: gpu}\n"))
    with pytest.raises(PolicyError, match="proven on a CPU, and a GPU is asked for"):
        deploy.deploy("rendered")


def test_a_dry_run_asks_for_proof_too(gated: Checkout, double: Double) -> None:
    with pytest.raises(PolicyError, match="without the proof"):
        deploy.deploy("rendered", dry_run=True)


def test_an_environment_that_only_warns_deploys_and_says_what_is_missing(
    gated: Checkout, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    attach(double)
    file = gated.root / "k8s/envs/rendered.yaml"
    file.write_text(file.read_text().replace("key: own.pub\n", "key: own.pub\n  refuse: false\n"))
    assert deploy.deploy("rendered").result == "rendered"
    said = capsys.readouterr()
    assert "smoke missing" in " ".join((said.out + said.err).split())


def test_a_registry_that_fails_lets_nothing_pass(gated: Checkout, double: Double) -> None:
    del double.manifests[f"team/{NAME}"][DIGEST]
    with pytest.raises(RegistryError):
        deploy.deploy("rendered")
    assert not rendered(gated)


def test_a_missing_public_key_is_named(gated: Checkout, double: Double) -> None:
    (gated.root / "own.pub").unlink()
    with pytest.raises(UsageError, match=r"no public key can be read.*own\.pub"):
        deploy.deploy("rendered")
