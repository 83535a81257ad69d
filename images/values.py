"""What the keys of image.toml and shared.toml may say: alphabets, limits, and what an image's own parts leave free.

A value that Docker, Kubernetes or Debian would read otherwise than its author means is refused here, with file and key.
"""

from __future__ import annotations

import re

from common.reader import Keys
from lockfiles.licences import spdx
from oci.reference import ImageRef

# useradd(8), Debian's NAME_REGEX; and the longest name that utmp(5) holds.
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# POSIX.1-2017, 8.1: what every shell can name.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FOLDER = re.compile(r"(/[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*)+")
# Docker's rule for the keys of labels: reverse domain names.
_LABEL = re.compile(r"[a-z0-9]+([._/-][a-z0-9]+)*")
# A normalised project name (PEP 503).
_PACKAGE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# The folders of Debian, of the virtual environment, of ours, and those that are mounted over when a container runs.
_TAKEN = (
    *("/app", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt/pinwheel", "/opt/venv", "/proc"),
    *("/root", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var"),  # noqa: S108 - in the image
)
_SHARED_WITH_DEBIAN = ("/home", "/media", "/mnt", "/opt", "/srv")
# Written by Pinwheel: config.image.
_OURS = "org.opencontainers.image."
# Characters. The kernel takes 128 KiB for one variable (MAX_ARG_STRLEN), and registries 4 MiB for all of a manifest.
_LONGEST = 4096
_LONGEST_NAME = 255


def line(keys: Keys, key: str, default: str | None = None) -> str:
    """A text of one line."""
    return _one_line(keys, key, keys.text(key, default))


def repository(keys: Keys, key: str) -> str:
    """The name of an image: a repository (OCI distribution spec 1.1, "Pulling manifests")."""
    name = keys.text(key)
    try:
        plain = ImageRef.parse(name) == ImageRef("", name)
    except ValueError:
        plain = False
    if not plain or len(name) > _LONGEST_NAME:
        expected = "expected a repository's name without registry and tag: lower-case letters, digits, `.`, `_`, `-` and `/`"
        raise keys.refused(key, f"{expected}, got {name!r}")
    return name


def package(keys: Keys, key: str) -> str:
    """The normal name of a package or a set."""
    name = keys.text(key)
    if not _PACKAGE.fullmatch(name):
        raise keys.refused(key, f"expected a normal name (PEP 503): lower-case letters, digits and `-`, got {name!r}")
    return name


def licences(keys: Keys, key: str) -> str:
    """An SPDX expression."""
    text = line(keys, key)
    if spdx.canonical(text) is None:
        raise keys.refused(key, f"expected an SPDX expression such as `Apache-2.0 AND MIT`, got {text!r}")
    return text


def address(keys: Keys, key: str) -> str:
    """A URI."""
    text = line(keys, key)
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/]\S*", text):
        raise keys.refused(key, f"expected a URI such as https://example.com/project, got {text!r}")
    return text


def account(keys: Keys, key: str) -> str:
    """The name of an account; whether the base has it already is seen when the image is built."""
    name = keys.text(key)
    if not _ACCOUNT.fullmatch(name):
        raise keys.refused(key, f"expected up to 32 of a-z, 0-9, `_` and `-`, and no digit first, got {name!r}")
    return name


def folder(keys: Keys, key: str) -> str:
    """An absolute folder that belongs to the image's user alone."""
    path = keys.text(key)
    if not _FOLDER.fullmatch(path) or len(path) > _LONGEST_NAME:
        raise keys.refused(key, f"expected an absolute path of letters, digits and ._@+-, without . and .., got {path!r}")
    for taken in _TAKEN:
        if f"{path}/".startswith(f"{taken}/"):
            raise keys.refused(key, f"{taken} is not the user's", "name a folder of its own, such as /workspace")
    if path in _SHARED_WITH_DEBIAN:
        raise keys.refused(key, f"{path} is Debian's", f"name a folder of its own, such as {path}/work")
    return path


def command(keys: Keys, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """A program and its arguments."""
    words = keys.texts(key, default)
    if words != default and not (words and words[0]):
        raise keys.refused(key, f"expected a program and its arguments, got {list(words)!r}")
    for word in words:
        _no_nul(keys, key, word)
    return words


def ports(keys: Keys, key: str) -> tuple[int, ...]:
    """TCP ports."""
    found = keys.take(key, list, "a list of ports")
    if not all(type(port) is int and 0 < port < 65536 for port in found):
        raise keys.refused(key, f"expected numbers from 1 to 65535 (TCP), got {found!r}")
    if len(set(found)) != len(found):
        raise keys.refused(key, f"expected each port once, got {found!r}")
    return tuple(found)


def environment(keys: Keys) -> dict[str, str]:
    """The table `env`."""
    variables, found = keys.below("env", optional=True), {}
    for name in tuple(variables.body):
        if not _VARIABLE.fullmatch(name):
            raise variables.refused("", f"expected names of letters, digits and `_`, no digit first, got {name!r}")
        found[name] = _no_nul(variables, name, variables.text(name, ""))
    return found


def labels(keys: Keys) -> dict[str, str]:
    """The table `labels`."""
    table, found = keys.below("labels", optional=True), {}
    for name in tuple(table.body):
        if not _LABEL.fullmatch(name) or len(name) > _LONGEST_NAME:
            raise table.refused("", f"expected lower-case words joined by `.`, `-`, `_` or `/`, got {name!r}")
        if name.startswith(_OURS):
            raise table.refused(name, "is written by Pinwheel", "title, description, licenses, source and vendor have keys")
        found[name] = _one_line(table, name, table.text(name, ""))
    return found


def path(keys: Keys, key: str) -> str:
    """A path in an image or in a wheel, relative to its root."""
    text = line(keys, key)
    if text.startswith("/") or text.endswith("/") or {"", ".", ".."} & set(text.split("/")):
        raise keys.refused(key, f"expected a path from the root, without the first `/` and without . and .., got {text!r}")
    return text


def record_path(keys: Keys, key: str) -> str:
    """A path as a wheel's RECORD has it: some name folders there, with a slash at the end, or write Windows' separators."""
    text = line(keys, key)
    if text.startswith("/") or {"", ".", ".."} & set(text.removesuffix("/").split("/")):
        raise keys.refused(key, f"expected a path as the wheel has it, got {text!r}")
    return text


def _one_line(keys: Keys, key: str, text: str) -> str:
    if any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in text) or len(text) > _LONGEST:
        raise keys.refused(key, f"expected one line of at most {_LONGEST} characters, got {text[:80]!r}")
    return text


def _no_nul(keys: Keys, key: str, text: str) -> str:
    if "\0" in text or len(text) > 16 * _LONGEST:
        raise keys.refused(key, f"expected a text without NUL, of at most {16 * _LONGEST} characters, got {text[:80]!r}")
    return text
