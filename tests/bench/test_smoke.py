"""The bench of the smoke suite, as far as it goes without an engine."""

from __future__ import annotations

import pytest

from bench import smoke
from smoke.boxes.held import Spec, options

SPEC = Spec("train", "sha256:" + "0" * 64, ("train",), {"io.pinwheel.smoke": "run"}, "a-volume", {"A": "b=c"}, shm=1 << 30)


def test_every_option_of_a_container_is_given_to_the_command_line() -> None:
    given = smoke.flags(SPEC)
    # A new option in `held` that is not translated would make the two unlike.
    assert options(SPEC).keys() == {
        "labels",
        "working_dir",
        "entrypoint",
        "read_only",
        "network",
        "cap_drop",
        "security_opt",
        "mem_limit",
        "memswap_limit",
        "pids_limit",
        "shm_size",
    }
    assert "--label=io.pinwheel.smoke=run" in given
    assert "--env=A=b=c" in given
    assert "--entrypoint=" in given
    assert {"--read-only", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(given)
    assert {f"--memory={8 << 30}", f"--memory-swap={8 << 30}", "--pids-limit=4096", f"--shm-size={1 << 30}"} <= set(given)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("1970-01-01T00:00:01Z", 1.0), ("1970-01-01T00:01:00.5Z", 60.5), ("1970-01-01T00:00:00.123456789Z", 0.123456789)],
)
def test_the_engines_clock_is_read_to_its_last_digit(told: str, seconds: float) -> None:
    assert smoke._seconds(told) == pytest.approx(seconds, abs=1e-9)


def test_a_cost_beyond_the_goal_says_so() -> None:
    assert smoke.Cost("train", 20.0, 21.5).row() == ("train", "20.00 s", "21.50 s", "1.075 ×", "≤ 1.10 ×", "yes")
    assert smoke.Cost("train", 20.0, 22.5).row()[-1] == "**no**"


def test_variables_are_compared_without_their_order_and_commands_with_it() -> None:
    assert smoke._sorted(["B=1", "A=2"]) == ["A=2", "B=1"]
    assert smoke._sorted(["vllm", "serve"]) == ["vllm", "serve"]
