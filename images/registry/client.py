"""A client of one registry (OCI distribution spec 1.1): what a push and its prediction need."""

from __future__ import annotations

import threading
from collections.abc import Callable
from urllib.parse import quote, urljoin

from common.errors import RegistryError
from common.files import sha256_bytes
from images.layout import INDEX, MANIFEST
from images.registry.auth import RefusedError
from images.registry.blob import Blob
from images.registry.policy import Policy
from images.registry.target import Registry
from images.registry.upload import Upload
from images.registry.wire import Wire

_FIX = "do not use this tag; something altered it on the way or in the registry"


class BlobUnknownError(RegistryError):
    """The registry refuses a manifest because it has not all of its blobs."""


class Client:
    """Speaks with one registry; a context manager, for several threads at once.

    Args:
        target: the registry.
        policy: how patient it is; `policy.ONCE` for what is not worth waiting for.
        writes: whether the user means to push: tokens are asked for that.
    """

    def __init__(self, target: Registry, policy: Policy | None = None, *, writes: bool = False) -> None:
        self.target, self.policy = target, policy or Policy()
        self._wire = Wire(target, self.policy)
        self._actions = "pull,push" if writes else "pull"
        # Until the registry shows that it takes no chunks; then no other blob tries again.
        self._chunked = True

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()

    def exists(self, repository: str, digest: str, size: int = -1) -> bool:
        """Whether the repository holds a blob ("Checking if content exists in the registry").

        Args:
            repository: the whole path within the registry, the target's prefix included.
            digest: of the blob.
            size: its bytes; a blob of another size is none. Negative: any.

        Raises:
            RegistryError: the registry does not answer, or refuses.
        """
        what = f"asking for {repository}@{digest}"
        answer = self._wire.ask("HEAD", f"/v2/{repository}/blobs/{digest}", what, (self._scope(repository),))
        if answer.status == 404:
            return False
        if answer.status != 200:
            raise self._wire.refusal(what, answer)
        return size < 0 or answer.header("Content-Length") in {"", str(size)}

    def mount(self, repository: str, digest: str, origin: str) -> tuple[bool, str]:
        """Take a blob over from another repository ("Mounting a blob from another repository").

        Returns:
            whether it came about; and if not, the session for an upload that the registry opened instead, or nothing.
        """
        url = f"/v2/{repository}/blobs/uploads/?mount={quote(digest, safe='')}&from={quote(origin, safe='')}"
        scopes = (self._scope(repository), f"repository:{origin}:pull")
        try:
            answer = self._wire.ask("POST", url, f"mounting {digest} from {origin}", scopes)
        except RefusedError:
            # The user may not read there; whether they may write here the upload tells.
            return False, ""
        location = answer.header("Location")
        return answer.status == 201, urljoin(answer.url, location) if answer.status == 202 and location else ""

    def upload(
        self, repository: str, blob: Blob, tell: Callable[[int], None], stop: threading.Event, *, session: str = ""
    ) -> None:
        """Send a blob; see `upload.Upload`.

        Raises:
            RegistryError: the registry refuses or fails.
            BuildError: the blob was altered.
            StoppedError: `stop` was set.
        """
        one = Upload(
            self._wire,
            f"/v2/{repository}/blobs/uploads/",
            (self._scope(repository),),
            blob,
            exists=lambda: self.exists(repository, blob.digest, blob.size),
            tell=tell,
            stop=stop,
            chunked=self._chunked,
            session=session,
        )
        one.run()
        self._chunked = self._chunked and one.takes_chunks

    def put_manifest(self, repository: str, tag: str, data: bytes) -> None:
        """Put a manifest under a tag ("Pushing Manifests").

        Raises:
            BlobUnknownError: the registry has not all that the manifest names.
            RegistryError: it refuses or fails, or took the manifest for another one.
        """
        what = f"pushing {self.target.host}/{repository}:{tag}"
        url, headers = f"/v2/{repository}/manifests/{tag}", {"Content-Type": MANIFEST}
        answer = self._wire.ask("PUT", url, what, (self._scope(repository),), headers=headers, body=data)
        if {"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"} & set(answer.codes):
            refusal = self._wire.refusal(what, answer)
            raise BlobUnknownError(
                refusal.what, where=refusal.where, fix="look at the registry: it says it has blobs and has not"
            )
        if answer.status not in {200, 201}:
            raise self._wire.refusal(what, answer)
        expected, taken = sha256_bytes(data), answer.header("Docker-Content-Digest")
        if taken not in {"", expected}:
            raise RegistryError(f"the registry took {expected} for {taken[:80]}", where=f"{repository}:{tag}", fix=_FIX)

    def manifest(self, repository: str, reference: str) -> bytes:
        """A manifest's bytes as the registry serves them ("Pulling manifests").

        Args:
            repository: as in `exists`.
            reference: a tag or a digest.

        Raises:
            RegistryError: it serves none.
        """
        what = f"reading {self.target.host}/{repository} {reference} back"
        headers = {"Accept": f"{MANIFEST}, {INDEX}"}
        url = f"/v2/{repository}/manifests/{reference}"
        answer = self._wire.ask("GET", url, what, (self._scope(repository),), headers=headers)
        if answer.status != 200:
            raise self._wire.refusal(what, answer)
        return answer.data

    def _scope(self, repository: str) -> str:
        return f"repository:{repository}:{self._actions}"
