"""Which engine is asked, by DOCKER_HOST, the current context or this machine's socket; what answers there, or why none does."""

from __future__ import annotations

import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.errors import MissingEnvironmentError, UsageError

INSTALL = "run `invoke engine --install`"
LOCAL = "unix:///var/run/docker.sock"
# The first engine whose containerd image store loads and keeps OCI layouts by digest, as measured.
OLDEST = (26, 0)
_NEED = f"Pinwheel needs a Docker Engine {OLDEST[0]} or newer with the containerd image store"
_INSTEAD = "set DOCKER_HOST to one; what needs no engine works without: build, push, verify, deploy"
# Of the system's containerd.
_CONTAINERD = "/run/containerd/containerd.sock"
_CONTAINERD_ROOT, _CONTAINERD_TOML = Path("/var/lib/containerd"), Path("/etc/containerd/config.toml")
_TUNNEL = (
    "open a tunnel, `ssh -NL /tmp/engine.sock:/var/run/docker.sock USER@HOST`, and set DOCKER_HOST=unix:///tmp/engine.sock"
)


def address() -> str:
    """The address that is asked.

    Raises:
        UsageError: DOCKER_HOST, or the current context, holds no address.
    """
    found = os.environ.get("DOCKER_HOST", "")
    name = "DOCKER_HOST"
    if not found:
        from docker.context import ContextAPI

        context = ContextAPI.get_current_context()
        name = f"the Docker context {context.Name}" if context else ""
        found = str(context.Host or LOCAL) if context else LOCAL
    found = found.replace("http+unix://", "unix://")
    try:
        parts = urlsplit(found)
        # Reading a port that is no number raises ValueError.
        if not parts.scheme or parts.port == 0:
            raise ValueError
    except ValueError:
        fix = "write unix:///PATH or tcp://HOST:PORT"
        raise UsageError(f"{name} is not the address of a Docker Engine", where=found, fix=fix) from None
    return found


def is_podman(where: str, version: Mapping[str, Any] | None = None) -> bool:
    """Whether an address is Podman's, which speaks Docker's API too.

    Args:
        where: the address; Debian's podman-docker makes Docker's socket a link to Podman's.
        version: what it answers to the question for its version; None: nothing.
    """
    parts = urlsplit(where)
    if version is None:
        return parts.scheme == "unix" and "podman" in os.path.realpath(parts.path)
    return any("podman" in str(part.get("Name")).lower() for part in version.get("Components") or [])


def image_store(info: Mapping[str, Any]) -> Path:
    """Where an engine with the containerd image store keeps images: in its own folder, or in that of the system's containerd.

    Args:
        info: what it answers to the question for information (Docker API, "SystemInfo").
    """
    root = Path(str(info.get("DockerRootDir") or "/var/lib/docker"))
    # Engines before version 27 do not say which containerd they use: an own one has its folder beside the engine's data.
    own = root / "containerd" / "daemon"
    if not root.exists():
        # An engine on another machine.
        return root
    asked = str((info.get("Containerd") or {}).get("Address") or "")
    if asked == _CONTAINERD or (not asked and not own.exists() and _CONTAINERD_ROOT.exists()):
        try:
            return Path(tomllib.loads(_CONTAINERD_TOML.read_text(encoding="utf-8"))["root"])
        except (OSError, ValueError, KeyError, TypeError):
            return _CONTAINERD_ROOT
    return own if own.exists() else root


def installable(where: str) -> bool:
    """Whether an engine of our own may be started: this machine's own socket is meant, and nobody listens there."""
    if where != LOCAL or is_podman(where):
        return False
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            asked.connect(urlsplit(where).path)
        except (FileNotFoundError, ConnectionRefusedError):
            # A daemon that was killed leaves its socket behind.
            return True
        except OSError:
            return False
    return False


def silent(where: str, problem: Exception) -> MissingEnvironmentError:
    """The error for an engine that does not answer, by its cause.

    Args:
        where: its address.
        problem: what the client says.
    """
    parts = urlsplit(where)
    if is_podman(where):
        return MissingEnvironmentError(f"Podman does not answer, and {_NEED}", where=where, fix=_INSTEAD)
    what, fix = "no Docker Engine answers", "start it, or set DOCKER_HOST to one that runs"
    folder = os.environ.get("DOCKER_CERT_PATH", "")
    if parts.scheme == "ssh":
        what, fix = "Pinwheel speaks to no Docker Engine by ssh", _TUNNEL
    elif os.environ.get("DOCKER_TLS_VERIFY") and not (Path(folder or Path.home() / ".docker") / "ca.pem").exists():
        what = f"the Docker Engine is to be asked by TLS, and {folder or '~/.docker'}/ca.pem is missing"
        fix = "put ca.pem, cert.pem and key.pem there, or set DOCKER_CERT_PATH"
    elif parts.scheme == "unix":
        file = Path(parts.path)
        if installable(where):
            fix = INSTALL
        elif not file.exists():
            what = "no Docker Engine answers: there is no such socket"
        elif not os.access(file, os.R_OK | os.W_OK):
            what = f"permission denied: the Docker Engine's socket belongs to {file.owner()}:{file.group()}"
            # Nobody joins the group of root for this.
            fix = "run it as its owner, or ask who runs the engine"
            if file.group() != "root":
                fix = f"add yourself to the group {file.group()} (`sudo usermod -aG {file.group()} $USER`) and log in again"
    else:
        what = f"no Docker Engine answers: {_words(problem)}"
    return MissingEnvironmentError(what, where=where, fix=fix)


def podman(where: str, version: Mapping[str, Any]) -> MissingEnvironmentError:
    """The error for Podman, which answers like an engine.

    Args:
        where: its address.
        version: what it answers to the question for its version.
    """
    return MissingEnvironmentError(f"Podman {version.get('Version')} answers, and {_NEED}", where=where, fix=_INSTEAD)


def _words(problem: Exception) -> str:
    text = str(problem)
    known = {
        "refused": "connection refused",
        "Name or service": "the host's name is not known",
        "timed out": "no answer in time",
    }
    return next((meaning for sign, meaning in known.items() if sign in text), type(problem).__name__)
