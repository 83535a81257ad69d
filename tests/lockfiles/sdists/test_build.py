"""Wheels that are built from sdists."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from common import paths
from common.errors import BuildError, LockError
from lockfiles import inputs, lockfile, store
from lockfiles.debian import resolver, rootfs
from lockfiles.inputs import SdistInput
from lockfiles.model import Artifact, BaseLock, Deb, SetLock, Wheel
from lockfiles.python import index
from lockfiles.sdists import build, requirements, sandbox
from tests.lockfiles.conftest import artifact
from tests.lockfiles.sdists.conftest import own_backend, stored, tar_gz, zipped
from tests.lockfiles.small_index import wheel as small_wheel

SETUP = "from setuptools import setup\nsetup(name='one', version='1.0', py_modules=['one'], install_requires=[{requires}])\n"
ONE = SdistInput("one", "1.0", ())


@pytest.fixture(scope="module")
def base() -> BaseLock:
    """The base of the real locks, in the user's own store: 105 MB on a fresh machine."""
    lock = lockfile.read_base()
    resolver.fetch(lock.debs)
    return lock


@pytest.fixture(scope="module")
def setuptools() -> Artifact:
    """The setuptools of the real locks, in the user's own store."""
    wheel = next(w for w in lockfile.read_set("train").wheels if w.name == "setuptools").artifact
    with index.session() as http:
        store.download([wheel], index.Locator(http), http)
    return wheel


def nothing(requires: tuple[str, ...]) -> tuple[Artifact, ...]:
    assert requires == ()
    return ()


def locked(base: BaseLock, files: dict[str, str], wanted: SdistInput = ONE, *, as_zip: bool = False) -> Wheel:
    """Build an sdist that brings its own backend."""
    made = stored("one-1.0.zip", zipped(files)) if as_zip else stored("one-1.0.tar.gz", tar_gz(files))
    return build.lock_built(base, wanted, made, nothing)


def names(wheel: Wheel) -> list[str]:
    return zipfile.ZipFile(store.verified(wheel.artifact)).namelist()


@pytest.mark.host
def test_without_a_pyproject_setuptools_builds_it_without_network_in_the_bases_own_python(
    base: BaseLock, setuptools: Artifact
) -> None:
    spy = (
        "import socket, sys, pathlib\n"
        "assert sys.version.startswith('3.11.2 '), sys.version\n"
        f"assert not pathlib.Path({str(paths.ROOT)!r}).exists()\n"
        "try:\n    socket.create_connection(('127.0.0.1', 5000), 1)\nexcept OSError as e:\n    assert e.errno == 101, e\n"
        "else:\n    raise SystemExit('network')\n"
    )
    source = stored(
        "one-1.0.tar.gz", tar_gz({"one-1.0/setup.py": spy + SETUP.format(requires="'two'"), "one-1.0/one.py": "x = 1\n"})
    )
    asked = []

    def resolve(requires: tuple[str, ...]) -> tuple[Artifact, ...]:
        asked.append(requires)
        return (setuptools,)

    wheel = build.lock_built(base, SdistInput("one", "1.0", ("two",)), source, resolve)
    assert asked == [("setuptools>=40.8.0",)]
    assert "one.py" in names(wheel)
    assert (wheel.sdist, wheel.build) == (source, (setuptools,))


