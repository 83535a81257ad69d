"""What runs in an environment, through real kubectl and by signed SBOMs: judged, or said that it is not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.errors import AuditError, MissingEnvironmentError, PolicyError, UsageError
from k8s import audit as running
from lockfiles import lockfile
from lockfiles.audit import command, data
from lockfiles.audit.report import Audit
from lockfiles.model import BaseLock, Deb
from tests.k8s.conftest import REPO, Checkout
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import BRIEF
from tests.lockfiles.audit.records import affects, write
from tests.lockfiles.conftest import artifact
from tests.oci.double import Double, serving
from tests.registry.pushing import DIGEST, REPOSITORY, THEIRS, holds_image, proof, push
from tests.registry.signing import OWN

SPACE = "llm-inference"
pytestmark = pytest.mark.host


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with serving() as state:
        holds_image(state)
        yield state


@pytest.fixture
def audited(checkout: Checkout, server: ApiServer, double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """Staging takes its images from the double and trusts our key; jieba 0.42.1 and bash 5.2 have a defect each."""
    monkeypatch.setenv("PINWHEEL_CACHE", str(tmp_path / "cache"))
    public = OWN.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (checkout.root / "own.pub").write_bytes(public)
    file = checkout.root / "k8s/envs/staging.yaml"
    text = re.sub(r"(?m)^registry: .*$", f"registry: {double.address}/team", file.read_text())
    file.write_text(
        text.replace("proof: none\n", "proof: {key: own.pub}\n").replace("registry.example.com/llm", f"{double.address}/team")
    )
    # Provenance names the version of Pinwheel that made it.
    shutil.copy(REPO.parent / "pyproject.toml", checkout.root)
    (checkout.root / "lockfiles").mkdir(exist_ok=True)
    (checkout.root / "lockfiles/policy.toml").write_text((REPO.parent / "lockfiles/policy.toml").read_text())
    deb = Deb("bash", "5.2", "amd64", artifact("bash_5.2_amd64.deb"))
    lockfile.write_base(BaseLock("sha256:1", "2026-01-02", (deb,)))
    releases = {"bookworm": {"status": "open", "urgency": "low"}}
    record = affects("jieba", {"introduced": "0"}, {"fixed": "0.43"})
    write(tmp_path / "data", pypi=[record], debian={"bash": {"CVE-2026-2": {"releases": releases}}})
    monkeypatch.setenv(data.VARIABLE, str(tmp_path / "data"))
    data.fetch()
    return checkout


def runs(server: ApiServer, image: str, name: str = "one", **status: Any) -> None:
    server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    server.put(
        {
            **{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": SPACE}},
            "spec": {"containers": [{"name": "main", "image": image}]},
            "status": {"phase": "Running", **status},
        }
    )


def ours(double: Double, digest: str = DIGEST) -> str:
    return f"{double.address}/{REPOSITORY}@{digest}"


def look() -> Audit:
    return running.audit("staging", patience=BRIEF)


def test_a_defect_of_what_runs_fails_and_names_the_image(audited: Checkout, server: ApiServer, double: Double) -> None:
    push(double, proof())
    runs(server, ours(double))
    found = look()
    assert {(one.package.name, one.ids, one.places) for one in found.findings} == {
        ("jieba", ("PYSEC-2026-1",), (ours(double),)),
        ("bash", ("CVE-2026-2",), (ours(double),)),
    }
    assert found.unknown == ()
    with pytest.raises(AuditError, match=r"what runs in staging: 1 defects of severity high or worse \(jieba 0.42.1"):
        command.conclude(found, "text")


def test_an_image_by_tag_is_judged_by_the_digest_that_the_node_pulled(
    audited: Checkout, server: ApiServer, double: Double
) -> None:
    push(double, proof())
    double.manifests[REPOSITORY]["moved"] = ("application/vnd.oci.image.manifest.v1+json", b"{}")
    tagged = f"{double.address}/{REPOSITORY}:moved"
    runs(server, tagged, containerStatuses=[{"name": "main", "imageID": f"docker-pullable://{ours(double)}"}])
    assert {one.places for one in look().findings} == {(ours(double),)}


def test_pods_that_ended_do_not_run(audited: Checkout, server: ApiServer, double: Double) -> None:
    push(double, proof())
    runs(server, ours(double, "sha256:" + "f" * 64), "done", phase="Succeeded")
    runs(server, ours(double))
    assert look().unknown == ()


def test_an_image_that_cannot_be_judged_takes_no_part_in_a_green_tick(
    audited: Checkout, server: ApiServer, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    push(double, proof())
    write(audited.root / "data")
    data.fetch()
    runs(server, ours(double))
    runs(server, "elsewhere.invalid/x@sha256:" + "f" * 64, "stranger")
    runs(server, "Not A Reference", "odd")
    found = look()
    assert [text.partition(": ")[0] for text in found.unknown] == [
        "Not A Reference",
        "elsewhere.invalid/x@sha256:" + "f" * 64,
    ]
    assert "2 NOT judged" in command.conclude(found, "text")
    assert "not judged: elsewhere.invalid/x" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("signer", [None, THEIRS], ids=["unsigned", "another key"])
def test_when_nothing_can_be_judged_it_fails(audited: Checkout, server: ApiServer, double: Double, signer: Any) -> None:
    if signer:
        push(double, proof(), signer)
    runs(server, ours(double))
    with pytest.raises(PolicyError, match="nothing that runs in staging can be judged.*no SBOM that this key signed"):
        look()


def test_without_pods_there_is_nothing_to_judge(audited: Checkout, server: ApiServer) -> None:
    with pytest.raises(PolicyError, match="no pod runs there"):
        look()


def test_pods_that_may_not_be_listed_are_no_pods_without_defects(audited: Checkout, server: ApiServer) -> None:
    server.forbidden.add(("list", "pods"))
    with pytest.raises(PolicyError, match=f"does not list the pods of {SPACE}"):
        look()


def test_without_data_nothing_is_judged(audited: Checkout, server: ApiServer, double: Double) -> None:
    push(double, proof())
    runs(server, ours(double))
    data.path().unlink()
    with pytest.raises(MissingEnvironmentError, match="no advisory data"):
        look()


def test_a_directory_runs_nothing_and_without_a_key_no_sbom_counts(audited: Checkout) -> None:
    with pytest.raises(UsageError, match="nothing runs in"):
        running.audit("rendered")
    file = audited.root / "k8s/envs/staging.yaml"
    file.write_text(file.read_text().replace("proof: {key: own.pub}\n", "proof: none\n"))
    with pytest.raises(UsageError, match="no proof is asked for"):
        running.audit("staging")
