"""A client of one registry (OCI distribution spec 1.1): what a push and its prediction need."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from common.errors import RegistryError
from common.files import sha256_bytes
from images.layout import INDEX, MANIFEST
from images.registry.blob import Blob
from images.registry.policy import Policy
from images.registry.target import Registry, resolve
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
        # Bytes of a chunk, until the registry shows that it takes only smaller ones, or none; then no other blob tries again.
        self._chunk = self.policy.chunk

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()

    def prepare(self) -> None:
        """Ask for the user's credentials before several threads need them."""
        self._wire.prepare()

    def stop(self) -> None:
        """End all requests, those of other threads too, for good: they get a StoppedError."""
        self._wire.stop()

    def exists(self, repository: str, digest: str, size: int = -1, *, once: bool = False) -> bool:
        """Whether the repository holds a blob ("Checking if content exists in the registry").

        Args:
            repository: the whole path within the registry, the target's prefix included.
            digest: of the blob.
            size: its bytes; a blob of another size is none. Negative: any.
            once: whether it is not worth a second try.

        Raises:
            RegistryError: the registry does not answer, or refuses.
        """
        what = f"asking for {repository}@{digest}"
        answer = self._wire.ask("HEAD", f"/v2/{repository}/blobs/{digest}", what, (self._scope(repository),), once=once)
        if answer.status == 404:
            return False
        if answer.status != 200:
            raise self._wire.refusal(what, answer)
        return size < 0 or answer.header("Content-Length") in {"", str(size)}

    def mount(self, repository: str, digest: str, origin: str) -> tuple[bool, str]:
        """Take a blob over from another repository ("Mounting a blob from another repository"); tried once.

        Returns:
            whether it came about; and if not, the session for an upload that the registry opened instead, or nothing.
        """
        url = f"/v2/{repository}/blobs/uploads/?mount={quote(digest, safe='')}&from={quote(origin, safe='')}"
        scopes = (self._scope(repository), f"repository:{origin}:pull")
        try:
            answer = self._wire.ask("POST", url, f"mounting {digest} from {origin}", scopes, once=True)
            location = answer.header("Location") if answer.status == 202 else ""
            return answer.status == 201, resolve(self.target.host, answer.url, location) if location else ""
        except RegistryError:
            # The user may not read there, or the registry cannot mount now; whether they may write here the upload tells.
            return False, ""

    def upload(self, repository: str, blob: Blob, tell: Callable[[int], None], *, session: str = "") -> None:
        """Send a blob; see `upload.Upload`.

        Raises:
            RegistryError: the registry refuses or fails.
            BuildError: the blob was altered.
            StoppedError: `stop` was called.
        """
        one = Upload(
            self._wire,
            f"/v2/{repository}/blobs/uploads/",
            (self._scope(repository),),
            blob,
            exists=lambda: self.exists(repository, blob.digest, blob.size),
            tell=tell,
            chunk=self._chunk,
            session=session,
        )
        one.run()
        self._chunk = min(self._chunk, one.takes)

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
            raise RegistryError(
                f"the registry took {expected} for {self._wire.scrub(taken)}", where=f"{repository}:{tag}", fix=_FIX
            )

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
