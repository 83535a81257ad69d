"""An audit of the project's own locks, with advisories about them."""

from __future__ import annotations

import datetime
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from common import paths
from common.errors import AuditError, ExitCode, UsageError
from common.files import sha256_bytes
from lockfiles import lockfile, store
from lockfiles.audit import command, data, locked, report, run, vex
from lockfiles.audit.model import Package
from lockfiles.audit.report import Audit
from lockfiles.model import Artifact, Deb
from tests.lockfiles.audit.records import write

TODAY = datetime.datetime.now(datetime.UTC).date()


@pytest.fixture(autouse=True)
def _own_vex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vex, "path", lambda: tmp_path / "vex.toml")


def locked_version(name: str, lock: str = "train") -> str:
    return next(wheel.version for wheel in lockfile.read_set(lock).wheels if wheel.name == name)


def advisory(name: str, version: str, word: str = "HIGH", identifier: str = "PYSEC-2026-1", **more: Any) -> dict[str, Any]:
    affected = [{"package": {"ecosystem": "PyPI", "name": name}, "versions": [version]}]
    return {"id": identifier, "modified": "2026-01-01", "affected": affected, "database_specific": {"severity": word}, **more}


def audited(published: Path, *records: dict[str, Any], **more: Any) -> Audit:
    write(published, pypi=records, **more)
    data.fetch()
    return run.of_locks()


def silence(tmp_path: Path, **more: str) -> None:
    keys = {
        "advisory": "PYSEC-2026-1",
        "package": "jinja2",
        "status": "not_affected",
        "justification": "vulnerable_code_not_in_execute_path",
        "reason": "no template of a stranger is rendered",
        "until": TODAY.isoformat(),
        **more,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if value]
    (tmp_path / "vex.toml").write_text("[[vex]]\n" + "\n".join(lines) + "\n")


def test_every_lock_is_looked_up() -> None:
    packages = locked.everything()
    places = {place.partition(" ")[0] for found in packages.values() for place in found}
    assert places == {"train", "train-cu128", "api", "api-cpu", "api-cu128", "base", "toolkit", "single-node"}
    assert Package("PyPI", "torch", locked_version("torch").partition("+")[0], "torch") in packages
    kinds = {package.ecosystem for package in packages}
    assert kinds == {"PyPI", "Go", "Debian"}
    names = {package.name for package in packages if package.ecosystem == "Go"}
    assert {"stdlib", "k8s.io/kubernetes", "github.com/argoproj/argo-workflows/v4"} <= names


def test_a_known_defect_of_a_locked_wheel_fails_with_its_own_code(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit = audited(published, advisory("Jinja2", locked_version("jinja2")))
    (found,) = audit.findings
    assert found.package.name == "jinja2"
    assert {"train", "api"} <= set(found.places)
    with pytest.raises(
        AuditError, match=r"all locks: 1 defects of severity high or worse \(jinja2 .*, PYSEC-2026-1\)"
    ) as caught:
        command.conclude(audit, "text")
    assert caught.value.exit_code == ExitCode.AUDIT
    assert "no fix" in capsys.readouterr().out


def test_what_is_less_than_the_policy_says_is_shown_and_passes(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit = audited(published, advisory("jinja2", locked_version("jinja2"), "MODERATE"))
    assert "1 known defects in" in command.conclude(audit, "text")
    assert "PYSEC-2026-1" in capsys.readouterr().out


def test_malware_in_a_lock_is_refused_whatever_vex_says(published: Path, tmp_path: Path) -> None:
    silence(tmp_path, advisory="MAL-2026-1")
    audit = audited(published, advisory("jinja2", locked_version("jinja2"), "", "MAL-2026-1"))
    assert [one.severity for one in audit.failing] == ["malware"]


def test_vex_silences_until_its_last_day(published: Path, tmp_path: Path) -> None:
    record = advisory("jinja2", locked_version("jinja2"))
    silence(tmp_path)
    audit = audited(published, record)
    assert (audit.failing, len(audit.findings)) == ((), 1)
    assert audit.findings[0].vex.startswith("not_affected: vulnerable_code_not_in_execute_path, until ")
    silence(tmp_path, until=(TODAY - datetime.timedelta(days=1)).isoformat())
    audit = audited(published, record)
    assert len(audit.failing) == 1
    assert any("was silenced until" in note for note in audit.notes)


@pytest.mark.parametrize("other", [{"advisory": "CVE-1999-1"}, {"package": "requests"}])
def test_a_vex_statement_about_something_else_silences_nothing_and_is_said(
    published: Path, tmp_path: Path, other: dict[str, str]
) -> None:
    silence(tmp_path, **other)
    audit = audited(published, advisory("jinja2", locked_version("jinja2")))
    assert len(audit.failing) == 1
    assert any("silences nothing any more" in note for note in audit.notes)
    # An audit of a part cannot know.
    assert not any("silences nothing" in note for note in run.of_locks("train").notes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"justification": "it is fine"}, "vex\\[0\\].justification"),
        ({"justification": ""}, "justification: missing"),
        ({"status": "ignored"}, "status"),
        ({"reason": ""}, "reason: missing"),
        ({"until": "soon"}, "until: expected a day"),
        ({"note": "x"}, "note: unknown key"),
    ],
)
def test_a_wrong_vex_file_is_refused_with_its_key(tmp_path: Path, wrong: dict[str, str], message: str) -> None:
    silence(tmp_path, **wrong)
    with pytest.raises(UsageError, match=message):
        vex.read()


