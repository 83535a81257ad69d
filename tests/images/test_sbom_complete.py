"""An image's SBOM names what is in the image, and nothing else. The real images are compared in tests/test_line.py."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from images import build, receipt, spec
from images.plan import BIG
from images.receipt import BuiltImage
from images.recipe import recipe_of
from lockfiles import lockfile, sbom
from lockfiles.debian import rootfs
from lockfiles.debian.rootfs import Rootfs
from lockfiles.model import BaseLock, SetLock, Wheel
from lockfiles.python import shim
from oci.layout import Layout
from tests.images.inside import Packages, check_complete, of_image
from tests.images.wheels.wheels import make, stored

pytestmark = pytest.mark.host
BASE = lockfile.read_base()


@dataclasses.dataclass(frozen=True)
class Built:
    """A small image, and the lock and the repository's files it was built from."""

    image: BuiltImage
    lock: SetLock
    files: dict[str, str]

    def sbom(self, lock: SetLock | None = None, base: BaseLock = BASE, files: dict[str, str] | None = None) -> bytes:
        files = self.files if files is None else files
        return sbom.make(name=self.image.name, version=self.image.version, base=base, lock=lock or self.lock, files=files)


@pytest.fixture
def built(own_folders: Path, monkeypatch: pytest.MonkeyPatch, root: Rootfs) -> Built:
    """An image of the real base's packages, four wheels with names as authors write them, one big, and a shim."""
    own_folders.mkdir(exist_ok=True)
    vendored = "vendors/_vendor/inner-1.dist-info/METADATA"
    wheels = [
        stored(make(own_folders, files, name=name, version=version))
        for name, version, files in (
            ("llamafactory", "0.9.5", {"llamafactory/__init__.py": b""}),
            ("Zope_Like", "1.0rc1", {"zope/__init__.py": b"x = 1\n"}),
            ("vendors", "2", {"vendors/__init__.py": b"", vendored: b"Metadata-Version: 2.1\nName: inner\nVersion: 1\n"}),
            ("large", "1.2.3+cu128", {"large.bin": random.Random(0).randbytes(BIG)}),
        )
    ]
    lock = SetLock("small", "sha256:0", "2026-01-02", "3.11.2", "2.36", _sorted([*wheels, shim.make("vllm", "0.28.0+cpu")]))
    monkeypatch.setattr(lockfile, "read_set", lambda _: lock)
    monkeypatch.setattr(rootfs, "made", lambda *_: root)
    recipe = recipe_of(spec.read("train"), BASE)
    assert recipe.files
    files = {f"/{file.path}": file.sha256 for file in recipe.files.files}
    return Built(build._build(Layout(receipt.layout()), [recipe], BASE, root)[0], lock, files)


def _sorted(wheels: list[Wheel]) -> tuple[Wheel, ...]:
    return tuple(sorted(wheels, key=lambda wheel: wheel.name))


def test_the_sbom_names_what_dpkg_and_importlib_find_and_nothing_else(built: Built, tmp_path: Path) -> None:
    both = check_complete(built.sbom(), Layout(receipt.layout()), built.image.digest, tmp_path / "inside")
    assert both.debs >= {(deb.name, deb.version, deb.arch) for deb in BASE.debs if deb.name in ("libc6", "python3.11", "g++")}
    assert both.wheels == {
        ("llamafactory", "0.9.5"),
        ("zope-like", "1.0rc1"),
        ("vendors", "2"),
        ("large", "1.2.3+cu128"),
        ("vllm", "0.28.0+cpu"),
    }


def test_a_wheel_that_the_sbom_leaves_out_is_found(built: Built, tmp_path: Path) -> None:
    less = dataclasses.replace(built.lock, wheels=built.lock.wheels[1:])
    with pytest.raises(AssertionError, match=r"in the image, not in the SBOM: \[\('large', "):
        check_complete(built.sbom(less), Layout(receipt.layout()), built.image.digest, tmp_path / "inside")


def test_a_wheel_that_the_image_lacks_is_found(built: Built, tmp_path: Path) -> None:
    more = dataclasses.replace(
        built.lock, wheels=(*built.lock.wheels, dataclasses.replace(built.lock.wheels[0], name="absent"))
    )
    with pytest.raises(AssertionError, match=r"in the SBOM, not in the image: \[\('absent', "):
        check_complete(built.sbom(more), Layout(receipt.layout()), built.image.digest, tmp_path / "inside")


def test_the_files_of_the_repository_are_named_with_their_digests_both_ways(built: Built, tmp_path: Path) -> None:
    layout, digest, path = Layout(receipt.layout()), built.image.digest, "/opt/pinwheel/oci/__init__.py"
    assert path in built.files
    less = {name: sha256 for name, sha256 in built.files.items() if name != path}
    with pytest.raises(AssertionError, match=r"in the image, not in the SBOM: \[\('/opt/pinwheel/oci/__init__.py', "):
        check_complete(built.sbom(files=less), layout, digest, tmp_path / "less")
    with pytest.raises(AssertionError, match=r"in the SBOM, not in the image: \[\('/opt/pinwheel/more.py', "):
        check_complete(built.sbom(files={**built.files, "/opt/pinwheel/more.py": "0" * 64}), layout, digest, tmp_path / "more")
    with pytest.raises(AssertionError, match=r"in the SBOM, not in the image: \[\('/opt/pinwheel/oci/__init__.py', '000"):
        check_complete(built.sbom(files={**built.files, path: "0" * 64}), layout, digest, tmp_path / "other")


def test_a_deb_of_another_version_is_found(built: Built, tmp_path: Path) -> None:
    debs = tuple(dataclasses.replace(deb, version="0") if deb.name == "libc6" else deb for deb in BASE.debs)
    other = built.sbom(base=dataclasses.replace(BASE, debs=debs))
    with pytest.raises(AssertionError, match=r"in the SBOM, not in the image: \[\('libc6', '0'"):
        check_complete(other, Layout(receipt.layout()), built.image.digest, tmp_path / "inside")


def test_a_vendored_package_is_not_taken_for_an_installed_one(built: Built, tmp_path: Path) -> None:
    found: Packages = of_image(Layout(receipt.layout()), built.image.digest, tmp_path / "inside")
    assert "inner" not in {name for name, _ in found.wheels}
