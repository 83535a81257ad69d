"""Sends an image into a repository: its blobs in parallel, then its manifest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

from common import console
from common.errors import RegistryError
from oci.client.blob import Blob
from oci.client.client import BlobUnknownError, Client
from oci.client.patience import StoppedError
from registry.holes import Hole

# Bytes. Sending a smaller blob takes no longer than asking other repositories for it.
_WORTH_ASKING = 1 << 20
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Sent:
    """Bytes of one push: sent, mounted from another repository, already there."""

    sent: int
    mounted: int
    there: int

    def __str__(self) -> str:
        """The result in a few words."""
        parts = [f"{console.size(self.sent)} sent"]
        parts += [f"{console.size(self.mounted)} mounted from other repositories"] if self.mounted else []
        parts += [f"{console.size(self.there)} there already"] if self.there else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a blob is: in the repository, mounted into it, or still to send (`session`: an upload that is open for it)."""

    there: bool = False
    mounted: bool = False
    session: str = ""


class Sender:
    """Sends images one after the other into one registry; remembers which repository holds a blob, and mounts it from there.

    Args:
        client: of the registry.
        others: repositories there that may hold the same blobs.
    """

    def __init__(self, client: Client, others: Iterable[str]) -> None:
        self._client, self._others = client, tuple(others)
        self._holds: dict[str, str] = {}
        self._failed: set[str] = set()

    def send(self, repository: str, tag: str, manifest: bytes, blobs: Sequence[Blob | Hole]) -> Sent:
        """Send one image.

        Args:
            repository: the whole path within the registry.
            tag: of the image.
            manifest: its bytes, sent as they are.
            blobs: all that the manifest names; a hole is fetched where it cannot be mounted.

        Raises:
            RegistryError: the registry refuses or fails.
            BuildError: a blob was altered; the manifest is not sent.
            LockError: the registry that has a hole's blob gives other bytes.
        """
        places = dict(zip(blobs, self._parallel(lambda blob: self._place(repository, blob), blobs), strict=True))
        self._upload(repository, {blob: place.session for blob, place in places.items() if not (place.there or place.mounted)})
        try:
            self._client.put_manifest(repository, tag, manifest)
        except BlobUnknownError:
            # Some registries report blobs that their garbage collector removed: send the blobs that were skipped after all.
            doubted = [blob for blob, place in places.items() if place.there or place.mounted]
            if doubted:
                console.warn(f"{repository}: the registry lacks blobs that it said it has; sending them again")
                self._upload(repository, dict.fromkeys(doubted, ""))
                places = dict.fromkeys(blobs, _Place())
            else:
                # While another push sends the same blob, docker-registry can miss it for a moment.
                time.sleep(self._client.patience.pause)
            self._client.put_manifest(repository, tag, manifest)
        self._holds |= {blob.digest: repository for blob in blobs}
        mounted = sum(blob.size for blob, place in places.items() if place.mounted)
        present = sum(blob.size for blob, place in places.items() if place.there)
        return Sent(sum(blob.size for blob in blobs) - mounted - present, mounted, present)

    def _place(self, repository: str, blob: Blob | Hole) -> _Place:
        if self._client.exists(repository, blob.digest, blob.size):
            return _Place(there=True)
        origin = self._holds.get(blob.digest) or self._source(blob) or self._elsewhere(repository, blob)
        if not origin:
            return _Place()
        mounted, session = self._client.mount(repository, blob.digest, origin)
        return _Place(mounted=mounted, session=session)

    def _source(self, blob: Blob | Hole) -> str:
        return blob.repository if isinstance(blob, Hole) and blob.host == self._client.target.host else ""

    def _elsewhere(self, repository: str, blob: Blob | Hole) -> str:
        for candidate in self._others if blob.size >= _WORTH_ASKING else ():
            if candidate == repository or candidate in self._failed:
                continue
            try:
                if self._client.exists(candidate, blob.digest, blob.size, once=True):
                    return candidate
            except RegistryError:
                # A failure only means that the blob is sent; do not ask this repository again.
                self._failed.add(candidate)
        return ""

    def _upload(self, repository: str, sessions: dict[Blob | Hole, str]) -> None:
        if not sessions:
            return
        total, lock = sum(blob.size for blob in sessions), threading.Lock()
        with console.Bar(f"uploading to {repository}", total) as bar:

            def tell(count: int) -> None:
                with lock:
                    bar.advance(count)

            def upload(one: Blob | Hole) -> None:
                with one.opened() if isinstance(one, Hole) else nullcontext(one) as blob:
                    self._client.upload(repository, blob, tell, session=sessions[one])

            # The largest first, so that no large blob is still on its way alone at the end.
            largest = sorted(sessions, key=lambda blob: (-blob.size, blob.digest))
            self._parallel(upload, largest)

    def _parallel(self, work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
        """Call `work` for every item, several at once; the first failure stops the client and is raised."""

        def guarded(item: _Item) -> _Result:
            try:
                return work(item)
            except BaseException:
                self._client.stop()
                raise

        with ThreadPoolExecutor(self._client.patience.parallel) as pool:
            try:
                tasks = [pool.submit(guarded, item) for item in items]
                wait(tasks)
            except BaseException:
                self._client.stop()
                raise
        failures = [failure for task in tasks if (failure := task.exception())]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, StoppedError)):
            raise failure
        return [task.result() for task in tasks]
