"""docs/smoke.md says what the code says: the same rungs, the same fields."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator

from common import paths
from smoke.receipt import FORMAT, SmokeReceipt
from smoke.rungs.table import KNOWN

TEXT = (paths.ROOT / "docs" / "smoke.md").read_text()


def fields(kind: type, prefix: str = "") -> Iterator[str]:
    """The fields of a dataclass as the document writes them: `rungs[].name`."""
    for name, hint in typing.get_type_hints(kind).items():
        optional = typing.get_origin(hint) is types.UnionType
        plain = typing.get_args(hint)[0] if optional else hint
        several = typing.get_origin(plain) is tuple
        inner = typing.get_args(plain)[0] if several else plain
        path = f"{prefix}{name}{'[]' if several else ''}"
        if not dataclasses.is_dataclass(inner):
            yield path
            continue
        if optional:
            yield path
        yield from fields(typing.cast(type, inner), f"{path}.")


def test_the_table_of_rungs_is_the_one_in_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| `(.+?)` \| (\d+) s \| (.+?) \|$", TEXT, re.MULTILINE)
    assert rows == [(str(known.code), name, f"{known.limit:.0f}", known.fix) for name, known in KNOWN.items()]


def test_every_rung_is_explained() -> None:
    explained = " ".join(re.findall(r"^\| ([^|`]+) \| .{20,} \|$", TEXT, re.MULTILINE))
    for name in KNOWN:
        # Both images in one row, and a server's rungs without the server.
        short = name.rpartition(": ")[2].replace(" of train", "").replace(" of api", "")
        assert short in explained, name


def test_every_field_of_the_receipt_is_listed_and_no_other() -> None:
    listed = re.findall(r"^\| `([a-z_.\[\]]+)` \| (?:text|number|boolean|object) \|", TEXT, re.MULTILINE)
    assert listed == ["format", *fields(SmokeReceipt)]
    assert f"`format` ({FORMAT})" in TEXT
    assert f"| `format` | number | {FORMAT} |" in TEXT


def test_the_limit_of_stop_is_the_one_that_servers_get() -> None:
    from smoke.rungs.servers import GRACE_S

    assert f"within {GRACE_S} s with code 0" in TEXT
