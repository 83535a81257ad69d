"""The SBOM in the older form of CycloneDX, against the library that writes both."""

from __future__ import annotations

import json

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from images import bill
from lockfiles import lockfile, sbom

pytestmark = pytest.mark.slow


def test_an_sbom_in_1_6_is_what_the_library_makes_of_it() -> None:
    data = sbom.make(
        name="image", version="1", base=lockfile.read_base(), lock=lockfile.read_set("train"), files={"/opt/x": "ab" * 32}
    )
    made = bill.as_1_6(data)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made.decode()) is None
    assert json.loads(made) == json.loads(JsonV1Dot6(Bom.from_json(json.loads(data))).output_as_string())  # type: ignore[attr-defined]
    assert [line for line in made.splitlines() if line not in set(data.splitlines())] == [
        b'  "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",',
        b'  "specVersion": "1.6"',
    ]
