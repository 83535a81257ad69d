"""A client of one registry (OCI distribution spec 1.1): what pushes, verifiers and pods need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from common.errors import RegistryError
from common.files import sha256_bytes
from oci.client import referrers
from oci.client.answer import Answer, Stream
from oci.client.auth import RefusedError
from oci.client.blob import Blob
from oci.client.download import download
from oci.client.http import LARGEST, Request
from oci.client.patience import Patience, UnusableError
from oci.client.target import Registry, resolve
from oci.client.upload import Upload
from oci.client.wire import Wire
from oci.descriptor import INDEX, MANIFEST

# What registries answer where a rule forbids to move a tag (ECR, Harbor, Quay, Artifact Registry, ACR).
_FIXED_TAG = frozenset({400, 405, 409, 412, 422, 423})
# Ours, and those of others' images: without Docker's own types some registries serve another form, of another digest.
_DOCKERS = "application/vnd.docker.distribution.manifest"
_MANIFESTS = f"{MANIFEST}, {INDEX}, {_DOCKERS}.v2+json, {_DOCKERS}.list.v2+json"
_FIX = "do not use this tag; something altered it on the way or in the registry"


class FixedTagError(RegistryError):
    """A tag holds another manifest than is to be put, and the registry does not let it be moved."""


class BlobUnknownError(RegistryError):
    """The registry refuses a manifest because it has not all of its blobs."""


class Client:
    """Sends requests to one registry; a context manager; several threads may use it at once.

    Args:
        target: the registry.
        patience: bounds of waiting; `patience.ONCE` for requests that are not worth waiting for.
        writes: whether the user wants to push: tokens must then allow it.
    """

    def __init__(self, target: Registry, patience: Patience | None = None, *, writes: bool = False) -> None:
        self.target, self.patience = target, patience or Patience()
        self._wire = Wire(target, self.patience, writes=writes)
        self._actions = "pull,push" if writes else "pull"
        # Bytes of a chunk. Once the registry has shown that it takes only smaller chunks, or none, later blobs start with that.
        self._chunk = self.patience.chunk

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
            size: in bytes; a blob of another size does not count. Negative: any size.
            once: whether to give up after the first failure.

        Raises:
            RegistryError: the registry does not answer, or refuses.
        """
        action = f"asking for {repository}@{digest}"
        request = Request("HEAD", f"/v2/{repository}/blobs/{digest}", (self._scope(repository),))
        answer = self._wire.ask(request, action, once=once)
        if answer.status == 404:
            return False
        if answer.status != 200:
            raise self._wire.refusal(action, answer)
        # Some proxies say 0 of every answer to a HEAD.
        length = answer.header("Content-Length")
        if size < 0 or length in {"", "0", str(size)}:
            return True
        self.patience.warn(f"{self.target.host} says that it has {self._wire.scrub(length)} of {size} bytes of {digest}")
        return False

    def mount(self, repository: str, digest: str, origin: str) -> tuple[bool, str]:
        """Let the registry take a blob from another repository ("Mounting a blob from another repository"); tried once.

        Returns:
            whether the registry took it; and if not, the address of the upload that it opened instead, or nothing.
        """
        url = f"/v2/{repository}/blobs/uploads/?mount={quote(digest, safe='')}&from={quote(origin, safe='')}"
        scopes = (self._scope(repository), f"repository:{origin}:pull")
        try:
            answer = self._wire.ask(Request("POST", url, scopes), f"mounting {digest} from {origin}", once=True)
            location = answer.header("Location") if answer.status == 202 else ""
            return answer.status == 201, resolve(self.target.host, answer.url, location) if location else ""
        except RegistryError:
            # The user may not read the other repository, or the registry cannot mount now; the upload shows if they may write.
            return False, ""

    def upload(self, repository: str, blob: Blob, tell: Callable[[int], None], *, session: str = "") -> None:
        """Send a blob; see `upload.Upload`.

        Raises:
            RegistryError: the registry refuses or fails.
            BuildError: the blob was altered.
            StoppedError: `stop` was called.
        """
        upload = Upload(
            self._wire,
            f"/v2/{repository}/blobs/uploads/",
            (self._scope(repository),),
            blob,
            exists=lambda: self.exists(repository, blob.digest, blob.size),
            tell=tell,
            chunk=self._chunk,
            session=session,
        )
        upload.run()
        self._chunk = min(self._chunk, upload.takes)

    def put_manifest(self, repository: str, tag: str, data: bytes, kind: str = MANIFEST) -> bool:
        """Put a manifest under a tag or its digest ("Pushing Manifests"); where that holds it already, nothing is put.

        Many registries can forbid to move a tag, and then refuse the manifest that it holds, too.

        Args:
            repository: as in `exists`.
            tag: or the manifest's digest.
            data: its bytes.
            kind: its media type.

        Returns:
            Whether the registry says that it lists the manifest as a referrer of its subject.

        Raises:
            BlobUnknownError: the registry has not all that the manifest names.
            FixedTagError: the tag holds another manifest, and the registry does not let it be moved.
            RegistryError: it refuses or fails, or took the manifest for another one.
        """
        if self._held(repository, tag) == data:
            return False
        action = f"pushing {self.target.host}/{repository}:{tag}"
        url, headers = f"/v2/{repository}/manifests/{tag}", {"Content-Type": kind}
        try:
            answer = self._wire.ask(Request("PUT", url, (self._scope(repository),), headers, lambda: data), action)
        except RefusedError:
            if self._is_fixed(repository, tag, data, ""):
                return False
            raise
        if {"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"} & set(answer.codes):
            refusal = self._wire.refusal(action, answer)
            raise BlobUnknownError(
                refusal.what, where=refusal.where, fix="look at the registry: it said that it has blobs which it does not have"
            )
        if answer.status in _FIXED_TAG and self._is_fixed(repository, tag, data, self._wire.scrub(answer.explanation())):
            return False
        if not 200 <= answer.status < 300:
            raise self._wire.refusal(action, answer)
        expected, taken = sha256_bytes(data), answer.header("Docker-Content-Digest")
        if taken not in {"", expected}:
            raise RegistryError(
                f"the registry took {expected} for {self._wire.scrub(taken)}", where=f"{repository}:{tag}", fix=_FIX
            )
        return bool(answer.header("OCI-Subject"))

    def manifest(self, repository: str, reference: str) -> bytes:
        """A manifest's bytes as the registry serves them ("Pulling manifests").

        Args:
            repository: as in `exists`.
            reference: a tag or a digest.

        Raises:
            RegistryError: it serves none.
        """
        action = f"reading {self.target.host}/{repository} {reference} back"
        answer = self._get_manifest(repository, reference, action)
        if answer.status != 200:
            raise self._wire.refusal(action, answer)
        return self._whole(repository, reference, answer.data)

    def find_manifest(self, repository: str, reference: str, beside: str = "") -> bytes | None:
        """As `manifest`; None when there is none.

        Args:
            repository: as in `exists`.
            reference: a tag or a digest.
            beside: a digest in the same repository. Some registries refuse a tag that is not there to a user who may not list
                tags: where this can be read, such a refusal is a no.

        Raises:
            RegistryError: the registry does not answer, or refuses.
        """
        action = f"looking for {self.target.host}/{repository} {reference}"
        try:
            answer = self._get_manifest(repository, reference, action)
        except RefusedError:
            if beside and self._get_manifest(repository, beside, action).status == 200:
                return None
            raise
        if answer.status not in {200, 404}:
            raise self._wire.refusal(action, answer)
        return self._whole(repository, reference, answer.data) if answer.status == 200 else None

    def read_blob(self, repository: str, digest: str, size: int) -> bytes:
        """A small blob's bytes ("Pulling blobs").

        Args:
            repository: as in `exists`.
            digest: of the blob.
            size: in bytes.

        Raises:
            UnusableError: the registry serves none, a cut or larger one, or other bytes.
            RegistryError: it does not answer, or refuses.
        """
        action = f"reading {self.target.host}/{repository}@{digest}"
        request = Request("GET", f"/v2/{repository}/blobs/{digest}", (self._scope(repository),), most=size)
        answer = self._wire.ask(request, action)
        if answer.status != 200:
            raise self._wire.refusal(action, answer)
        if len(answer.data) < size and not answer.framed:
            raise RegistryError(f"{action} failed: the connection was cut", where=self.target.host, fix="run it again")
        data = self._whole(repository, digest, answer.data)
        if len(data) != size:
            what = f"{action} failed: it has {len(data)} bytes and not {size}"
            raise UnusableError(what, where=self.target.host, fix=_FIX, why=f"it has {len(data)} bytes")
        return data

    def download(self, repository: str, digest: str, size: int, target: Path) -> None:
        """Fetch a blob into a file; see `download.download`."""
        url, action = f"/v2/{repository}/blobs/{digest}", f"fetching {target.name}"

        @contextmanager
        def ask(offset: int) -> Iterator[Stream]:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            with self._wire.stream(Request("GET", url, (self._scope(repository),), headers)) as stream:
                if stream.status not in {200, 206, 416}:
                    raise self._wire.refusal(action, stream.whole(LARGEST))
                yield stream

        attempts = self._wire.attempts(action, f"{self.target.host}/{repository}@{digest}")
        download(ask, target, size, digest.removeprefix("sha256:"), attempts, self.patience.tell)

    def referrers(self, repository: str, digest: str, most: int) -> list[dict[str, Any]] | None:
        """Descriptors of the manifests whose subject is this one; see `referrers.read`.

        Returns:
            None where the registry lacks the referrers API.

        Raises:
            RegistryError: it does not answer, refuses, answers with something else, or lists more than `most`.
        """
        action = f"listing what refers to {self.target.host}/{repository}@{digest}"

        def ask(url: str) -> Answer:
            return self._wire.ask(Request("GET", url, (self._scope(repository),)), action)

        try:
            return referrers.read(ask, self.target.host, repository, digest, most)
        except RefusedError:
            # One that has no such address may refuse it to everybody; whether the user may read shows the image itself.
            if self._get_manifest(repository, digest, action).status == 200:
                return None
            raise
        except referrers.UnreadableError as problem:
            raise self._wire.refusal(action, problem.answer) from None

    def _held(self, repository: str, tag: str) -> bytes | None:
        """What a tag holds, as far as can be seen; the request that follows shows what is wrong with the registry."""
        try:
            return self.find_manifest(repository, tag)
        except RegistryError:
            return None

    def _is_fixed(self, repository: str, tag: str, data: bytes, words: str) -> bool:
        """After a refusal: whether the tag holds the manifest by now, by a request whose answer was lost, or by another push.

        Raises:
            FixedTagError: it holds another one.
        """
        held = self._held(repository, tag)
        if held is None or held == data:
            return held == data
        what = f"the tag {tag} cannot be moved: it holds {sha256_bytes(held)}"
        where = f"{self.target.host}/{repository}" + (f", answers {words}" if words else "")
        fix = "push another version, or lift the rule there"
        if tag.startswith("sha256-"):
            fix = "let the rule leave out tags that begin with `sha256-`: proof lies there and is renewed; then push again"
        raise FixedTagError(what, where=where, fix=fix) from None

    def _get_manifest(self, repository: str, reference: str, action: str) -> Answer:
        headers = {"Accept": _MANIFESTS}
        url = f"/v2/{repository}/manifests/{reference}"
        return self._wire.ask(Request("GET", url, (self._scope(repository),), headers), action)

    def _whole(self, repository: str, reference: str, data: bytes) -> bytes:
        """The bytes; where the reference is a digest, they must have it."""
        if reference.startswith("sha256:") and sha256_bytes(data) != reference:
            what = f"the registry serves other bytes for {reference}"
            fix = "do not use them: something altered them on the way or in the registry"
            raise UnusableError(what, where=f"{self.target.host}/{repository}", fix=fix, why="it has other bytes")
        return data

    def _scope(self, repository: str) -> str:
        return f"repository:{repository}:{self._actions}"
