"""The same locks give the same digest wherever and however they are built; and two builds that differ are told apart."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from common import paths
from common.errors import BuildError
from common.files import sha256_bytes
from common.run import run
from images import compare, layer
from images.plan import LayerPlan
from images.receipt import BuiltImage, BuiltLayer
from images.tarball import LayerWriter
from lockfiles.debian.rootfs import Rootfs
from oci.layout import Layout
from tests.images import small_build
from tests.images.wheels.wheels import stored

# See test_golden_digests_of_a_wheel_layer.
GOLDEN_TAR = "sha256:a81a5315037d6296e44167bd010e7dcfaf4e59c4c112eca62def0246cd9d5e6c"
GOLDEN_BLOB = "sha256:e28105822f88bf7b52a46193d9d014c9af3de59f46d2064e9536f04d85034c07"
_NOBODY = 65534
_ALL_OF_US = ["common", "oci", "lockfiles", "images", "smoke", "registry", "k8s", "bench", "tests", "tasks.py"]

# Run by the child's interpreter before all else: a file system that lists in another order, a clock elsewhere, more cores.
_SHUFFLED = """
import os, random
_listdir, _scandir = os.listdir, os.scandir
def listdir(*a, **k):
    found = sorted(_listdir(*a, **k))
    random.Random(len(found)).shuffle(found)
    return found
class scandir:
    def __init__(self, *a, **k):
        self._it = _scandir(*a, **k)
        self._all = sorted(self._it, key=lambda e: e.name, reverse=True)
    def __iter__(self): return iter(self._all)
    def __next__(self):
        if not self._all: raise StopIteration
        return self._all.pop(0)
    def __enter__(self): return self
    def __exit__(self, *_): self._it.close()
    def close(self): self._it.close()
os.listdir, os.scandir = listdir, scandir
"""
_LATER = """
import time
_time, _localtime, _gmtime = time.time, time.localtime, time.gmtime
time.time = lambda: _time() + 1e9
time.localtime = lambda s=None: _localtime(time.time() if s is None else s)
time.gmtime = lambda s=None: _gmtime(time.time() if s is None else s)
"""
_CORES = "import os\nos.sched_getaffinity = lambda _: set(range({}))\nos.cpu_count = lambda: {}\n"


@pytest.fixture(scope="module")
def material(root: Rootfs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    small_build.prepare(folder, root)
    return folder


@pytest.fixture(scope="module")
def plain(material: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of a build with nothing special about it."""
    return _digests(material, tmp_path_factory.mktemp("plain"))


def _digests(
    material: Path,
    place: Path,
    *prefix: str | Path,
    env: dict[str, str | None] | None = None,
    python: str | Path = sys.executable,
    checkout: Path = paths.ROOT,
    early: str = "",
    dist: Path | None = None,
    owner: int = 0,
) -> dict[str, str]:
    """Build in a process of its own; digest of the image, its configuration and each layer.

    Args:
        material: what is built.
        place: of dist, cache and temporary files.
        prefix: a program that runs the build as its child.
        env: added to the environment.
        python: the interpreter.
        checkout: where the project lies.
        early: what the interpreter runs before all else, in each process.
        dist: where to; default: in `place`.
        owner: of the folders.
    """
    dist = dist or place / "dist"
    for folder in (dist, place / "cache", place / "tmp", place / "early"):
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, owner, owner)
    (place / "early" / "sitecustomize.py").write_text(early)
    settings: dict[str, str | None] = {
        "PINWHEEL_DIST": str(dist),
        "PINWHEEL_CACHE": str(place / "cache"),
        "TMPDIR": str(place / "tmp"),
        "PYTHONPATH": f"{place / 'early'}:{os.environ.get('PYTHONPATH', '')}",
    }
    more = {key: f"{settings[key]}:{value}" if key == "PYTHONPATH" else value for key, value in (env or {}).items()}
    argv = [*prefix, python, "-m", "tests.images.small_build", material]
    run(argv, error=BuildError, cwd=checkout, env={**settings, **more})
    (image,) = json.loads((dist / "build.json").read_text())["images"]
    return {
        "image": image["digest"],
        "config": image["config_digest"],
        **{one["what"]: one["digest"] for one in image["layers"]},
    }


