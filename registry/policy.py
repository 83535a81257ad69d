"""Which proof an image must carry. The caller reads it, from a file or an environment.

As a mapping (docs/proof.md has one as a file):
    signature, sbom, provenance: whether each must be there; default true.
    smoke: `none`, `cpu` or `gpu`: what the image must have been proven on; a GPU also counts for `cpu`. Default `cpu`.
    max-age-days: of the smoke result; 0, the default: any.
    dirty: whether sources that differ from their git revision will do; default true.
    rungs: names of the rungs that must have passed, one at least, each once, of the kind of run that `smoke` asks for; default:
        every one of the ladder.
    builder: the provenance's builder, a URI; default: any.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.errors import UsageError
from smoke.rungs import table

Smoke = Literal["none", "cpu", "gpu"]
_FIX = "see docs/proof.md for the keys of a policy"
_CENTURY = 36500


@dataclass(frozen=True, slots=True)
class Policy:
    """The proof that an image must carry; see above.

    Attributes:
        rungs: None: every rung of the ladder for `smoke`.
    """

    signature: bool = True
    sbom: bool = True
    provenance: bool = True
    smoke: Smoke = "cpu"
    max_age_days: int = 0
    dirty: bool = True
    rungs: frozenset[str] | None = None
    builder: str = ""

    def wanted_rungs(self) -> frozenset[str]:
        """The rungs that must have passed."""
        if self.rungs is not None:
            return self.rungs
        return table.rungs(gpu=self.smoke == "gpu")


def parse(body: Any, where: str) -> Policy:
    """Read a policy from a mapping.

    Args:
        body: as parsed from TOML or YAML.
        where: the place of the policy, for the error message.

    Raises:
        UsageError: it holds something else than the keys above.
    """
    if not isinstance(body, Mapping):
        raise UsageError(f"a policy is a mapping, not {body!r}", where=where, fix=_FIX)
    fields: dict[str, Any] = {}
    for key, value in body.items():
        match key:
            case "signature" | "sbom" | "provenance" | "dirty":
                good = isinstance(value, bool)
            case "smoke":
                good = isinstance(value, str) and value in ("none", "cpu", "gpu")
            case "max-age-days":
                good = type(value) is int and 0 <= value <= _CENTURY
            case "rungs":
                good = isinstance(value, list) and all(isinstance(name, str) and name in table.KNOWN for name in value)
                good = good and 0 < len(value) == len(set(value))
                value = frozenset(value) if good else value
            case "builder":
                good = isinstance(value, str) and bool(value)
            case _:
                raise UsageError(f"unknown key {key!r}", where=where, fix=_FIX)
        if not good:
            raise UsageError(f"{key}: {value!r} is not allowed", where=where, fix=_FIX)
        fields[str(key).replace("-", "_")] = value
    policy = Policy(**fields)
    if not (policy.signature or policy.sbom or policy.provenance or policy.smoke != "none"):
        raise UsageError("a policy that asks for nothing, which every image meets", where=where, fix=_FIX)
    if policy.rungs is not None and policy.smoke == "none":
        raise UsageError("rungs: rungs are named, and no smoke run is asked for", where=where, fix=_FIX)
    if policy.rungs is not None and (never := policy.rungs - table.rungs(gpu=policy.smoke == "gpu")):
        raise UsageError(f"rungs: no run on a CPU has {min(never)!r}: no image could meet that", where=where, fix=_FIX)
    return policy


def read(file: Path) -> Policy:
    """Read a policy from a file, TOML.

    Raises:
        UsageError: it cannot be read, or holds something else than the keys above.
    """
    try:
        body = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise UsageError(f"the policy cannot be read: {problem.strerror}", where=str(file), fix="name a file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise UsageError(f"not TOML: {problem}", where=str(file), fix=_FIX) from None
    return parse(body, str(file))
