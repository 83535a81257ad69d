"""The hub's file protocol, as far as a lock of a model needs it: which files a revision holds, and their bytes.

Two requests, as huggingface_hub makes them: `/api/models/<repo>/revision/<revision>?blobs=true` lists the files (a proxy that
drops the question's `blobs=true` is asked for `/tree/<commit>` instead), `/<repo>/resolve/<commit>/<path>` gives one; a big
one, kept in Git LFS, by a redirect to another host. Which hub, and with which token, is account.py's.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import requests

from common.errors import LockError, MissingEnvironmentError
from common.files import CHUNK, unsafe_path
from common.offline import demand_network
from lockfiles.models.account import endpoint
from oci.client.patience import asked_to_wait

COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# What file systems allow of one name; no real model has a longer path either.
_LONGEST = 255
_TRIES = 4
# Seconds: times the number of failures; and at most, however long the hub asks to wait.
_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
# No answer about a model is larger: a listing of a hundred thousand files is not.
_MAX_ANSWER = 64 << 20
_NETWORK = "check the network and HF_ENDPOINT"
_ALTERED = "the hub, or a proxy before it, serves an altered file: ask who runs it"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository at a commit.

    Attributes:
        path: in the repository; safe to write below a folder.
        size: bytes.
        sha256: where the file is in Git LFS, what the hub says; else empty.
        blob: where the hub tells it, git's own id of a file that is not in LFS; else empty.
    """

    path: str
    size: int
    sha256: str = ""
    blob: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository at a commit; its files sorted by path."""

    repo: str
    commit: str
    files: tuple[HubFile, ...]


def unsafe(path: str) -> str:
    """Why a path of a repository must not be written below a folder, or nothing.

    The hub's own rules are wider; what is refused here is no use to a loader, and may be meant to do harm.
    """
    return unsafe_path(path, _LONGEST) or ("the name is Pinwheel's own" if path.startswith(".pinwheel") else "")


class Hub:
    """The user's hub. Safe for several threads.

    Args:
        http: from `hub_account.session`.
    """

    def __init__(self, http: requests.Session) -> None:
        self._http, self._endpoint = http, endpoint()

    def snapshot(self, repo: str, revision: str, *, gone: str) -> Snapshot:
        """What a repository holds at a branch, a tag or a commit.

        Args:
            repo: `organisation/name`.
            revision: a branch or tag is resolved to its commit.
            gone: what the user can do where the hub does not have that revision.

        Raises:
            LockError: the hub has no such repository or revision, or its list of files cannot be trusted.
            MissingEnvironmentError: no network, no access, or an answer that is not a hub's.
        """
        path = f"api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true"
        body, _ = self._json(path, repo, f"{repo} has no revision {revision} on your hub", gone)
        commit = body.get("sha") if isinstance(body, dict) else None
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
            raise MissingEnvironmentError(f"your hub tells no commit of {repo}", fix="HF_ENDPOINT must name a hub")
        if COMMIT.fullmatch(revision) and commit != revision:
            raise LockError(f"asked for commit {revision} of {repo}, your hub answers with {commit}", fix=_ALTERED)
        if body.get("id", repo) != repo:
            raise LockError(f"{repo} is {body['id']!r} on your hub now", fix="write that name in lockfiles/models.in")
        entries = body.get("siblings")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and "size" in entry for entry in entries):
            entries = self._tree(repo, commit)
        try:
            files = sorted((_file(entry) for entry in entries), key=lambda file: file.path)
        except (KeyError, TypeError, ValueError) as problem:
            said = f"your hub's list of the files of {repo} makes no sense: {problem}"
            raise LockError(said, fix="ask who runs the hub, or its proxy") from None
        check_paths(repo, [file.path for file in files])
        return Snapshot(repo, commit, tuple(files))

    def address(self, repo: str, commit: str, path: str) -> str:
        """Where a file's bytes are; it may carry the credentials of HF_ENDPOINT, and is never to be shown."""
        return f"{self._endpoint}/{repo}/resolve/{commit}/{quote(path)}"

    def digest(self, snapshot: Snapshot, file: HubFile) -> str:
        """The sha256 of a file, of which the hub tells none, by downloading it; 64 hex digits.

        Raises:
            LockError: it is gone, or has another size or git id than the hub's list says.
            MissingEnvironmentError: network or access.
        """

        def read(answer: requests.Response) -> str:
            sha256, blob, size = hashlib.sha256(), _git_id(file.size), 0
            for chunk in answer.iter_content(CHUNK):
                sha256.update(chunk)
                blob.update(chunk)
                size += len(chunk)
                if size > file.size:
                    break
            if size != file.size or file.blob not in ("", blob.hexdigest()):
                said = f"{file.path} of {snapshot.repo} has other bytes than your hub's list of files says"
                raise LockError(said, where=f"commit {snapshot.commit}", fix=_ALTERED)
            return sha256.hexdigest()

        return self._file(snapshot, file, {}, read)

    def start(self, snapshot: Snapshot, file: HubFile, count: int) -> bytes:
        """The first bytes of a file, or all, where it is shorter.

        Raises:
            LockError: the file is gone.
            MissingEnvironmentError: network or access.
        """

        def read(answer: requests.Response) -> bytes:
            return _up_to(answer, count)

        return self._file(snapshot, file, {"Range": f"bytes=0-{count - 1}"} if count else {}, read)

    def _file(self, snapshot: Snapshot, file: HubFile, headers: dict[str, str], read: Callable[[requests.Response], _T]) -> _T:
        address = self.address(snapshot.repo, snapshot.commit, file.path)
        missing = f"{snapshot.repo} has no file {file.path} on your hub, although its list names it"
        return self._ask(address, headers, read, snapshot.repo, missing, "ask who runs the hub, or its proxy")

    def _tree(self, repo: str, commit: str) -> list[Any]:
        path = f"api/models/{repo}/tree/{commit}"
        entries: list[Any] = []
        question = "recursive=true"
        while question:
            page, answered = self._json(f"{path}?{question}", repo, f"{repo} has no files at {commit} on your hub", _NETWORK)
            if not isinstance(page, list) or not page:
                break
            entries += [entry for entry in page if not isinstance(entry, dict) or entry.get("type") != "directory"]
            # Only the question of the next page is taken: a proxy may pass on an address that leads around it.
            question = urlsplit(answered.links.get("next", {}).get("url", "")).query
        return entries

    def _json(self, path: str, repo: str, missing: str, gone: str) -> tuple[Any, requests.Response]:
        def read(answer: requests.Response) -> tuple[Any, requests.Response]:
            data = _up_to(answer, _MAX_ANSWER)
            try:
                return json.loads(data), answer
            except (ValueError, RecursionError):
                # Such as the page on which a proxy asks a person to log in.
                said = f"what answers for {repo} is no hub"
                raise MissingEnvironmentError(said, fix=_NETWORK) from None

        return self._ask(f"{self._endpoint}/{path}", {}, read, repo, missing, gone)

    def _ask(
        self,
        address: str,
        headers: dict[str, str],
        read: Callable[[requests.Response], _T],
        repo: str,
        missing: str,
        gone: str,
    ) -> _T:
        demand_network(f"asking your hub for {repo}", fix="run it again online")
        for attempt in range(1, _TRIES + 1):
            try:
                with self._http.get(address, headers=headers, stream=True, timeout=(20, 60)) as answer:
                    if attempt < _TRIES and (answer.status_code == 429 or answer.status_code >= 500):
                        pause = min(asked_to_wait(answer.headers), _LONGEST_PAUSE) or attempt * _PAUSE
                    else:
                        _refuse(answer, repo, missing, gone)
                        return read(answer)
            except requests.RequestException as problem:
                if attempt == _TRIES:
                    # A library's message may carry the address, and that a credential: only the kind is told.
                    said = f"your hub does not answer for {repo}: {type(problem).__name__}"
                    raise MissingEnvironmentError(said, fix=_NETWORK) from None
                pause = attempt * _PAUSE
            time.sleep(pause)
        raise AssertionError


