"""Where the resolver may look: the user's indexes, or offline the wheels and sdists that are on this machine."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from common import console
from common.errors import LockError
from common.offline import offline
from lockfiles import inputs, lockfile, store
from lockfiles.model import Artifact
from lockfiles.python import index, settings
from lockfiles.python.settings import Index
from lockfiles.store import mirror

# Of the user's uv settings these say how to reach the index and where to keep what it says, not what to choose.
_KEPT = ("UV_CACHE_DIR", "UV_HTTP_TIMEOUT", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_INSECURE_HOST")


@dataclass(frozen=True, slots=True)
class Source:
    """How uv is made to look in one place alone.

    Attributes:
        options: its arguments.
        environment: changes of the environment; None takes a variable out.
        files: offline, what stands behind each file name it may choose.
    """

    options: tuple[str, ...]
    environment: Mapping[str, str | None]
    files: Mapping[str, Artifact]


@contextmanager
def configured(indexes: tuple[Index, ...] = ()) -> Iterator[Source]:
    """The place to resolve from; it is there as long as the block runs.

    Args:
        indexes: those that are asked beside the default one; their logins go along.

    Raises:
        MissingEnvironmentError: pip's configuration cannot be read.
    """
    # Whatever else the host's uv or pip configuration holds would contaminate a resolution.
    ours = {key for key in os.environ if key.startswith(("UV_", "PIP_")) and key not in _KEPT}
    environment: dict[str, str | None] = dict.fromkeys(ours)
    if bundle := settings.bundle():
        # What the rest of us trusts.
        environment |= {"SSL_CERT_FILE": bundle} if Path(bundle).is_file() else {"SSL_CERT_DIR": bundle}
    if not offline():
        # Logins go through the environment, which others cannot read, and never as an argument.
        yield Source((), {**environment, **settings.uv_logins(indexes), "UV_DEFAULT_INDEX": index.url()}, {})
        return
    with tempfile.TemporaryDirectory(prefix="pinwheel-wheels-") as folder:
        found = _on_this_machine()
        for name, (_, file) in found.items():
            _stand_in(file, Path(folder, name))
        options = ("--offline", "--no-cache", "--no-index", "--find-links", folder)
        yield Source(options, environment, {name: artifact for name, (artifact, _) in found.items()})


def _on_this_machine() -> dict[str, tuple[Artifact, Path]]:
    """The wheels and sdists of the store that a lock names, and those of a mirror that is a folder; by file name."""
    found: dict[str, tuple[Artifact, Path]] = {}
    if folder := mirror.folder():
        for file in sorted(folder.glob("sha256/*/*")):
            if not file.name.endswith(".deb"):
                found[file.name] = (Artifact(file.name, file.stat().st_size, file.parent.name), file)
    for name in inputs.set_names():
        with suppress(LockError):
            # A shim is no package, and what we build from source is resolved as source.
            for wheel in lockfile.read_set(name).wheels:
                for one in (wheel.sdist or wheel.artifact, *(wheel.build or ())):
                    if not wheel.shim and store.has(one):
                        found[one.file] = (one, store.path(one))
    return found


def _stand_in(file: Path, target: Path) -> None:
    """Put a wheel's metadata where the wheel would be: uv would unpack gigabytes to read it. A source is linked."""
    if target.suffix != ".whl":
        target.symlink_to(file)
        return
    try:
        with zipfile.ZipFile(file) as whole, zipfile.ZipFile(target, "w") as stub:
            for name in whole.namelist():
                folder, _, last = name.partition("/")
                if folder.endswith(".dist-info") and last in ("METADATA", "WHEEL", "RECORD"):
                    stub.writestr(name, whole.read(name))
    except (zipfile.BadZipFile, OSError) as problem:
        target.unlink(missing_ok=True)
        console.debug(f"{file}: {problem}")
