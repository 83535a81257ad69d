"""Checks whether a `.safetensors` file really is one: by its header, without reading its tensors.

The format: eight bytes, the header's length (little-endian); the header, a JSON object that gives each tensor's dtype, shape
and place; then the tensors' bytes, all of them named by the header, without gaps. So a pickle that was renamed, a Git LFS
pointer and a file with something hidden behind its tensors are all refused.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

from common.errors import LockError

# The reference implementation's limit.
_MAX_HEADER = 100_000_000
# One request brings the whole header of all but the largest files.
_FIRST = 1 << 18
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
# torch itself takes 64.
_MOST_AXES = 64
# Other formats that files with this ending turn out to have.
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip file, as torch.save writes them: a pickle",
    b"\x80": "a pickle",
    b"\x89HDF": "an HDF5 file",
    b"GGUF": "a GGUF file",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"<": "a page for people, not the file itself",
}


def check(name: str, size: int, first: Callable[[int], bytes]) -> None:
    """Refuse a file whose header is not that of a safetensors file of this size.

    Args:
        name: of the file, for the message.
        size: of the file, in bytes.
        first: gives that many bytes from the file's start; fewer, where it is shorter.

    Raises:
        LockError: it is something else.
    """
    try:
        tensors(size, first)
    except ValueError as problem:
        fix = "do not load it; pin another revision, or another model"
        raise LockError(f"{name} is no safetensors file: {problem}", fix=fix) from None


def tensors(size: int, first: Callable[[int], bytes]) -> dict[str, dict[str, Any]]:
    """The tensors that a file's header names, each with `dtype`, `shape` and `data_offsets`.

    Args:
        size: of the file, in bytes.
        first: as for `check`.

    Raises:
        ValueError: it is no header of a safetensors file of this size; the message says why.
    """
    header, length = _header(size, first)
    if problem := _tensors_problem(header, size - 8 - length):
        raise ValueError(problem)
    return header


def _header(size: int, first: Callable[[int], bytes]) -> tuple[dict[str, Any], int]:
    """The header and its length in bytes. `first` may be a request to a hub: one is enough for most files."""
    start = first(min(size, _FIRST))
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or length > min(size - 8, _MAX_HEADER):
        other_format = next((description for magic, description in _OTHER_FORMATS.items() if start.startswith(magic)), "")
        raise ValueError(f"it is {other_format}" if other_format else f"a header of {length} bytes in a file of {size}")
    if len(start) < 8 + length:
        start = first(8 + length)
    if len(start) < 8 + length:
        raise ValueError(f"it ends within its header of {length} bytes")
    # A header starts with its brace, by the format: a padded one could hide another file's start.
    if start[8:9] != b"{":
        raise ValueError("its header is no JSON object")
    try:
        header = json.loads(start[8 : 8 + length].decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ValueError("its header is no JSON object with unique keys") from None
    tensors_by_name: dict[str, Any] = header
    return tensors_by_name, length


def _tensors_problem(header: dict[str, Any], room: int) -> str:
    metadata = header.pop("__metadata__", None)
    if metadata is not None and not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        return "its __metadata__ is no table of strings"
    places = []
    for name, tensor in header.items():
        if not isinstance(tensor, dict) or not {"dtype", "shape", "data_offsets"} <= set(tensor):
            return f"tensor {name[:80]!r} lacks dtype, shape or data_offsets"
        dtype, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
        if not isinstance(dtype, str) or not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
            return f"tensor {name[:80]!r} has no proper dtype, shape and data_offsets"
        begin, end = offsets
        if begin > end or end > room:
            return f"tensor {name[:80]!r} lies at {begin} to {end} of {room} bytes"
        # Of an unknown, newer dtype a number takes one bit at least.
        if len(shape) > _MOST_AXES or (dtype not in _BITS and math.prod(shape) > 8 * (end - begin)):
            return f"tensor {name[:80]!r} has more numbers than its {end - begin} bytes can hold"
        if dtype in _BITS and math.prod(shape) * _BITS[dtype] != 8 * (end - begin):
            return f"tensor {name[:80]!r} of {dtype} has another size than its {end - begin} bytes"
        places.append((begin, end))
    places.sort()
    if any(before[1] != after[0] for before, after in itertools.pairwise([(0, 0), *places, (room, room)])):
        return "its tensors overlap, or leave bytes that none of them owns"
    return ""


def _counts(value: object) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 1 << 64 for number in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice")
    return table


def _no_constant(name: str) -> object:
    raise ValueError(name)