def _as(user: int) -> list[str]:
    """Become another user, who may read what is root's: the checkout and the base lie in root's folders."""
    may = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search"]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *may]


def _umask(mask: str) -> list[str]:
    return ["sh", "-c", f'umask {mask}; exec "$@"', "sh"]


@pytest.mark.host
@pytest.mark.parametrize(
    ("prefix", "owner"),
    [
        (_as(_NOBODY), _NOBODY),
        (["unshare", "--user"], 0),
        (_umask("000"), 0),
        (_umask("077"), 0),
        ([*_as(_NOBODY), *_umask("027")], _NOBODY),
    ],
    ids=["nobody", "a user namespace", "umask 000", "umask 077", "nobody with umask 027"],
)
def test_the_user_and_the_umask_do_not_count(
    material: Path, plain: dict[str, str], tmp_path: Path, prefix: list[str], owner: int
) -> None:
    assert _digests(material, tmp_path, *prefix, owner=owner) == plain


@pytest.mark.host
@pytest.mark.parametrize(
    "env",
    [
        # No coercion to UTF-8: file names are ASCII for this interpreter.
        {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Asia/Kathmandu"},
        {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "America/St_Johns", "PYTHONHASHSEED": "0"},
        {"PYTHONHASHSEED": "4242", "PYTHONOPTIMIZE": "2", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNODEBUGRANGES": "1"},
        # Python makes a folder of the root's that is missing in the current directory, which is the checkout.
        {
            "PYTHONPYCACHEPREFIX": "/dev/null/nowhere",
            "PYTHONSTARTUP": "/nowhere",
            "PYTHONINTMAXSTRDIGITS": "640",
            "PYTHONHASHSEED": "1",
        },
        {"TAR_OPTIONS": "--mtime=@1", "ZSTD_CLEVEL": "19", "ZSTD_NBTHREADS": "4", "GZIP": "-1", "SOURCE_DATE_EPOCH": "1"},
    ],
    ids=["ASCII and Kathmandu", "Turkish", "PYTHONOPTIMIZE", "PYTHONPYCACHEPREFIX", "TAR_OPTIONS and ZSTD_CLEVEL"],
)
def test_the_environment_does_not_count(
    material: Path, plain: dict[str, str], tmp_path: Path, env: dict[str, str | None]
) -> None:
    assert _digests(material, tmp_path, env=env) == plain


@pytest.mark.host
@pytest.mark.parametrize(
    ("prefix", "early"),
    [
        (["taskset", "--cpu-list", "0"], ""),
        ([], _CORES.format(7, 7)),
        ([], _SHUFFLED),
        ([], _LATER),
    ],
    ids=["one core", "seven workers", "another order of folders", "a clock thirty years on"],
)
def test_the_machine_does_not_count(
    material: Path, plain: dict[str, str], tmp_path: Path, prefix: list[str], early: str
) -> None:
    assert _digests(material, tmp_path, *prefix, early=early) == plain


@pytest.mark.host
def test_the_place_does_not_count(material: Path, plain: dict[str, str], tmp_path: Path) -> None:
    checkout = tmp_path / "another checkout, größer"
    for name in _ALL_OF_US:
        source = paths.ROOT / name
        if source.is_dir():
            shutil.copytree(source, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, checkout / name)
    (dist := tmp_path / "dist of others").mkdir()
    dist.chmod(0o2770)
    assert _digests(material, tmp_path / "a b'c\"d", checkout=checkout, dist=dist) == plain
    memory = Path("/dev/shm") / f"pinwheel-test-{os.getpid()}"
    try:
        assert _digests(material, memory) == plain
    finally:
        shutil.rmtree(memory)


def _other_pythons() -> list[str]:
    """Interpreters of this machine that are not ours but of its minor version, as the toolkit's compiled parts need."""
    name = f"python3.{sys.version_info.minor}"
    candidates = {str(Path(folder) / name) for folder in ("/usr/bin", "/usr/local/bin", *os.get_exec_path())}
    asked = {
        python: run([python, "-c", "import sys; print(sys.base_prefix)"])
        for python in sorted(candidates)
        if Path(python).is_file()
    }
    found = {said.stdout.strip(): python for python, said in asked.items() if said.code == 0}
    return [python for prefix, python in sorted(found.items()) if prefix != sys.base_prefix]


@pytest.mark.host
def test_the_python_that_runs_the_builder_does_not_count(material: Path, plain: dict[str, str], tmp_path: Path) -> None:
    pythons = _other_pythons()
    if not pythons:
        pytest.skip("there is no other Python of our minor version here")
    site = str(Path(zstandard.__file__).parent.parent)
    for number, python in enumerate(pythons):
        assert _digests(material, tmp_path / str(number), python=python, env={"PYTHONPATH": site}) == plain


@pytest.mark.host
def test_golden_digests_of_a_wheel_layer(material: Path, root: Rootfs, own_folders: Path) -> None:
    """A wheel with all that is awkward, through the real path. A change here must be meant: plan.FORMAT is raised with it."""
    layout = Layout(own_folders / "dist" / "oci")
    layout.create()
    wheel = stored(material / "wheels" / "awkward-1.0-py3-none-any.whl")
    made = layer.make_wheels(layout.root, LayerPlan("awkward", "k" * 64, (wheel,)), root.tree)
    assert (made.diff_id, made.digest) == (GOLDEN_TAR, GOLDEN_BLOB), (
        f"if this change is meant, raise plan.FORMAT, say why in the commit, and set "
        f"GOLDEN_TAR = {made.diff_id!r}, GOLDEN_BLOB = {made.digest!r}"
    )


Entries = list[tuple[tarfile.TarInfo, bytes]]


def _entries() -> Entries:
    """What a layer of ours holds, as a tar reader gives it."""
    out = io.BytesIO()
    writer = LayerWriter(out)
    writer.file("opt/a.py", 3000, [b"x = 1\n" * 500])
    writer.file("opt/b.sh", 3, [b"#!\n"], mode=0o755)
    writer.link("opt/c", "a.py")
    writer.file("opt/" + "long/" * 60 + "d", 1, [b"d"])
    writer.end()
    writer.close()
    data = zstandard.ZstdDecompressor().decompress(out.getvalue(), max_output_size=1 << 20)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(one, file.read() if (file := tar.extractfile(one)) and one.isreg() else b"") for one in tar]


def _blob(layout: Layout, entries: Entries, *, form: int = tarfile.PAX_FORMAT, level: int = 3) -> BuiltLayer:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    blob = zstandard.ZstdCompressor(level=level).compress(out.getvalue())
    layout.add("", blob)
    return BuiltLayer("some layer", sha256_bytes(blob), sha256_bytes(out.getvalue()), len(blob), len(out.getvalue()), False)


def _change(path: str, **values: object) -> Callable[[Entries], Entries]:
    def change(entries: Entries) -> Entries:
        for info, _ in entries:
            for name, value in values.items():
                setattr(info, name, value) if info.name == path else None
        return entries

    return change


def _content(path: str, data: bytes) -> Callable[[Entries], Entries]:
    return lambda entries: [(info, data if info.name == path else old) for info, old in entries]


_SAME = b"x = 1\n" * 500


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_content("opt/a.py", _SAME[:1234] + b"!" + _SAME[1235:]), ["opt/a.py: content differs from byte 1234 on"]),
        (
            _content("opt/a.py", _SAME + b"more"),
            ["opt/a.py: size is 3000, then 3004", "opt/a.py: content differs from byte 3000 on"],
        ),
        (_change("opt/b.sh", mode=0o644), ["opt/b.sh: mode is '0755', then '0644'"]),
        (_change("opt/b.sh", mtime=1), ["opt/b.sh: mtime is 1686355200, then 1"]),
        (_change("opt", uid=1000, gid=100), ["opt: uid is 0, then 1000", "opt: gid is 0, then 100"]),
        (_change("opt", uname="root", gname="wheel"), ["opt: owner is '', then 'root'", "opt: group is '', then 'wheel'"]),
        (_change("opt/c", linkname="b.sh"), ["opt/c: link is 'a.py', then 'b.sh'"]),
        (
            _change("opt/c", type=tarfile.LNKTYPE, linkname="opt/a.py"),
            ["opt/c: type is 'symbolic link', then 'hard link'", "opt/c: link is 'a.py', then 'opt/a.py'"],
        ),
        (
            _change("opt/a.py", pax_headers={"SCHILY.xattr.user.x": "y"}),
            ["opt/a.py: pax is (), then (('SCHILY.xattr.user.x', 'y'),)"],
        ),
        (lambda entries: entries[:-1], ["opt/" + "long/" * 60 + "d is only in the first"]),
        (lambda entries: [*entries, (tarfile.TarInfo("new"), b"")], ["new is only in the second"]),
        (lambda entries: [*entries, entries[1]], ["opt/a.py (no. 2) is only in the second"]),
        (
            lambda entries: [entries[0], entries[2], entries[1], *entries[3:]],
            ["order: opt/a.py stands where opt/b.sh stands in the second"],
        ),
    ],
    ids=["content", "size", "mode", "mtime", "owner", "names", "link", "type", "pax", "missing", "new", "twice", "order"],
)
def test_what_differs_is_told_by_file_and_attribute(
    tmp_path: Path, change: Callable[[Entries], Entries], said: list[str]
) -> None:
    layout = Layout(tmp_path)
    layout.create()
    one, other = _blob(layout, _entries()), _blob(layout, change(_entries()))
    assert list(compare.layers(layout, one, layout, other)) == said
    assert not list(compare.layers(layout, one, layout, one))


