"""The SBOM: valid by the library's strict validator, the same bytes for the same locks, complete, and without a location."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from common import paths
from lockfiles import inputs, lockfile, sbom
from lockfiles.licences import spdx
from lockfiles.model import BaseLock, Deb, SetLock, Wheel
from tests.lockfiles.conftest import artifact

pytestmark = pytest.mark.slow

BASE = BaseLock(
    "sha256:1",
    "2026-01-02",
    (
        Deb("g++", "4:12.2.0-3", "amd64", artifact("g++_12.2.0-3_amd64.deb"), ("libc6",), licence="GPL-3.0-or-later"),
        Deb(
            "libc6",
            "2.36-9+deb12u14",
            "amd64",
            artifact("libc6.deb"),
            ("libgcc", "virtual"),
            essential=True,
            licence="GPL-2.0+",
        ),
        Deb("libgcc", "12~x", "all", artifact("libgcc.deb"), ("libc6",), licence=""),
    ),
)
SMALL = SetLock(
    "small",
    "sha256:2",
    "2026-01-03",
    "3.11.2",
    "2.36",
    (
        Wheel("cuda", "1.0", artifact("cuda-1.0-py3-none-any.whl"), licence=spdx.NVIDIA_CUDA),
        Wheel("one", "1.0+cpu", artifact("one-1.0+cpu-py3-none-any.whl"), needs=("cuda[extra]==1.*", "one[more]", "absent>2")),
        Wheel("ring-a", "1", artifact("ring_a-1-py3-none-any.whl"), needs=("Ring_B",), licence="MIT"),
        Wheel("ring-b", "1", artifact("ring_b-1-py3-none-any.whl"), needs=("ring-a>=1; x",), licence="MIT"),
        Wheel("vllm", "0.28.0+cpu", artifact("vllm-0.28.0+cpu-py3-none-any.whl"), shim=True),
        Wheel("zsrc", "2", artifact("zsrc-2-py3-none-any.whl"), artifact("zsrc-2.tar.gz"), licence="MIT OR Apache-2.0"),
    ),
)


FILES = {"/opt/tool/run.py": "ab" * 32, "/opt/tool/settings.toml": "cd" * 32}


def _made(base: BaseLock = BASE, lock: SetLock = SMALL, version: str = "1.0-abc", files: Mapping[str, str] = FILES) -> bytes:
    return sbom.make(name="image", version=version, base=base, lock=lock, files=files)


@pytest.fixture(scope="module")
def body() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(_made())
    return made


def _component(body: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [component for component in body["components"] if component["name"] == name]
    return {**found, "properties": {entry["name"]: entry["value"] for entry in found["properties"]}}


def _depends(body: dict[str, Any]) -> dict[str, list[str]]:
    names = {component["bom-ref"]: component["name"] for component in [*body["components"], body["metadata"]["component"]]}
    return {names[entry["ref"]]: sorted(names[ref] for ref in entry.get("dependsOn", [])) for entry in body["dependencies"]}


def _problem(made: bytes) -> object:
    return JsonStrictValidator(max(SchemaVersion, key=lambda version: version.value)).validate_str(made.decode())


def test_it_is_valid_by_the_newest_schema_that_the_library_knows(body: dict[str, Any]) -> None:
    assert _problem(_made()) is None
    assert body["specVersion"] == "1.7"


def test_the_validator_would_object(body: dict[str, Any]) -> None:
    assert _problem(json.dumps({**body, "serialNumber": "no uuid"}).encode()) is not None
    assert _problem(json.dumps({**body, "unheard-of": 1}).encode()) is not None


@pytest.mark.parametrize("name", inputs.set_names())
def test_the_real_locks_give_a_valid_sbom_of_every_package_without_a_location(name: str) -> None:
    base, lock = lockfile.read_base(), lockfile.read_set(name)
    made = _made(base, lock, files={})
    assert _problem(made) is None
    body = json.loads(made)
    hashes = {component["hashes"][0]["content"] for component in body["components"]}
    assert hashes == {deb.artifact.sha256 for deb in base.debs} | {wheel.artifact.sha256 for wheel in lock.wheels}
    assert len(body["components"]) == len(base.debs) + len(lock.wheels)
    # The schema's own name is an address; nothing else is.
    body.pop("$schema")
    assert not re.findall(r"\w+://", json.dumps(body))
    unreached = {c["bom-ref"] for c in body["components"]} - _reached(body)
    assert not unreached


def _reached(body: dict[str, Any]) -> set[str]:
    edges = {entry["ref"]: entry.get("dependsOn", []) for entry in body["dependencies"]}
    found, pending = set(), [body["metadata"]["component"]["bom-ref"]]
    while pending:
        ref = pending.pop()
        if ref not in found:
            found.add(ref)
            pending += edges[ref]
    return found


def test_the_same_locks_give_the_same_bytes_in_another_process() -> None:
    code = (
        "import sys; from lockfiles import sbom; from tests.lockfiles import test_sbom as t; sys.stdout.buffer.write(t._made())"
    )
    env = {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "PYTHONPATH": str(paths.ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, env=env, capture_output=True, check=True)
    assert done.stdout == _made()


def test_other_content_gives_another_serial_number(body: dict[str, Any]) -> None:
    other_licence = dataclasses.replace(SMALL, wheels=(dataclasses.replace(SMALL.wheels[0], licence="MIT"), *SMALL.wheels[1:]))
    others = [_made(version="2"), _made(dataclasses.replace(BASE, debs=BASE.debs[1:])), _made(lock=other_licence)]
    others += [_made(files={}), _made(files={**FILES, "/opt/tool/run.py": "ef" * 32})]
    numbers = {json.loads(made)["serialNumber"] for made in others} | {body["serialNumber"]}
    assert len(numbers) == 6
    assert all(re.fullmatch(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", n) for n in numbers)


def test_a_file_of_the_repository_is_named_by_path_and_digest_and_the_image_depends_on_it(body: dict[str, Any]) -> None:
    assert [component for component in body["components"] if component["type"] == "file"] == [
        {"bom-ref": f"file:{path}", "hashes": [{"alg": "SHA-256", "content": sha256}], "name": path, "type": "file"}
        for path, sha256 in FILES.items()
    ]
    assert set(_depends(body)["image"]) >= set(FILES)


def test_its_time_is_that_of_the_newest_lock(body: dict[str, Any]) -> None:
    assert body["metadata"]["timestamp"] == "2026-01-03T00:00:00+00:00"


def test_a_deb_stands_with_its_purl_hash_licence_file_and_size(body: dict[str, Any]) -> None:
    found = _component(body, "g++")
    purl = PackageURL.from_string(found["purl"])
    assert purl == PackageURL("deb", "debian", "g++", "4:12.2.0-3", {"arch": "amd64", "distro": "debian-12"})
    assert found["version"] == "4:12.2.0-3"
    assert found["hashes"] == [{"alg": "SHA-256", "content": BASE.debs[0].artifact.sha256}]
    assert found["licenses"] == [{"acknowledgement": "declared", "expression": "GPL-3.0-or-later"}]
    assert found["properties"] == {"pinwheel:file": "g++_12.2.0-3_amd64.deb", "pinwheel:size": "22"}


def test_a_wheel_stands_with_its_purl(body: dict[str, Any]) -> None:
    assert PackageURL.from_string(_component(body, "one")["purl"]) == PackageURL("pypi", None, "one", "1.0+cpu")


def test_the_non_free_are_called_out_and_no_other(body: dict[str, Any]) -> None:
    marked = {c["name"] for c in body["components"] if "pinwheel:non-free" in json.dumps(c.get("properties"))}
    assert marked == {"cuda"}


def test_an_untold_licence_is_said_to_be_unknown(body: dict[str, Any]) -> None:
    assert _component(body, "libgcc")["licenses"][0]["expression"] == spdx.UNKNOWN


def test_a_shim_is_marked(body: dict[str, Any]) -> None:
    assert _component(body, "vllm")["properties"]["pinwheel:shim"] == "true"


def test_a_source_is_the_wheels_ancestor_with_its_own_hash(body: dict[str, Any]) -> None:
    (ancestor,) = _component(body, "zsrc")["pedigree"]["ancestors"]
    sdist = SMALL.wheels[-1].sdist
    assert sdist is not None
    assert ancestor["hashes"] == [{"alg": "SHA-256", "content": sdist.sha256}]
    assert ancestor["purl"] == "pkg:pypi/zsrc@2?file_name=zsrc-2.tar.gz"


def test_what_built_a_wheel_and_that_it_is_not_reproducible_is_said() -> None:
    zsrc = SMALL.wheels[-1]
    need = artifact("setuptools-84.2.1-py3-none-any.whl")
    made = sbom._wheel(dataclasses.replace(zsrc, build=(need,), reproducible=False))
    assert made.pedigree is not None
    assert "not reproducible, as its input states" in (made.pedigree.notes or "")
    (builder,) = [one for one in made.pedigree.ancestors if one.name == "setuptools"]
    assert [one.content for one in builder.hashes] == [need.sha256]


def test_the_graph_follows_needs_to_what_the_locks_hold(body: dict[str, Any]) -> None:
    assert _depends(body) == {
        # What nobody needs, what is essential, and one of the ring.
        "image": ["/opt/tool/run.py", "/opt/tool/settings.toml", "g++", "libc6", "one", "ring-a", "vllm", "zsrc"],
        "/opt/tool/run.py": [],
        "/opt/tool/settings.toml": [],
        "cuda": [],
        "g++": ["libc6"],
        "libc6": ["libgcc"],
        "libgcc": ["libc6"],
        "one": ["cuda"],
        "ring-a": ["ring-b"],
        "ring-b": ["ring-a"],
        "vllm": [],
        "zsrc": [],
    }
