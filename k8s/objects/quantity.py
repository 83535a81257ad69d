"""Kubernetes quantities: `500m`, `2`, `16Gi`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

QUANTITY = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+|[KMGTPE]i|[numkMGTPE])?")
_FACTOR: dict[str, Decimal | int] = {"": 1, "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")}
_FACTOR |= {unit: 1000**power for power, unit in enumerate("kMGTPE", 1)}
_FACTOR |= {f"{unit}i": 1024**power for power, unit in enumerate("KMGTPE", 1)}


def quantity(text: Any) -> Decimal | None:
    """A quantity as a number; None where the text is no quantity (the schema check says so)."""
    text = str(text)
    if not QUANTITY.fullmatch(text):
        return None
    number, suffix = re.fullmatch(r"(.*?)([numkKMGTPE]i?)?", text).groups()  # type: ignore[union-attr]  # matches any text
    return Decimal(number) * _FACTOR[suffix or ""]