def _refuse(answer: requests.Response, repo: str, missing: str, gone: str) -> None:
    """Raise what a bad answer means; the hub says it in X-Error-Code, where a proxy did not drop that."""
    status, code = answer.status_code, answer.headers.get("X-Error-Code", "")
    if status < 400:
        return
    if code == "GatedRepo":
        fix = "accept its terms on the hub's page, and set HF_TOKEN to a token of that account"
        raise MissingEnvironmentError(f"{repo} is gated, and your hub does not give it to you", fix=fix)
    if answer.headers.get("X-Error-Message") == "Invalid credentials in Authorization header":
        raise MissingEnvironmentError(
            "your hub refuses your token", fix="renew HF_TOKEN, or the token that `hf auth login` kept"
        )
    if code in {"RevisionNotFound", "EntryNotFound"}:
        raise LockError(missing, fix=gone)
    # A hub does not tell a stranger a private repository from none.
    if code == "RepoNotFound" or status == 401:
        fix = "check the name in lockfiles/models.in; a private one needs HF_TOKEN"
        raise LockError(f"your hub has no repository {repo}, or does not show it to you", fix=fix)
    if status == 404:
        raise LockError(missing, fix=f"{gone}; or HF_ENDPOINT names no hub")
    fix = "wait a while; with HF_TOKEN set the hub allows more" if status == 429 else _NETWORK
    raise MissingEnvironmentError(f"your hub answers {status} for {repo}", fix=fix)


