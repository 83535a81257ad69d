"""How pip is started: told where to look, and nothing else.

The user's pip configuration says where packages are asked for and how that place is reached. That counts: what comes from
there is compared with the lock's hashes. It can also say to install more (`requirement`), elsewhere (`target`), or by another
Python (`python`); that does not count, in variables or in files. pip's own `--isolated` would leave out the index as well,
and still read the machine's files. What counts goes on in variables, since an address may hold a password.

Needs the standard library alone: `invokew` calls it to make the environment that everything else runs in.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from common import child_environment

# -I: neither variables of Python's nor a `pip.py` in the current folder take its place.
PIP = (sys.executable, "-I", "-m", "pip")
# pip's documentation, "General Options" and "Package Index Options".
_TAKEN = (
    *("index-url", "extra-index-url", "no-index", "find-links", "trusted-host", "cert", "client-cert", "proxy"),
    *("timeout", "default-timeout", "retries", "keyring-provider", "cache-dir", "no-cache-dir"),
)


def environment(command: str) -> dict[str, str]:
    """The variables to start pip with.

    Args:
        command: that is meant; its section of pip's files counts beside `global`: `install`.

    Raises:
        ValueError: a file of pip's configuration cannot be read; names it.
    """
    every = child_environment.chosen("pip")
    own = {name: value for name, value in every.items() if not name.startswith("PIP_")}
    taken = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings(command).items()}
    # With this name no file is read any more (pip's documentation, "Configuration": PIP_CONFIG_FILE).
    return {**own, **taken, "PIP_CONFIG_FILE": os.devnull}


def settings(command: str) -> dict[str, str]:
    """What counts of the user's configuration: by the name of the option, `index-url`.

    Args:
        command: as for `environment`.

    Raises:
        ValueError: as `environment`.
    """
    found: dict[str, dict[str, str]] = {"global": {}, command: {}}
    for file in _files():
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, configparser.Error) as problem:
            raise ValueError(f"{file}: {' '.join(str(problem).split())}") from None
        for section in found.keys() & set(parser.sections()):
            found[section] |= {name.lower().replace("_", "-"): value for name, value in parser.items(section)}
    variables_ = {name[4:].lower().replace("_", "-"): value for name, value in os.environ.items() if name.startswith("PIP_")}
    # The order of pip's documentation, "Precedence / Override order": the later counts.
    merged = {**found["global"], **found[command], **variables_}
    return {name: merged[name] for name in _TAKEN if merged.get(name)}


def _files() -> Iterator[Path]:
    """Pip's files, the later count more (pip's documentation, "Location")."""
    named = os.environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return
    for folder in reversed((os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)):
        yield Path(folder, "pip/pip.conf")
    yield Path("/etc/pip.conf")
    if named:
        yield Path(named)
    else:
        yield Path.home() / ".pip/pip.conf"
        yield Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pip/pip.conf"
    yield Path(sys.prefix, "pip.conf")


def install(requirements: str) -> None:
    """Become the pip that installs what a file names, into the environment of this Python; for `invokew`.

    Args:
        requirements: the file; every line of it has a hash.
    """
    try:
        own = environment("install")
    except ValueError as problem:
        sys.exit(f"error: pip cannot read its configuration: {problem}")
    # The lock holds every package; with dependencies, pip would want a hash for `pydantic[email]` beside that of pydantic.
    how = [
        "install",
        "--quiet",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--no-deps",
    ]
    os.execve(sys.executable, [*PIP, *how, "--requirement", requirements], own)  # noqa: S606 - no shell is wanted
