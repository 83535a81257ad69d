"""The gate of a deploy: what is attached to the digest decides, not what the lock or a receipt says of it."""

from __future__ import annotations

import dataclasses
import datetime
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.errors import PolicyError, RegistryError, UsageError
from k8s import check, deploy
from k8s.envs import environment, other_images
from k8s.prepare import checked, gate
from lockfiles import lockfile
from lockfiles.audit import data
from lockfiles.model import BaseLock, Deb
from oci import statement
from oci.client.client import Client
from oci.client.target import Registry
from oci.descriptor import MANIFEST
from oci.reference import ImageRef
from registry.attach import Proof, deliver
from registry.signer import Signer
from tests.k8s.conftest import API, REPO, Checkout
from tests.k8s.prepare import models
from tests.lockfiles.audit.records import affects, write
from tests.lockfiles.conftest import artifact
from tests.oci.conftest import QUICK
from tests.oci.double import Double, digest_of, serving
from tests.registry import signing
from tests.registry.pushing import CONFIG, DIGEST, EARLIER, IMAGE, MINE, THEIRS
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
    build = signing.build(name=NAME, role="api-cpu", digest=DIGEST, config_digest=CONFIG)
    predicates = {statement.SBOM: signing.COMPONENTS, statement.PROVENANCE: build}
    if run:
        predicates[statement.SMOKE] = signing.smoke(**{"digest": DIGEST, **run})
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


# Somebody's nginx, a stranger's image that is called like ours, an image of Docker Hub without its host.
OTHER_IMAGE = f"docker.io/library/nginx@sha256:{'1' * 64}"
STRANGERS = (OTHER_IMAGE, f"ghcr.io/stranger/{API}@{DIGEST}", f"attacker/miner@{DIGEST}", f"nginx:1.27@sha256:{'1' * 64}")


def add(gated: Checkout, image: str) -> None:
    """A pod with this image, in the set."""
    gated.add(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: other, namespace: llm-inference}\nspec:\n"
        "  automountServiceAccountToken: false\n"
        "  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}\n  containers:\n"
        f"    - name: c\n      image: {image}\n"
        "      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}\n"
    )


def allow(gated: Checkout, reference: str = OTHER_IMAGE, until: str = "2999-12-31", more: str = "") -> None:
    file = gated.root / "k8s/envs/rendered.yaml"
    entry = f"other-images:\n  - reference: {reference}\n    reason: a door before the server\n    until: {until}\n{more}"
    file.write_text(file.read_text() + entry)


@pytest.mark.parametrize("image", STRANGERS)
def test_an_image_that_is_neither_ours_nor_allowed_is_refused(
    gated: Checkout, double: Double, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    attach(double, started=EARLIER)
    add(gated, image)
    with pytest.raises(PolicyError, match="no image of ours .* and not allowed in k8s/envs/rendered.yaml") as refused:
        deploy.deploy("rendered")
    assert image in refused.value.line()
    assert "name what is other people's at `other-images` in k8s/envs/rendered.yaml" in refused.value.line()
    assert not rendered(gated)
    check.run_check([str(gated.manifests)], "rendered")
    assert f"deploy would refuse {image}" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", [f"{API}-hotfix", f"old/{NAME}"])
def test_another_digest_below_our_registry_is_asked_for_the_same_proof(gated: Checkout, double: Double, name: str) -> None:
    attach(double, started=EARLIER)
    other = IMAGE + b" "
    double.manifests[f"team/{name}"][digest_of(other)] = (MANIFEST, other)
    add(gated, f"{double.address}/team/{name}@{digest_of(other)}")
    with pytest.raises(PolicyError, match="signature missing.*smoke missing") as refused:
        deploy.deploy("rendered")
    assert digest_of(other) in refused.value.line()


@pytest.mark.parametrize(
    "spelled",
    [OTHER_IMAGE, OTHER_IMAGE.replace("docker.io", "index.docker.io:443"), OTHER_IMAGE.removeprefix("docker.io/library/")],
)
def test_an_allowed_image_is_told_and_recorded_however_it_is_spelled(
    gated: Checkout, double: Double, spelled: str, capsys: pytest.CaptureFixture[str]
) -> None:
    attach(double, started=EARLIER)
    add(gated, spelled)
    allow(gated)
    env = environment.load("rendered")
    images = [pin.pinned for pin in checked.check([gated.manifests], env, checked.locked_images(required=True))[0].pins]
    recorded = dict(gate.check(images, env, whole=True))
    assert recorded[spelled] == "allowed until 2999-12-31: a door before the server"
    assert deploy.deploy("rendered").result == "rendered"
    assert f"allowed {spelled}: allowed until 2999-12-31" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("used", [True, False])
def test_an_entry_out_of_date_is_refused_with_its_line(gated: Checkout, double: Double, used: bool) -> None:
    attach(double, started=EARLIER)
    if used:
        add(gated, OTHER_IMAGE)
    allow(gated, until="2026-01-31")
    line = len((gated.root / "k8s/envs/rendered.yaml").read_text().splitlines()) - 2
    with pytest.raises(PolicyError, match=rf"out of date since 2026-01-31 \(k8s/envs/rendered.yaml:{line}\)"):
        deploy.deploy("rendered")
    assert not rendered(gated)


def test_an_entry_holds_until_the_end_of_its_day() -> None:
    entry = other_images.OtherImage(ImageRef.parse(OTHER_IMAGE), "r", datetime.date(2026, 1, 31))
    assert [entry.expired(datetime.date(2026, month, day)) for month, day in ((1, 30), (1, 31), (2, 1))] == [False, False, True]


def test_an_entry_that_nothing_uses_is_told(gated: Checkout, double: Double, capsys: pytest.CaptureFixture[str]) -> None:
    attach(double, started=EARLIER)
    allow(gated)
    assert deploy.deploy("rendered").result == "rendered"
    assert f"no image of the set is {OTHER_IMAGE}: remove its entry" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("key", "says"), [(MINE, ""), (THEIRS, "its signer did not sign it: signature bad: not signed by key")]
)
def test_the_signer_of_an_allowed_image_is_verified(gated: Checkout, double: Double, key: Signer, says: str) -> None:
    attach(double, started=EARLIER)
    double.manifests["others/door"][DIGEST] = (MANIFEST, IMAGE)
    double.blobs["others/door"][digest_of(b"{}")] = b"{}"
    proof = Proof(dataclasses.replace(signing.BUILT, name="door", digest=DIGEST), {})
    with Client(Registry.parse(f"{double.address}/others"), QUICK, writes=True) as client:
        deliver(client, proof, key)
    image = f"{double.address}/others/door@{DIGEST}"
    add(gated, image)
    allow(gated, image, more="    signer: own.pub\n")
    if says:
        with pytest.raises(PolicyError, match=says):
            deploy.deploy("rendered")
    else:
        assert deploy.deploy("rendered").result == "rendered"