def test_where_only_the_form_differs_that_is_told(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    short = _entries()[:3]
    one = _blob(layout, short)
    (said,) = compare.layers(layout, one, layout, _blob(layout, short, level=19))
    assert said.startswith(f"only the compressed form differs, the tar is {one.diff_id} in both")
    (said,) = compare.layers(layout, one, layout, _blob(layout, short, form=tarfile.GNU_FORMAT))
    # The checksum of the first header (POSIX.1-2017, "ustar Interchange Format": offset 148).
    assert said.startswith("the tar's own form differs, headers or padding, from byte 1")


def test_of_many_files_the_first_are_looked_into_and_all_are_told(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    blobs = [_blob(layout, [(tarfile.TarInfo(f"f{n:02d}"), b"." * n + end) for n in range(30)]) for end in (b"a", b"b")]
    said = list(compare.layers(layout, blobs[0], layout, blobs[1]))
    assert said[:2] == ["f00: content differs from byte 0 on", "f01: content differs from byte 1 on"]
    assert len(said) == 30
    assert said[-1] == "f29: content differs"


def test_what_differs_in_configuration_and_manifest_is_told_by_key(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    layers = (_blob(layout, _entries()), _blob(layout, _change("opt", uid=7)(_entries())))

    def image(layer: BuiltLayer, user: str, more: dict[str, object]) -> BuiltImage:
        body = {"config": {"User": user, "Env": ["A=1", f"B={user}"]}, "rootfs": {"diff_ids": [layer.diff_id]}, **more}
        described = layout.add("", json.dumps(body).encode())
        manifest = layout.add("", json.dumps({"config": described.json(), "layers": [{"digest": layer.digest}]}).encode())
        return BuiltImage("small", "train", "1", manifest.digest, described.digest, 1, 1, "", (layer,))

    first, second = image(layers[0], "1", {}), image(layers[0], "2", {"os": "linux"})
    told = list(compare.images(layout, first, layout, second))
    assert told[:3] == [
        "configuration: config.Env[1] is 'B=1', then 'B=2'",
        "configuration: config.User is '1', then '2'",
        "configuration: os is missing, then 'linux'",
    ]
    assert [one.partition(" is ")[0] for one in told[3:]] == ["manifest: config.digest", "manifest: config.size"]
    # What follows from a layer is not told beside it.
    assert list(compare.images(layout, first, layout, image(layers[1], "1", {}))) == [
        "layer 'some layer': opt: uid is 0, then 7"
    ]
    assert not list(compare.images(layout, first, layout, replace(first)))
