"""The rungs there are, as data."""

from __future__ import annotations

from smoke.rungs.table import KNOWN


def test_each_rung_has_a_code_of_its_own_in_the_order_of_the_ladder() -> None:
    codes = [known.code for known in KNOWN.values()]
    assert len(set(codes)) == len(codes)
    assert codes == sorted(codes)
    # 0 is a rung that passed; a process has one byte for its code.
    assert all(0 < code < 126 for code in codes)


def test_each_rung_has_a_limit_and_a_fix_in_one_line() -> None:
    for name, known in KNOWN.items():
        assert known.limit > 0, name
        assert known.fix, name
        assert "\n" not in known.fix
        assert not known.fix.endswith("."), name