def test_what_is_put_in_the_stores_place_while_an_environment_is_made_gets_into_none(
    own_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = stored("two-1.0-py3-none-any.whl", small_wheel("two", "1.0"))
    source = stored("one-1.0.tar.gz", tar_gz(own_backend()))
    real = store.opened

    @contextmanager
    def swapped(artifact: Artifact) -> Iterator[BinaryIO]:
        with real(artifact) as file:
            (tmp_path / "evil").write_bytes(small_wheel("two", "1.0", ["evil"]))
            (tmp_path / "evil").replace(store.path(artifact))
            yield file

    monkeypatch.setattr(store, "opened", swapped)
    monkeypatch.setattr(rootfs, "made", lambda _: rootfs.Rootfs(tmp_path, tmp_path, ""))
    base = BaseLock("", "2026-01-02", (Deb("python3.11", "3.11.2-6", "amd64", artifact("python.deb")),))
    with build.workshop(base, source, (sound,)) as shop:
        held = (shop.given / "env/lib/python3.11/site-packages/two-1.0.dist-info/METADATA").read_text()
        assert "evil" not in held
        assert artifact(source.file, (shop.given / source.file).read_bytes()) == source


@pytest.mark.host
def test_the_declared_backend_builds_it_from_both_forms_to_the_same_bytes(base: BaseLock) -> None:
    files = own_backend()
    tar, zip_ = locked(base, files), locked(base, files, as_zip=True)
    assert tar.artifact == zip_.artifact
    assert names(tar)[0] == "one.py"
    assert tar.build == ()


@pytest.mark.host
@pytest.mark.parametrize("backend", ["hatchling", "poetry-core", "flit-core", "setuptools-scm", "cython", "scikit-build-core"])
def test_the_backends_in_use_build_a_package_with_its_data(backend: str, base: BaseLock) -> None:
    """Each from your index; with what its own hook asks for beyond what is declared."""
    project = '[project]\nname = "one"\nversion = "1.0"\ndescription = "x"\n'
    data = '[tool.setuptools.package-data]\none = ["*.txt"]\n'
    fast = '[[tool.setuptools.ext-modules]]\nname = "one.fast"\nsources = ["src/one/fast.pyx"]\n'
    dynamic = '[project]\nname = "one"\ndynamic = ["version"]\n[tool.setuptools_scm]\n'
    poetry = '[tool.poetry]\npackages = [{include = "one", from = "src"}]\n'
    cmake = "cmake_minimum_required(VERSION 3.15)\nproject(one)\ninstall(FILES src/one/data.txt DESTINATION one)"
    legacy = "setuptools.build_meta"
    system = {
        "hatchling": ("hatchling", "hatchling.build", project, {}),
        "flit-core": ("flit_core", "flit_core.buildapi", project, {}),
        "poetry-core": ("poetry-core", "poetry.core.masonry.api", project + poetry, {}),
        "setuptools-scm": ('setuptools", "setuptools-scm', legacy, dynamic + data, {"PKG-INFO": "Name: one\nVersion: 1.0\n"}),
        "cython": (
            'setuptools", "cython',
            legacy,
            project + data + fast,
            {"src/one/fast.pyx": "def f(int x):\n    return x\n"},
        ),
        "scikit-build-core": ("scikit-build-core", "scikit_build_core.build", project, {"CMakeLists.txt": cmake}),
    }
    module = {"src/one/__init__.py": '"""One."""\n', "src/one/data.txt": "1\n"}
    needs, name, rest, files = system[backend]
    head = f'[build-system]\nrequires = ["{needs}"]\nbuild-backend = "{name}"\n'
    source = stored(
        "one-1.0.tar.gz", tar_gz({f"one-1.0/{n}": x for n, x in {"pyproject.toml": head + rest, **module, **files}.items()})
    )
    with index.session() as http:
        resolve = requirements.resolver(inputs.read_set("train"), base, {}, None, http)
        wheel = build.lock_built(base, ONE, source, resolve)
    assert "one/data.txt" in names(wheel)
    if backend == "cython":
        assert any(name.startswith("one/fast.cpython-311") for name in names(wheel))
    if backend == "scikit-build-core":
        assert {"cmake", "ninja"} <= {file.file.partition("-")[0] for file in wheel.build or ()}


@pytest.mark.host
def test_what_the_backend_asks_for_beyond_is_locked_too(base: BaseLock) -> None:
    helper = stored("two-2.0-py3-none-any.whl", _wheel("two", "2.0"))
    asked = []

    def resolve(requires: tuple[str, ...]) -> tuple[Artifact, ...]:
        asked.append(requires)
        return (helper,) if requires else ()

    before = "import importlib.metadata; assert importlib.metadata.version('two') == '2.0'"
    source = stored("one-1.0.tar.gz", tar_gz(own_backend("ASKS = ['two>=1', 'never; python_version < \"3\"']", before)))
    assert build.lock_built(base, ONE, source, resolve).build == (helper,)
    assert asked == [(), ("two>=1",)]


@pytest.mark.host
def test_what_the_input_states_to_build_with_replaces_what_is_declared(base: BaseLock) -> None:
    source = stored("one-1.0.tar.gz", tar_gz(own_backend(requires='"no-such-thing"')))
    assert build.lock_built(base, replace(ONE, build=()), source, nothing).build == ()


@pytest.mark.host
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("NAME = 'evil'", "one-1.0.tar.gz builds evil 1.0, and not one 1.0"),
        ("VERSION = '0.0.0'", "one-1.0.tar.gz builds one 0.0.0, and not one 1.0"),
        ("TAG = 'cp39-cp39-win_amd64'", "builds a wheel that the base cannot run"),
        ("NAME = '../one'", "failed"),
        ("TAG = 'py3'", "which is no wheel"),
    ],
)
def test_a_wheel_of_another_name_version_or_platform_is_refused_before_anything_is_kept(
    settings: str, said: str, base: BaseLock, own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_the_users_base(monkeypatch, base)
    with pytest.raises(BuildError, match=said):
        locked(base, own_backend(settings))
    assert [file.name for file in (own_folders / "cache/store").rglob("*") if file.suffix == ".whl"] == []
    assert not (own_folders / "cache/built").exists()


@pytest.mark.host
def test_a_wheel_whose_metadata_is_of_another_package_is_refused(base: BaseLock) -> None:
    with pytest.raises(BuildError, match=r"builds evil 1.0, and not one 1.0"):
        locked(
            base,
            own_backend(
                before="global NAME; NAME = 'evil'; real = os.path.join; os.path.join = lambda f, n: real(f, 'one' + n[4:])"
            ),
        )


@pytest.mark.host
@pytest.mark.parametrize(
    ("asks", "stated", "fits"),
    [
        (["evil"], (), False),
        ([], ("two",), False),
        (["two>=1,<3"], ("two<3,>=1",), True),
        (["two; extra == 'dev'"], (), True),
        (["two; extra == 'dev'"], ('two; extra == "dev"',), True),
        (["two; python_version < '3.5'"], (), True),
        (["two; sys_platform == 'linux'"], (), False),
    ],
)
def test_a_source_that_asks_for_other_packages_than_stated_is_refused_with_the_line_to_write(
    asks: list[str], stated: tuple[str, ...], fits: bool, base: BaseLock
) -> None:
    files, wanted = own_backend(f"REQUIRES = {asks!r}"), SdistInput("one", "1.0", stated)
    if fits:
        assert locked(base, files, wanted).name == "one"
        return
    with pytest.raises(LockError, match=r"one-1.0.tar.gz requires .*, the input states .*: write `requires = \["):
        locked(base, files, wanted)


@pytest.mark.host
def test_a_source_whose_wheel_differs_each_time_is_refused_and_the_file_is_named(base: BaseLock) -> None:
    files = own_backend(before="pathlib.Path('src/noise.txt').write_text(os.urandom(8).hex())")
    with pytest.raises(BuildError, match=r"gives another wheel at each build \(noise.txt\).*`reproducible = false`"):
        locked(base, files)
    wheel = locked(base, files, replace(ONE, reproducible=False))
    assert not wheel.reproducible


@pytest.mark.host
def test_sets_times_modes_and_the_order_of_folders_do_not_differ_between_builds(base: BaseLock) -> None:
    """What most often does: a set's order, the clock, what is listed, names of the machine."""
    noise = (
        "pathlib.Path('src/noise.txt').write_text(repr([list(set('abcdefgh')), os.listdir('src'), os.getcwd(), os.getpid(), "
    )
    noise += "os.stat('src/one.py').st_mtime, os.environ, os.uname().nodename, os.umask(0)]))"
    assert locked(base, own_backend(before=noise)).reproducible


@pytest.mark.host
def test_what_is_locked_as_not_reproducible_is_taken_and_not_built_anew(base: BaseLock, tmp_path: Path) -> None:
    files = own_backend(before="pathlib.Path('src/noise.txt').write_text(os.urandom(8).hex())")
    wheel = locked(base, files, replace(ONE, reproducible=False))
    lock = SetLock("small", "", "", "3.11.2", "2.36", (wheel,))
    build.make_missing(base, lock)
    store.path(wheel.artifact).unlink()
    with pytest.raises(LockError, match="not reproducible, as its input states: take the wheel from the mirror"):
        build.make_missing(base, lock)


@pytest.mark.host
def test_a_wheel_that_left_the_store_is_built_again_from_the_locked_build_wheels(base: BaseLock) -> None:
    wheel = locked(base, own_backend())
    store.path(wheel.artifact).unlink()
    build.make_missing(base, SetLock("small", "", "", "3.11.2", "2.36", (wheel,)))
    assert store.has(wheel.artifact)


def test_a_source_of_an_older_lock_is_not_built_by_a_guess(base: BaseLock, own_folders: Path) -> None:
    old = Wheel("one", "1.0", artifact("one-1.0-py3-none-any.whl"), artifact("one-1.0.tar.gz"))
    with pytest.raises(LockError, match=r"one was locked when .* \(lockfiles/small.lock\): run `invoke lock`"):
        build.make_missing(base, SetLock("small", "", "", "3.11.2", "2.36", (old,)))


@pytest.mark.host
def test_a_package_whose_build_fails_is_named_with_the_end_of_its_output(base: BaseLock) -> None:
    with pytest.raises(BuildError, match=r"building one-1.0.tar.gz to a wheel failed \(.*License :: OSI"):
        locked(base, own_backend(before="raise ValueError('License :: OSI Approved')"))


@pytest.mark.host
@pytest.mark.parametrize("path", ["../../../evil.py", "/evil.py", "one-2.0.data/scripts/../../../../evil"])
def test_a_build_wheel_that_reaches_out_of_its_environment_is_refused(path: str, base: BaseLock, tmp_path: Path) -> None:
    helper = stored("two-2.0-py3-none-any.whl", _wheel("two", "2.0", {path: b"evil"}))
    source = stored("one-1.0.tar.gz", tar_gz(own_backend()))
    with pytest.raises(BuildError, match=r"a wheel that a build needs is broken: .*two-2.0-py3-none-any.whl"):
        build.lock_built(base, ONE, source, lambda _: (helper,))


def _wheel(name: str, version: str, more: dict[str, bytes] | None = None) -> bytes:
    """A wheel with a RECORD that lists everything."""
    held = io.BytesIO(small_wheel(name, version))
    with zipfile.ZipFile(held) as archive:
        files = {n: archive.read(n) for n in archive.namelist() if not n.endswith("RECORD")} | (more or {})
    info = f"{name}-{version}.dist-info"
    files[f"{info}/RECORD"] = ("".join(f"{n},,\n" for n in files) + f"{info}/RECORD,,\n").encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for n, data in files.items():
            archive.writestr(zipfile.ZipInfo(n), data)
    return made.getvalue()


def _with_the_users_base(monkeypatch: pytest.MonkeyPatch, base: BaseLock) -> None:
    """The root file system is not laid out again for a store of the test's own."""
    with monkeypatch.context() as users:
        for name in ("DIST", "CACHE", "STATE"):
            users.delenv(f"PINWHEEL_{name}")
        made = rootfs.made(base)
    monkeypatch.setattr(rootfs, "made", lambda _: made)


@pytest.mark.host
@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("count", [1, 40])
def test_an_archive_that_would_fill_the_disk_fills_the_room_and_no_more(
    count: int, as_zip: bool, base: BaseLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros, which pack to nothing: one large file, and many."""
    monkeypatch.setattr(sandbox, "DISK", 20 << 20)
    bomb = {f"one-1.0/{number}": "\0" * ((40 << 20) // count) for number in range(count)}
    with pytest.raises(BuildError, match=r"reading one-1.0.(tar.gz|zip) failed .*a build may take 120 minutes"):
        locked(base, {**own_backend(), **bomb}, as_zip=as_zip)


@pytest.mark.host
@pytest.mark.parametrize(
    "files",
    [{"one-1.0/../../evil": "x"}, {"/etc/evil": "x"}, {"a/b": "", "c/d": ""}, {"one-1.0/pyproject.toml": "[build-system]\n"}],
)
def test_a_hostile_archive_is_refused_by_name(files: dict[str, str], base: BaseLock) -> None:
    with pytest.raises(BuildError, match=r"reading one-1.0.tar.gz failed \(a broken or hostile archive: "):
        locked(base, files)