def _file(entry: dict[str, Any]) -> HubFile:
    """A file, from either of the hub's two lists."""
    path = entry["rfilename"] if "rfilename" in entry else entry["path"]
    lfs = entry.get("lfs") or {}
    size, blob = entry["size"], entry.get("blobId") or entry.get("oid") or ""
    sha256 = (lfs.get("sha256") or lfs["oid"]) if lfs else ""
    if not isinstance(path, str) or type(size) is not int or size < 0 or not isinstance(blob, str):
        raise ValueError(f"{path!r} of {size!r} bytes")
    if not lfs:
        return HubFile(path, size, "", blob)
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or lfs.get("size", size) != size:
        raise ValueError(f"{path!r} of {size!r} bytes is in Git LFS as {sha256!r} of {lfs.get('size')!r} bytes")
    # What git keeps of such a file is this text; its id, which the commit is made of, must fit what the hub says.
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    usual = _git_id(len(pointer))
    usual.update(pointer)
    if lfs.get("pointerSize") == len(pointer) and blob not in ("", usual.hexdigest()):
        raise ValueError(f"{path!r} is said to be sha256 {sha256}, git says otherwise")
    return HubFile(path, size, sha256)


def _git_id(size: int) -> Any:
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def check_paths(repo: str, found: list[str]) -> None:
    """Refuse a model that holds a path which must not be written below a folder.

    Args:
        repo: as messages name it.
        found: its paths, sorted.

    Raises:
        LockError: it holds one.
    """
    known = set(found)
    for number, path in enumerate(found):
        problem = unsafe(path)
        if not problem and number and found[number - 1] == path:
            problem = "it stands twice"
        if not problem and any("/".join(path.split("/")[:depth]) in known for depth in range(1, path.count("/") + 1)):
            problem = "it lies in a file"
        if problem:
            raise LockError(f"{repo} holds the file {path!r}: {problem}", fix="do not use this model")


def _up_to(answer: requests.Response, count: int) -> bytes:
    data = bytearray()
    for chunk in answer.iter_content(min(CHUNK, max(count, 1))):
        data += chunk
        if len(data) >= count:
            break
    return bytes(data[:count])
