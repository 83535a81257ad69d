"""What wheels say: requirements on the image's platform, and what torch was built for."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from common.errors import LockError
from lockfiles import store
from lockfiles.debian.relations import needs as deb_needs
from lockfiles.debian.relations import read
from lockfiles.model import Artifact, Gpu, Wheel
from lockfiles.python import gpu, index, metadata
from lockfiles.python.metadata import Metadata
from tests.lockfiles.conftest import fill
from tests.lockfiles.small_index import serving


def said(*requires: str) -> Metadata:
    return Metadata("Name: x\nVersion: 1\n" + "".join(f"Requires-Dist: {one}\n" for one in requires), {})


def needs(root: str, **known: Metadata) -> dict[str, tuple[str, ...]]:
    return metadata.needs([Requirement(root)], known, "3.11.2")


@pytest.mark.parametrize(
    ("marker", "holds"),
    [
        ("sys_platform == 'linux'", True),
        ("platform_system == 'Windows'", False),
        ("platform_machine == 'aarch64'", False),
        ("python_version < '3.11'", False),
        ("python_full_version >= '3.11.2'", True),
        ("python_full_version < '3.11.3'", True),
        ("implementation_name == 'pypy'", False),
        ("os_name == 'posix' and extra == ''", True),
    ],
)
def test_a_requirement_counts_when_its_marker_holds_in_the_image(marker: str, holds: bool) -> None:
    assert needs("one", one=said(f"two>=1; {marker}"), two=said())["one"] == (("two>=1",) if holds else ())


def test_extras_that_ask_for_extras_are_followed_to_the_end() -> None:
    found = needs(
        "one[all]",
        one=said('one[fast,small]; extra == "all"', 'two[deep]; extra == "fast"', 'three; extra == "small"'),
        two=said('four; extra == "deep"', 'five; extra == "other"'),
        three=said(),
        four=said(),
    )
    assert found == {"one": ("three", "two[deep]"), "two": ("four",), "three": (), "four": ()}


def test_a_circle_of_packages_ends() -> None:
    assert needs("one", one=said("two"), two=said("one")) == {"one": ("two",), "two": ("one",)}


def test_names_and_extras_are_normalised() -> None:
    assert needs("one", one=said("Two_Three[Some_Extra]>=1")) == {"one": ("two-three[some-extra]>=1",)}


def test_a_wheel_that_states_nonsense_is_named() -> None:
    with pytest.raises(LockError, match="x 1 states no valid requirement"):
        needs("one", one=said("two>=>1"))


def test_metadata_is_read_once_and_kept(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server, index.session() as http:
        monkeypatch.setenv("UV_DEFAULT_INDEX", server.address)
        server.add("one", "1.0", "two>=1")
        data = server.files["files/one-1.0-py3-none-any.whl"]
        wheel = Artifact("one-1.0-py3-none-any.whl", len(data), hashlib.sha256(data).hexdigest())
        first = metadata.read_all([wheel], index.Locator(http), http)
        asked = len(server.asked)
        assert metadata.read_all([wheel], index.Locator(http), http) == first
        assert len(server.asked) == asked
    assert [str(one) for one in first[wheel.sha256].requires()] == ["two>=1"]


def test_an_index_without_range_requests_still_serves(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server, index.session() as http:
        monkeypatch.setenv("UV_DEFAULT_INDEX", server.address)
        server.ranges = False
        server.add("one", "1.0", "two>=1")
        data = server.files["files/one-1.0-py3-none-any.whl"]
        wheel = Artifact("one-1.0-py3-none-any.whl", len(data), hashlib.sha256(data).hexdigest())
        found = metadata.read_all([wheel], index.Locator(http), http)
        assert store.has(wheel)
    assert [str(one) for one in found[wheel.sha256].requires()] == ["two>=1"]


def torch(own: str, libraries: bytes | None) -> Wheel:
    """A torch in the store; what it says of CUDA, and the bytes of the library with the list."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("torch/version.py", own)
        if libraries is not None:
            archive.writestr("torch/lib/libtorch_python.so", libraries)
    data = held.getvalue()
    artifact = Artifact("torch-2.0-py3-none-any.whl", len(data), hashlib.sha256(data).hexdigest())
    fill(artifact, data)
    return Wheel("torch", "2.0", artifact)


CUDA = "cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n"


def _needs(*wheels: Wheel) -> Gpu | None:
    with index.session() as http:
        return gpu.needs(wheels, index.Locator(http), http)


def test_torch_says_what_it_was_built_for(own_folders: Path) -> None:
    # As in 2.8.0: no zero byte before the list.
    one = torch(CUDA, b"\0std::string ipc_hsm_70 sm_75 sm_90a sm_120 compute_120\0sm_50 -m 64\0")
    assert _needs(one) == Gpu("12.8", 525, ("7.0", "7.5", "9.0", "12.0"))


def test_a_torch_without_cuda_asks_for_no_gpu(own_folders: Path) -> None:
    assert _needs(torch("cuda: Optional[str] = None\n", None)) is None
    assert _needs() is None


@pytest.mark.parametrize(
    ("own", "library", "message"),
    [
        (CUDA, b"nothing", "does not say for which GPUs"),
        (CUDA, None, "has no"),
        ("cuda = '99.0'\n", b"sm_75\0", "was built for CUDA 99.0"),
    ],
)
def test_a_torch_that_does_not_say_is_refused(own_folders: Path, own: str, library: bytes | None, message: str) -> None:
    with pytest.raises(LockError, match=message):
        _needs(torch(own, library))


def test_debs_need_what_satisfies_their_relations() -> None:
    chosen = {
        "app": read({"Depends": "lib (>= 1), awk | perl:any, mail-agent", "Pre-Depends": "base [amd64]"}),
        "lib": read({}),
        "mawk": read({"Provides": "awk (= 1.0)"}),
        "exim": read({"Provides": "mail-agent"}),
        "base": read({"Essential": "yes"}),
    }
    assert deb_needs(chosen)["app"] == ("base", "exim", "lib", "mawk")
    assert chosen["base"].essential


def test_a_relation_that_nothing_chosen_satisfies_is_left_out() -> None:
    assert deb_needs({"app": read({"Depends": "usrmerge | gone"})}) == {"app": ()}
