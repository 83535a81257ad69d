"""Audit and OpenVEX as statements on a pushed image."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from lockfiles.audit import data, vex
from oci import attachments, statement
from oci.client.client import Client
from oci.client.target import Registry
from registry import attach, audited
from tests.lockfiles.audit.records import affects, write
from tests.oci.conftest import QUICK
from tests.oci.double import Double
from tests.registry.pushing import DIGEST, REPOSITORY, holds, kinds, proof, push, ran
from tests.registry.signing import COMPONENTS

NAME = "llama-factory-train"
TODAY = datetime.datetime.now(datetime.UTC).date().isoformat()


@pytest.fixture
def known(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of jieba 0.42.1 a defect is known that is fixed, and one that is not; returns where `vex.toml` lies."""
    fixed = affects("jieba", {"introduced": "0"}, {"fixed": "0.43"})
    fixed["aliases"] = ["CVE-2026-1"]
    write(own_folders / "data", pypi=[fixed, affects("jieba", {"introduced": "0"}, identifier="PYSEC-2026-2", word="LOW")])
    monkeypatch.setenv(data.VARIABLE, str(own_folders / "data"))
    monkeypatch.setattr(vex, "path", lambda: own_folders / "vex.toml")
    data.fetch()
    return own_folders / "vex.toml"


def silence(file: Path, status: str = "not_affected", until: str = TODAY) -> None:
    keys = {"advisory": "CVE-2026-1", "package": "jieba", "status": status, "reason": "never called", "until": until}
    keys |= {"justification": "vulnerable_code_not_in_execute_path"} if status == "not_affected" else {}
    file.write_text("[[vex]]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items()))


def made() -> dict[str, dict[str, Any]]:
    return audited.predicates(NAME, DIGEST, COMPONENTS)


def test_the_audit_is_a_vulnerability_report(known: Path) -> None:
    report = made()[audited.AUDIT]
    assert report["metadata"] == {"scanStartedOn": f"{TODAY}T00:00:00Z", "scanFinishedOn": f"{TODAY}T00:00:00Z"}
    first, second = report["scanner"]["result"]
    assert first == {
        "id": "CVE-2026-1",
        "severity": [{"method": "pinwheel", "score": "high"}],
        "annotations": [{"package": "pkg:pypi/jieba@0.42.1"}, {"aliases": "PYSEC-2026-1"}, {"fixed": "0.43"}],
    }
    assert second["id"] == "PYSEC-2026-2"
    database = report["scanner"]["db"]
    assert datetime.datetime.fromisoformat(database["lastUpdate"])
    assert database["version"].count("sha256:") == 3


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("not_affected", {"justification": "vulnerable_code_not_in_execute_path", "impact_statement": "never called"}),
        ("fixed", {"status_notes": "never called"}),
    ],
)
def test_openvex_says_what_does_not_apply_and_what_nobody_has_looked_at(known: Path, status: str, said: dict[str, str]) -> None:
    silence(known, status)
    body = made()[audited.VEX]
    assert body["@context"] == "https://openvex.dev/ns/v0.2.0"
    product = f"pkg:oci/{NAME}@{DIGEST}"
    first, second = body["statements"]
    assert first == {
        "vulnerability": {"name": "CVE-2026-1", "aliases": ["PYSEC-2026-1"]},
        "products": [{"@id": product, "subcomponents": [{"@id": "pkg:pypi/jieba@0.42.1"}]}],
        "status": status,
        **said,
    }
    assert (second["vulnerability"]["name"], second["status"]) == ("PYSEC-2026-2", "under_investigation")


def test_a_statement_that_is_over_silences_nothing_any_more(known: Path) -> None:
    silence(known, until="2026-01-01")
    assert {one["status"] for one in made()[audited.VEX]["statements"]} == {"under_investigation"}


def test_the_same_day_data_and_sbom_give_the_same_bytes(known: Path) -> None:
    assert json.dumps(made()) == json.dumps(made())


def test_where_nothing_is_known_there_is_no_openvex_and_without_data_nothing(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made() == {}
    assert "no audit is attached: no advisory data" in " ".join(capsys.readouterr().err.split())
    write(own_folders / "data")
    monkeypatch.setenv(data.VARIABLE, str(own_folders / "data"))
    data.fetch()
    assert set(made()) == {audited.AUDIT}
    assert made()[audited.AUDIT]["scanner"]["result"] == []


def attached(double: Double) -> list[str]:
    with Client(Registry(double.address, ""), QUICK) as client:
        found = attachments.read(client, REPOSITORY, DIGEST, kinds=frozenset({audited.AUDIT, audited.VEX}))
    parsed = [statement.parse(one.envelope) for one in found if one.envelope]
    return sorted(one.kind for one in parsed if one.kind in (audited.AUDIT, audited.VEX))


def test_both_are_attached_read_back_and_replaced_by_newer_ones(known: Path, double: Double) -> None:
    push(double, attach._with_audit(proof(smoke=ran())))
    assert attached(double) == [audited.AUDIT, audited.VEX]
    assert holds(double)
    double.asked.clear()
    push(double, attach._with_audit(proof(smoke=ran())))
    assert {one.method for one in double.asked} <= {"GET", "HEAD"}
    silence(known)
    push(double, attach._with_audit(proof(smoke=ran())))
    assert attached(double) == [audited.AUDIT, audited.VEX]


def test_an_audit_changes_no_other_proof(known: Path, double: Double) -> None:
    push(double, proof(smoke=ran()))
    before = kinds(double)
    push(double, attach._with_audit(proof(smoke=ran())))
    assert sorted({*before, audited.AUDIT, audited.VEX}) == sorted({*kinds(double), *attached(double)})
    assert holds(double)
