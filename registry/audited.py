"""What is known of an image's packages on the day of its push, as statements for readers elsewhere.

The audit is in-toto's predicate for vulnerability reports (https://in-toto.io/attestation/vulns, 0.2); what does not apply
here, and what nobody has looked at yet, is OpenVEX 0.2.0 (https://openvex.dev). Both say what was known then: a deploy judges
by the data of its own day. The same day, data and SBOM give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from packageurl import PackageURL

from common import console
from common.errors import MissingEnvironmentError
from lockfiles.audit import run, vex
from lockfiles.audit.model import Finding
from lockfiles.audit.report import Audit
from oci.descriptor import canonical
from registry import contents, provenance

AUDIT = "https://in-toto.io/attestation/vulns/v0.2"
# The predicate's type is OpenVEX's context (OpenVEX, "Attesting").
VEX = "https://openvex.dev/ns/v0.2.0"


def predicates(name: str, digest: str, sbom: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The predicates of both kinds; of OpenVEX none where no defect is known, and nothing where there is no advisory data.

    Args:
        name: of the image.
        digest: of its manifest.
        sbom: its SBOM, CycloneDX.
    """
    try:
        audit = run.judge(name, {package: {name} for package in contents.packages(sbom)})
    except MissingEnvironmentError as problem:
        console.warn(f"{name}: no audit is attached: {problem.line()}")
        return {}
    found = {AUDIT: _report(audit)}
    return found | ({VEX: _openvex(audit, name, digest)} if audit.findings else {})


def _report(audit: Audit) -> dict[str, Any]:
    day = f"{audit.date}T00:00:00Z"
    data = {
        # The oldest part decides how old the data is.
        "lastUpdate": min(source.fetched for source in audit.sources),
        "version": ", ".join(f"{source.ecosystem} sha256:{source.sha256.removeprefix('sha256:')}" for source in audit.sources),
    }
    scanner = {"uri": provenance.project(), "version": provenance.version(), "db": data}
    return {
        "scanner": {**scanner, "result": [_result(one) for one in _sorted(audit.findings)]},
        "metadata": {"scanStartedOn": day, "scanFinishedOn": day},
    }


def _result(one: Finding) -> dict[str, Any]:
    told = {"package": _purl(one), "aliases": ", ".join(one.ids[1:]), "fixed": ", ".join(one.fixed), "vex": one.vex}
    return {
        "id": one.ids[0],
        "severity": [{"method": "pinwheel", "score": one.severity}],
        "annotations": [{key: value} for key, value in told.items() if value],
    }


def _openvex(audit: Audit, name: str, digest: str) -> dict[str, Any]:
    known = vex.read()
    statements = []
    for one in _sorted(audit.findings):
        said = vex.silencing(one, known, audit.day)
        product = {"@id": str(PackageURL("oci", None, name, digest)), "subcomponents": [{"@id": _purl(one)}]}
        vulnerability = {"name": one.ids[0], **({"aliases": list(one.ids[1:])} if one.ids[1:] else {})}
        body: dict[str, Any] = {"vulnerability": vulnerability, "products": [product], "status": "under_investigation"}
        if said and said.status == "not_affected":
            body |= {"status": said.status, "justification": said.justification, "impact_statement": said.reason}
        elif said:
            body |= {"status": said.status, "status_notes": said.reason}
        statements.append(body)
    identifier = hashlib.sha256(canonical({"digest": digest, "statements": statements})).hexdigest()
    return {
        "@context": VEX,
        "@id": f"{provenance.project()}/vex/{identifier}",
        "author": provenance.builder(),
        "timestamp": f"{audit.date}T00:00:00Z",
        "version": 1,
        "statements": statements,
    }


def _sorted(findings: Sequence[Finding]) -> list[Finding]:
    """Without regard to what was new at the last audit of this machine."""
    return sorted(findings)


def _purl(one: Finding) -> str:
    package = one.package
    if package.ecosystem == "Debian":
        # Advisories name source packages.
        return str(PackageURL("deb", "debian", package.name, package.version, {"arch": "source"}))
    return str(PackageURL("pypi", None, package.name, package.version))
