"""What an image holds is what its signed SBOM says; of what nobody signed, nothing is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.errors import PolicyError
from lockfiles.audit.model import Package
from oci.client.access import Access
from registry import contents
from tests.oci.double import Double
from tests.registry.pushing import DIGEST, proof, push, ran, reference
from tests.registry.signing import OTHER, OWN, REPOSITORY


def test_the_packages_of_a_pushed_image_by_its_sbom(own_folders: Path, double: Double) -> None:
    push(double, proof(smoke=ran()))
    pinned, found = contents.of_image(reference(double), OWN.public_key(), Access())
    assert str(pinned) == f"{double.address}/{REPOSITORY}@{DIGEST}"
    assert found == {Package("PyPI", "jieba", "0.42.1", "jieba"), Package("Debian", "bash", "5.2", "bash")}


def test_an_sbom_of_another_key_says_nothing(own_folders: Path, double: Double) -> None:
    push(double, proof(smoke=ran()))
    with pytest.raises(PolicyError, match="no SBOM that this key signed is attached"):
        contents.of_image(reference(double), OTHER.public_key(), Access())


def test_what_an_sbom_names_otherwise_is_passed_over() -> None:
    listed = [{"purl": "pkg:generic/x@1"}, {"purl": "nonsense"}, {}, {"purl": "pkg:pypi/no-version"}, {"name": "file"}]
    listed += [{"purl": "pkg:deb/ubuntu/bash@5.2"}]
    assert contents.packages({"components": listed}) == frozenset()
    assert contents.packages({}) == frozenset()


def test_the_public_key_is_read_from_its_file(own_folders: Path, double: Double) -> None:
    file = own_folders / "own.pub"
    file.write_bytes(OWN.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(PolicyError, match="no SBOM"):
        contents.audit([f"{double.address}/{REPOSITORY}@{DIGEST}"], str(file))


def test_a_shim_holds_nothing_of_the_package_that_it_names() -> None:
    shim = {"purl": "pkg:pypi/vllm@0.28.0", "properties": [{"name": "pinwheel:shim", "value": "true"}]}
    other = {"purl": "pkg:pypi/jieba@0.42.1", "properties": [{"name": "pinwheel:file", "value": "x"}]}
    assert {one.name for one in contents.packages({"components": [shim, other]})} == {"jieba"}


def test_debian_packages_of_another_base_are_said_to_be_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = contents.packages({"components": [{"purl": "pkg:deb/debian/libssl3@0.1"}]})
    assert found == Package("Debian", "libssl3", "0.1", "libssl3")
    assert "1 Debian packages are not those of base.lock" in capsys.readouterr().err