def test_an_image_that_a_controller_adds_is_recorded_though_no_manifest_names_it(gated: Checkout, double: Double) -> None:
    allow(gated, more="    injected: true\n")
    assert dict(gate.check([], environment.load("rendered"), whole=True)) == {
        OTHER_IMAGE: "allowed until 2999-12-31: a door before the server"
    }


@pytest.fixture
def audited(gated: Checkout, double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """The image carries its proof, nothing worse than medium may be known of it, and jieba 0.42.1 has a high defect."""
    attach(double, started=EARLIER)
    file = gated.root / "k8s/envs/rendered.yaml"
    file.write_text(
        file.read_text().replace("key: own.pub\n", "key: own.pub\n  audit: {max-severity: medium, max-age-days: 3}\n")
    )
    monkeypatch.setenv("PINWHEEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(data.VARIABLE, str(tmp_path / "data"))
    (gated.root / "lockfiles/policy.toml").write_text((REPO.parent / "lockfiles/policy.toml").read_text())
    deb = Deb("bash", "5.2", "amd64", artifact("bash_5.2_amd64.deb"))
    lockfile.write_base(BaseLock("sha256:1", "2026-01-02", (deb,)))
    return gated


def known(audited: Checkout, word: str = "HIGH") -> None:
    record = affects("jieba", {"introduced": "0"}, {"fixed": "0.43"}, word=word)
    write(audited.root / "data", pypi=[record])
    data.fetch()


def test_an_image_with_a_defect_worse_than_the_environment_allows_is_refused(audited: Checkout) -> None:
    known(audited)
    with pytest.raises(PolicyError, match=r"known defects worse than medium: jieba 0\.42\.1 PYSEC-2026-1 \(high\)") as refused:
        deploy.deploy("rendered")
    assert "invoke lock --upgrade vulnerable" in refused.value.line()
    assert (refused.value.exit_code, rendered(audited)) == (15, False)


@pytest.mark.parametrize("word", ["LOW", "MODERATE"])
def test_what_the_environment_allows_is_deployed_and_said(
    audited: Checkout, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known(audited, word)
    assert deploy.deploy("rendered").result == "rendered"
    assert "audit: no known defect worse than medium" in " ".join(capsys.readouterr().out.split())


def test_the_data_of_today_decides_and_not_that_of_the_push(audited: Checkout) -> None:
    known(audited, "LOW")
    deploy.deploy("rendered")
    known(audited)
    with pytest.raises(PolicyError, match="known defects worse than medium"):
        deploy.deploy("rendered")


def test_what_vex_says_does_not_apply_is_deployed(audited: Checkout) -> None:
    known(audited)
    until = datetime.datetime.now(datetime.UTC).date().isoformat()
    keys = {"advisory": "PYSEC-2026-1", "package": "jieba", "status": "fixed", "reason": "patched", "until": until}
    (audited.root / "lockfiles/vex.toml").write_text(
        "[[vex]]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    )
    assert deploy.deploy("rendered").result == "rendered"


def test_without_data_or_with_old_data_nothing_is_deployed(audited: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PolicyError, match="audit missing: no advisory data.*invoke fetch --advisories"):
        deploy.deploy("rendered")
    known(audited, "LOW")
    monkeypatch.setattr(data.Source, "age", lambda *_: 4)
    with pytest.raises(PolicyError, match="the advisory data is 4 days old, and 3 are allowed"):
        deploy.deploy("rendered")
    assert not rendered(audited)
