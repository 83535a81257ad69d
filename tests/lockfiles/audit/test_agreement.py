"""Agreement with other readers of the same data.

`samples/pip-audit.json` is what pip-audit 2.10.1 makes of the sample records: its OSV service, given each as OSV's answer. It
matches no versions itself, OSV's server does. What that server matches stands in the records: it fills `versions` in.
debsecan (0.4.20) calls a package vulnerable whose source version is lower than the fixed one, as dpkg orders them.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
from typing import Any

import pytest
from packaging.version import Version

from lockfiles.audit import locked, osv, tracker, versions
from lockfiles.audit.model import Finding, Package
from tests.lockfiles.audit.records import SAMPLES, sample

RECORDED: list[dict[str, Any]] = json.loads((SAMPLES / "pip-audit.json").read_bytes())


def judged(name: str, version: str, body: dict[str, Any]) -> list[Finding]:
    package = locked.python(name, version)
    return osv.judge(package, [osv.read(json.dumps(kept)) for _, _, kept in osv.parse(body)])


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: f"{row['sample']} {row['version']} {row.get('withdrawn', '')}")
def test_the_names_and_fixes_are_those_of_pip_audit(row: dict[str, Any]) -> None:
    ours = judged(row["package"], row["version"], {**sample(row["sample"]), "withdrawn": row.get("withdrawn")})
    assert [set(one.ids) for one in ours] == [{said["id"], *said["aliases"]} for said in row["said"]]
    for one, said in zip(ours, row["said"], strict=True):
        # pip-audit lists the ends of all ranges; here it is those above this version, of ranges that hold it.
        assert set(one.fixed) == {fix for fix in said["fix"] if Version(fix) > Version(row["version"])}


@pytest.mark.parametrize("name", ["PYSEC-2023-212", "PYSEC-2022-43015"])
def test_ranges_hold_the_versions_that_osv_lists(name: str) -> None:
    body = sample(name)
    (affected,) = body["affected"]
    listed, package = affected["versions"], affected["package"]["name"]
    assert listed
    bare = {**body, "affected": [{**affected, "versions": []}]}
    fixed = [event["fixed"] for span in affected["ranges"][1:] for event in span["events"] if "fixed" in event]
    assert [version for version in (*listed, *fixed) if judged(package, version, bare)] == listed


def _version(chance: random.Random) -> str:
    upstream = "".join(chance.choice("0123a.+~-") for _ in range(chance.randint(0, 5)))
    text = f"{chance.randint(0, 3)}{upstream.rstrip('-.+~')}"
    epoch, revision = chance.choice(("", "", "0:", "1:")), chance.choice(("", "-1", "-1+deb12u1", "-1~bpo12+1", "-0ubuntu1"))
    return f"{epoch}{text}{revision}"


@pytest.mark.host
def test_the_order_of_debian_versions_is_that_of_dpkg() -> None:
    chance = random.Random(7)
    pairs = [(_version(chance), _version(chance)) for _ in range(150)]
    script = "".join(f"dpkg --compare-versions '{one}' lt '{other}' && echo yes || echo no\n" for one, other in pairs)
    said = subprocess.run(["/bin/sh"], input=script, capture_output=True, text=True, check=True).stdout.split()
    ours = ["yes" if versions.key("Debian", one) < versions.key("Debian", other) else "no" for one, other in pairs]
    assert list(zip(pairs, ours, strict=True)) == list(zip(pairs, said, strict=True))
    assert {"yes", "no"} == set(said)
    for (one, other), lower in zip(pairs, said, strict=True):
        verdict = {"status": "resolved", "fixed_version": other, "urgency": "", "nodsa": "", "summary": ""}
        found = tracker.judge(Package("Debian", "x", one), "CVE-2026-1", verdict)
        # To the tracker a fixed version of 0 says that the release was never affected.
        assert (found is not None) is (lower == "yes" and not re.fullmatch(r"(0:)?0", other))
