"""One run's belongings in the engine: everything carries the run's label, and goes away by that label whatever happens.

Testcontainers' own reaper is another container from a public registry, which a machine of ours need not reach; and a start
that fails leaves a container that no handle points to. A label finds them all. What a killed run left is removed by the
next run on the same machine.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import tarfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import docker
import docker.errors
import requests
from docker.models.containers import Container

from common import console, paths
from common.errors import SmokeError
from smoke.boxes.box import Box

LABEL = "io.pinwheel.smoke"
# Where the volume is mounted; the image's working directory.
WORKSPACE = "/workspace"
PAYLOAD = f"{WORKSPACE}/payload"
# Where the containers run, and what they write.
RUN = f"{WORKSPACE}/run"
_PAYLOAD = paths.ROOT / "smoke" / "payload"


class Session:
    """A run's label, and the volume its containers share, as a `Place`. A context manager: leaving it removes everything."""

    payload = PAYLOAD
    run = RUN

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client
        self.id = run_id(os.getpid())
        self.volume = f"pinwheel-smoke-{self.id}"
        self._hands: Container | None = None
        self._boxes: list[Box] = []
        self._over = False
        self._lock = threading.Lock()
        # Of its own: reading may take minutes, and nobody who ends the run may wait for that.
        self._reading = threading.Lock()

    @property
    def labels(self) -> dict[str, str]:
        """What everything of this run carries."""
        return {LABEL: self.id}

    def __enter__(self) -> Session:
        sweep(self.client)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            remove(self.client, self.id)

    def admit(self, box: Box) -> None:
        """Take in a container that is not started yet.

        Raises:
            SmokeError: the run is over.
        """
        with self._lock:
            if self._over:
                raise SmokeError("the run is over")
            self._boxes.append(box)

    def stop(self) -> None:
        """End every container of the run, and let no other start; from any thread, and more than once."""
        with self._lock:
            self._over = True
            boxes = tuple(self._boxes)
        for box in boxes:
            # An engine that does not answer about one may still end the others; whether it is gone, the removal shows.
            with contextlib.suppress(requests.RequestException):
                box.stop()

    def prepare(self, image: str) -> None:
        """Make the volume and put the payload into it.

        The files go through the engine's archive calls on a container that never starts: no directory of the host is
        mounted, so this works for any user, any umask and any engine.

        Args:
            image: digest of any image that the engine holds; its user becomes the owner of what containers write.
        """
        user = str(self.client.images.get(image).attrs["Config"].get("User") or "0")
        self.client.volumes.create(self.volume, labels=self.labels)
        self._hands = self.client.containers.create(
            image,
            command=["true"],
            labels=self.labels,
            network_mode="none",
            volumes={self.volume: {"bind": WORKSPACE, "mode": "rw"}},
        )
        self._hands.put_archive(WORKSPACE, payload(owner=user))

    def fetch(self, name: str) -> bytes:
        """A file that the containers wrote.

        Args:
            name: path below the directory they run in.

        Raises:
            SmokeError: it is not there.
        """
        if self._hands is None:
            raise SmokeError("the smoke volume was not prepared")
        try:
            with self._reading:
                stream, _ = self._hands.get_archive(f"{RUN}/{name}")
                data = b"".join(stream)
        except docker.errors.NotFound:
            raise SmokeError(f"the program wrote no {name}") from None
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            member = tar.extractfile(tar.getmembers()[0])
            if member is None:
                raise SmokeError(f"{name} is no file")
            return member.read()

    def config(self, image: str) -> Mapping[str, Any]:
        """The configuration of an image, as the engine has it.

        Args:
            image: its digest.
        """
        found: Mapping[str, Any] = self.client.images.get(image).attrs["Config"]
        return found

    def look(self, image: str, folders: Iterable[str]) -> dict[str, list[str]]:
        """What is below folders of an image that its own user may not look into, or that are mounted over when it runs.

        Args:
            image: its digest.
            folders: absolute paths; one that is not there holds nothing.

        Returns:
            By folder, the paths of what lies below it, relative to it, sorted.
        """
        # Never started, and nothing is mounted: the engine's archive calls read the image itself.
        container = self.client.containers.create(image, command=["true"], labels=self.labels, network_mode="none")
        found: dict[str, list[str]] = {}
        for folder in folders:
            try:
                stream, _ = container.get_archive(folder)
            except docker.errors.NotFound:
                found[folder] = []
                continue
            with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
                found[folder] = sorted(below for name in tar.getnames() if (below := name.partition("/")[2]))
        container.remove(force=True)
        return found


def payload(*, owner: str) -> bytes:
    """A tar of the payload, which is root's, and of an empty directory that is the image's user's.

    Args:
        owner: `uid` or `uid:gid`, as the image configuration has it.
    """
    uid, _, gid = owner.partition(":")
    if not uid.isdigit() or (gid and not gid.isdigit()):
        raise SmokeError(f"the image's user is {owner!r}", fix="name it by number: Kubernetes cannot check a name")
    files = sorted(file for file in _PAYLOAD.iterdir() if file.is_file())
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(_directory("payload", 0, 0))
        for file in files:
            data = file.read_bytes()
            member = tarfile.TarInfo(f"payload/{file.name}")
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
        tar.addfile(_directory("run", int(uid), int(gid or uid)))
    return out.getvalue()


def run_id(pid: int) -> str:
    """A name for the run of this process, from which another process can tell whether it still lives."""
    return f"{_machine()}-{pid}-{_started(pid)}"


def alive(run: str) -> bool:
    """Whether the run's process lives; of another machine's runs nothing is known, so they count as alive."""
    parts = run.split("-")
    if len(parts) != 3 or parts[0] != _machine() or not parts[1].isdigit():
        return True
    return parts[2] == _started(int(parts[1]))


def sweep(client: docker.DockerClient) -> None:
    """Remove what runs of this machine left that were killed."""
    found = client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
    runs = {str(container.labels.get(LABEL, "")) for container in found}
    runs |= {_label_of(volume.attrs) for volume in client.volumes.list(filters={"label": LABEL})}
    for run in sorted(run for run in runs if run and not alive(run)):
        console.info(f"removing what run {run} left behind")
        remove(client, run)


def remove(client: docker.DockerClient, run: str) -> None:
    """Remove every container and volume of a run, started or not."""
    only: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={run}"}
    _each(client.containers.list(all=True, filters=only, ignore_removed=True))
    _each(client.volumes.list(filters=only))


def _each(things: Iterable[object]) -> None:
    for thing in things:
        # Something already on its way out is what is wanted; one refusal, or no answer, must not keep the others.
        with contextlib.suppress(docker.errors.APIError, requests.RequestException):
            thing.remove(force=True)  # type: ignore[attr-defined]


def _label_of(attrs: dict[str, object]) -> str:
    labels = attrs.get("Labels")
    return str(labels.get(LABEL, "")) if isinstance(labels, dict) else ""


def _machine() -> str:
    return socket.gethostname().replace("-", "_")


def _started(pid: int) -> str:
    """When the process started, in the kernel's ticks; empty when there is none. A pid alone is used again."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def _directory(name: str, uid: int, gid: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, 0o755, uid, gid
    return member
