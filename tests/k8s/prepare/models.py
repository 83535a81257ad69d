"""A model for environments that are to serve one."""

from __future__ import annotations

import re
from pathlib import Path

MODEL, OTHER = (f"models/team-tiny@sha256:{letter * 64}" for letter in "de")


def file_of(root: Path, env: str) -> Path:
    return root / "k8s" / "envs" / f"{env}.yaml"


def without(root: Path, env: str) -> None:
    """Take the model out of an environment's file."""
    _drop(file_of(root, env), "model")


def _drop(file: Path, *keys: str) -> None:
    file.write_text(re.sub(rf"(?m)^(?:{'|'.join(keys)}):.*\n(?:  .*\n)*", "", file.read_text()))


def named(root: Path, env: str, path: str = MODEL, key: str = "") -> str:
    """Write a model of the environment's registry into its file, in place of whatever stands there.

    Returns:
        the reference.
    """
    file = file_of(root, env)
    _drop(file, "model")
    text = file.read_text()
    (registry,) = re.findall(r"(?m)^registry: (.*)$", text)
    reference = f"{registry}/{path}"
    file.write_text(f"{text}model:\n  reference: {reference}\n" + (f"  key: {key}\n" if key else ""))
    return reference
