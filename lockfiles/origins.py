"""Where a package of a set comes from, if not from the user's default index: what its input says of that.

In `requires`, as PEP 508 writes it, a commit of a git repository, or a file at an address with its hash:

    "llamafactory @ git+https://git.example.com/team/LLaMA-Factory@<commit>"
    "flash-attn @ https://files.example.com/flash_attn-2.8.3-cp311-cp311-linux_x86_64.whl#sha256=<sha256>"

In `[sources]`, beside a plain requirement: an index by the name that the user's own settings give it, or a wheel, an archive or
a folder of this machine:

    [sources]
    torch = { index = "pytorch-cpu" }
    acme-prompts = { path = "wheels/acme_prompts-1.2.0-py3-none-any.whl" }
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PART_OF_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INDEX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_GIT = ("git+https", "git+http", "git+ssh", "git+file")
ARCHIVES = (".tar.gz", ".zip")


class OriginError(ValueError):
    """An origin that makes no sense.

    Args:
        what: what is wrong, without naming the package.
        fix: what to write.
    """

    def __init__(self, what: str, fix: str) -> None:
        self.what, self.fix = what, fix
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one package comes from; exactly one of `index`, `address`, `repository` and `path` is set.

    Attributes:
        name: of the package, normalised.
        index: an index, by the user's name for it.
        address: of a wheel or source archive.
        sha256: of that file.
        repository: address of a git repository, as git takes it.
        commit: of that, 40 or 64 hex digits.
        folder: below the repository's root, where the package does not lie at it.
        path: of a wheel, a source archive or a folder: from the checkout's root, or absolute.
    """

    name: str
    index: str = ""
    address: str = ""
    sha256: str = ""
    repository: str = ""
    commit: str = ""
    folder: str = ""
    path: str = ""

    @property
    def file(self) -> str:
        """The name of the file at the address or path."""
        return unquote(PurePosixPath(urlsplit(self.address).path).name) if self.address else PurePosixPath(self.path).name

    @property
    def shown(self) -> str:
        """As messages name it."""
        if self.repository:
            return f"{self.repository} at {self.commit[:12]}" + (f", {self.folder}" if self.folder else "")
        return self.address or self.path or f"index {self.index}"


def of_requirement(requirement: Requirement) -> Origin | None:
    """The origin that a requirement names; None for one without an address.

    Raises:
        OriginError: it names no content, or an address that holds a login.
    """
    if not requirement.url:
        return None
    name, parts = canonicalize_name(requirement.name), urlsplit(requirement.url)
    if parts.password or (parts.username and parts.scheme != "git+ssh"):
        fix = "leave it out: this file is committed; put it into netrc, or into git's credential helper"
        raise OriginError("its address holds a login", fix)
    if parts.scheme in _GIT:
        return _git(name, parts.scheme, requirement.url)
    if parts.scheme not in {"https", "http"}:
        if parts.scheme in {"git", "ssh"} or re.match(r"[\w.-]+@[\w.-]+:", requirement.url):
            fix = "write git+https://HOST/PATH@COMMIT or git+ssh://git@HOST/PATH@COMMIT"
            raise OriginError("not an address of a git repository, as PEP 508 writes it", fix)
        fix = f'write "{name}" and [sources] {name} = {{ path = "…" }} for a file or folder of this machine'
        raise OriginError(f"not an address of a file or a git repository: {parts.scheme or requirement.url}", fix)
    origin = Origin(name, address=urlunsplit(parts._replace(fragment="")), sha256=parts.fragment.removeprefix("sha256="))
    if not origin.file.endswith((".whl", *ARCHIVES)):
        raise OriginError(f"not a wheel or a source archive: {origin.file!r}", f"name a .whl, {' or '.join(ARCHIVES)}")
    if not parts.fragment.startswith("sha256=") or not _SHA256.fullmatch(origin.sha256):
        raise OriginError("its address names no content", "end it in #sha256= and the 64 hex digits that `sha256sum` tells")
    return origin


def _git(name: str, scheme: str, url: str) -> Origin:
    address, _, fragment = url.removeprefix("git+").partition("#")
    repository, _, commit = address.rpartition("@")
    if "/" in commit or not repository:
        repository, commit = address, ""
    if not _COMMIT.fullmatch(commit):
        # A branch or tag would be another commit tomorrow, and nobody would have edited anything.
        told = f"{commit} is no commit" if commit else "its address names no commit"
        # What a server lists are branches and tags, and no commits.
        part = _PART_OF_COMMIT.fullmatch(commit)
        asked = f"git rev-parse {commit.lower()}` in a clone" if part else f"git ls-remote {repository} {commit or 'HEAD'}`"
        raise OriginError(told, f"write @ and the whole commit hash, in lower case: `{asked} tells it")
    folder = parse_qs(fragment).get("subdirectory", [""])[0]
    if fragment and (set(parse_qs(fragment)) != {"subdirectory"} or _leads_out(folder)):
        fix = "write #subdirectory=FOLDER, without .. and without / at its ends, or nothing"
        raise OriginError(f"unknown after #: {fragment!r}", fix)
    return Origin(name, repository=repository, commit=commit, folder=folder)


def of_source(name: str, entry: Any) -> Origin:
    """The origin that a line of [sources] names.

    Raises:
        OriginError: it makes no sense.
    """
    fix = 'write { index = "NAME" } or { path = "…" }'
    if not isinstance(entry, dict) or len(entry) != 1 or set(entry) - {"index", "path"}:
        raise OriginError("it is neither an index nor a path", fix)
    ((kind, value),) = entry.items()
    if kind == "index" and (not isinstance(value, str) or not _INDEX.fullmatch(value)):
        raise OriginError(f"not the name of an index: {value!r}", "give it by its name in your uv settings, not by its address")
    if kind == "path" and (not isinstance(value, str) or not value.strip() or not value.isprintable() or value[0] == "~"):
        raise OriginError(f"not a path: {value!r}", "write it from the checkout's root, or absolute")
    return Origin(name, **{kind: value})


def _leads_out(folder: str) -> bool:
    return not folder or folder.startswith("/") or any(part in {"", ".", ".."} for part in folder.split("/"))
