"""An image into a repository: its blobs in parallel, then its manifest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from common import console
from common.errors import RegistryError
from oci.client.blob import Blob
from oci.client.client import BlobUnknownError, Client
from oci.client.patience import StoppedError

# A smaller blob is sent as quickly as other repositories are asked for it.
_WORTH_ASKING = 1 << 20
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Sent:
    """What a push moved: bytes that went out, that were mounted from another repository, that were there already."""

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
    """Sends images one after the other into one registry; remembers which repository holds what, and mounts it from there.

    Args:
        client: of the registry.
        others: repositories there that may hold the same blobs.
    """

    def __init__(self, client: Client, others: Iterable[str]) -> None:
        self._client, self._others = client, tuple(others)
        self._holds: dict[str, str] = {}
        self._silent: set[str] = set()

    def send(self, repository: str, tag: str, manifest: bytes, blobs: Sequence[Blob]) -> Sent:
        """Send one image.

        Args:
            repository: the whole path within the registry.
            tag: of the image.
            manifest: its bytes, sent as they are.
            blobs: all that the manifest names.

        Raises:
            RegistryError: the registry refuses or fails.
            BuildError: a blob was altered; the manifest is not sent.
        """
        places = dict(zip(blobs, self._parallel(lambda blob: self._place(repository, blob), blobs), strict=True))
        self._upload(repository, {blob: place.session for blob, place in places.items() if not (place.there or place.mounted)})
        try:
            self._client.put_manifest(repository, tag, manifest)
        except BlobUnknownError:
            # Some say they have a blob that their garbage collector took: what was taken at their word is sent after all.
            doubted = [blob for blob, place in places.items() if place.there or place.mounted]
            if doubted:
                console.warn(f"{repository}: the registry has not all that it said it has; sending it again")
                self._upload(repository, dict.fromkeys(doubted, ""))
                places = dict.fromkeys(blobs, _Place())
            else:
                # Where another push sends the same just now, docker-registry overlooks for a moment what it holds.
                time.sleep(self._client.patience.pause)
            self._client.put_manifest(repository, tag, manifest)
        self._holds |= {blob.digest: repository for blob in blobs}
        mounted = sum(blob.size for blob, place in places.items() if place.mounted)
        there = sum(blob.size for blob, place in places.items() if place.there)
        return Sent(sum(blob.size for blob in blobs) - mounted - there, mounted, there)

    def _place(self, repository: str, blob: Blob) -> _Place:
        if self._client.exists(repository, blob.digest, blob.size):
            return _Place(there=True)
        origin = self._holds.get(blob.digest) or self._elsewhere(repository, blob)
        if not origin:
            return _Place()
        mounted, session = self._client.mount(repository, blob.digest, origin)
        return _Place(mounted=mounted, session=session)

    def _elsewhere(self, repository: str, blob: Blob) -> str:
        for other in self._others if blob.size >= _WORTH_ASKING else ():
            if other == repository or other in self._silent:
                continue
            try:
                if self._client.exists(other, blob.digest, blob.size, once=True):
                    return other
            except RegistryError:
                # A repository that cannot be asked only costs the saving, and that once.
                self._silent.add(other)
        return ""

    def _upload(self, repository: str, wanted: dict[Blob, str]) -> None:
        if not wanted:
            return
        total, lock = sum(blob.size for blob in wanted), threading.Lock()
        with console.Bar(f"uploading to {repository}", total) as bar:

            def tell(count: int) -> None:
                with lock:
                    bar.advance(count)

            # The largest first, so that none is left over at the end.
            largest = sorted(wanted, key=lambda blob: (-blob.size, blob.digest))
            self._parallel(lambda blob: self._client.upload(repository, blob, tell, session=wanted[blob]), largest)

    def _parallel(self, work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
        """Do something with every item, several at once; the first failure stops the client and is raised."""

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
        for failure in sorted(failures, key=lambda one: isinstance(one, StoppedError)):
            raise failure
        return [task.result() for task in tasks]
