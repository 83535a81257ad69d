"""Texts in Base64, compressed or not, as Helm keeps its releases and ConfigMaps their binary data."""

from __future__ import annotations

import base64
import binascii
import re
import zlib

_BASE64 = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")
_MOST = 1 << 22
TOO_LARGE = "a compressed text of more than 4 MiB"


def unpacked(value: str, *, binary: bool) -> str | None:
    """The text that a value holds in Base64, as UTF-8 or UTF-16; `TOO_LARGE` where it is larger than is looked at.

    Args:
        value: of a manifest.
        binary: it is Base64 whatever it looks like; what is no text then is empty.

    Returns:
        None where the value is not Base64 of a text.
    """
    packed = "".join(value.split())
    try:
        data = base64.b64decode(packed, validate=True) if binary or _BASE64.fullmatch(packed) else b""
        if data.startswith(b"\x1f\x8b"):
            unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
            data = unpacking.decompress(data, _MOST)
            if unpacking.unconsumed_tail:
                return TOO_LARGE
        coding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
        plain = data.decode(coding).replace("\0", "\n")  # Between the files of an archive.
    except (binascii.Error, ValueError, zlib.error):
        plain = ""
    return plain if binary or (plain and re.sub(r"\s", "", plain).isprintable()) else None