def package(folder: Path, name: str, version: str, source: str) -> Deb:
    """A .deb as deb(5) describes it, with a control file alone; it lies in the store."""
    text = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n" + (f"Source: {source}\n" if source else "")
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w:gz") as tar:
        info = tarfile.TarInfo("./control")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    body = b"!<arch>\n"
    for member, content in (("debian-binary", b"2.0\n"), ("control.tar.gz", control.getvalue()), ("data.tar.gz", b"")):
        head = f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        body += head.encode() + content + b"\n" * (len(content) % 2)
    file = folder / f"{name}_{version.replace(':', '%3a')}_amd64.deb"
    file.write_bytes(body)
    artifact = Artifact(file.name, len(body), sha256_bytes(body).removeprefix("sha256:"))
    store.add_file(artifact, file)
    return Deb(name, version, "amd64", artifact)


@pytest.mark.parametrize(
    ("version", "source", "name", "asked"),
    [
        ("3.0.20-1~deb12u1", "openssl", "openssl", "3.0.20-1~deb12u1"),
        ("1:2.66-4+b1", "", "libssl3", "1:2.66-4"),
        ("4:12.2.0-3", "gcc-defaults (1.203)", "gcc-defaults", "1.203"),
        ("2.40-2+b3", "binutils (2.40-2)", "binutils", "2.40-2"),
    ],
)
def test_debian_is_asked_by_source_package_and_its_version(
    own_folders: Path, version: str, source: str, name: str, asked: str
) -> None:
    deb = package(own_folders, "libssl3", version, source)
    assert locked.sources([deb]) == {deb: Package("Debian", name, asked, "libssl3")}
    # What a control file said is remembered: the file may go.
    store.path(deb.artifact).unlink()
    assert locked.sources([deb]) == {deb: Package("Debian", name, asked, "libssl3")}


def test_debs_that_are_not_here_are_taken_for_their_own_source_and_that_is_said(
    own_folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deb = Deb("libssl3", "3.0-1", "amd64", Artifact("libssl3_3.0-1_amd64.deb", 7, "0" * 64))
    assert locked.sources([deb]) == {deb: Package("Debian", "libssl3", "3.0-1", "libssl3")}
    assert "1 Debian packages are not in the store" in capsys.readouterr().err


def test_a_defect_of_a_locked_debian_package_is_found(published: Path) -> None:
    releases = {"bookworm": {"status": "open", "urgency": "high"}}
    audit = audited(published, debian={"curl": {"CVE-2026-2": {"releases": releases}}})
    assert [(one.ids, one.places) for one in audit.failing] == [(("CVE-2026-2",), ("base",))]


def test_what_is_new_since_the_last_audit_comes_first(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = advisory("jinja2", locked_version("jinja2"), "CRITICAL")
    report.remember(audited(published, old))
    audit = audited(published, old, advisory("pyyaml", locked_version("pyyaml"), "LOW", "PYSEC-2026-2"))
    assert [one.ids[0] for one in audit.findings] == ["PYSEC-2026-2", "PYSEC-2026-1"]
    assert audit.new == (("PyPI pyyaml", "PYSEC-2026-2"),)
    report.show(audit)
    line = next(line for line in capsys.readouterr().out.splitlines() if "PYSEC-2026-2" in line)
    assert line.startswith("new")


def test_json_and_sarif_say_the_same_in_the_same_order(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = locked_version("jinja2")
    audit = audited(published, advisory("jinja2", version))
    body = json.loads(audit.json())
    assert body["format"] == report.FORMAT
    assert [one["ids"][0] for one in body["findings"]] == ["PYSEC-2026-1"]
    (sarif,) = json.loads(audit.sarif())["runs"]
    places = [one["locations"][0]["physicalLocation"] for one in sarif["results"]]
    for place in places:
        if place["artifactLocation"]["uri"].endswith(".lock"):
            line = (paths.ROOT / place["artifactLocation"]["uri"]).read_text().splitlines()[place["region"]["startLine"] - 1]
            assert line.startswith(f'"jinja2" = {{ version = "{version}"')
    assert {"lockfiles/train.lock", "lockfiles/api.lock"} <= {place["artifactLocation"]["uri"] for place in places}
    assert audit.sarif() == run.of_locks().sarif()
    capsys.readouterr()
    with pytest.raises(AuditError):
        command.conclude(audit, "json")
    assert json.loads(capsys.readouterr().out) == body


def test_old_data_is_said(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audited(published)
    monkeypatch.setattr(data.Source, "age", lambda *_: 30)
    assert "the data of PyPI is 30 days old" in run.of_locks().notes


def test_support_that_ended_is_said(published: Path) -> None:
    assert any(
        note.startswith("Debian 12: security updates of Debian's security team ended") for note in audited(published).notes
    )
