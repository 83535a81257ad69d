"""What a training leaves behind."""

from __future__ import annotations

import contextlib
import json
from unittest.mock import Mock

import pytest

from common.errors import SmokeError
from smoke.boxes.box import Ended
from smoke.rungs import training
from smoke.rungs.artifacts import losses_of, steps_of, tensors


def test_losses_are_read_and_the_summary_line_is_not_one() -> None:
    log = '{"current_steps": 1, "loss": 8.5}\n{"current_steps": 2, "loss": 0.25}\n{"current_steps": 2, "epoch": 2.0}\n'
    assert losses_of(log) == (8.5, 0.25)


def test_steps_stay_in_the_order_of_the_log() -> None:
    # As a training leaves it that was killed at step 52 and resumed at 51.
    log = "".join(f'{{"current_steps": {step}, "loss": {step}.5}}\n' for step in (50, 51, 52, 51, 52))
    assert steps_of(log) == ((50, 50.5), (51, 51.5), (52, 52.5), (51, 51.5), (52, 52.5))


@pytest.mark.parametrize("log", ["", '{"epoch": 1}', '{"loss": NaN}', '{"loss": "8"}', '{"loss": 8.0}\n{"loss": Infinity}'])
def test_log_without_usable_losses(log: str) -> None:
    with pytest.raises(SmokeError, match="no usable losses"):
        losses_of(log)


def test_a_broken_line_of_the_log_is_told() -> None:
    with pytest.raises(SmokeError, match="a line that is no JSON"):
        steps_of('{"current_steps": 1, "loss": 8.5}\n{"current_st')


def test_a_training_that_was_killed_in_the_middle_of_a_line_is_resumed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    before = '{"current_steps": 50, "loss": 1.5}\n{"current_steps": 51, "lo'
    logs = [before, before + '{"current_steps": 51, "loss": 1.25}\n']
    monkeypatch.setattr(training, "_train", lambda *_: contextlib.nullcontext(Mock(finish=lambda *_, **__: Ended(137, 1.0, 1))))
    monkeypatch.setattr(training, "_await_checkpoint", lambda *_: None)
    monkeypatch.setattr(training, "_log", lambda *_: logs.pop(0))
    assert training._resume(Mock()) == training.Resumed(137, 50, ((51, 1.25),))


def test_tensors_by_name() -> None:
    header = json.dumps(
        {"__metadata__": {}, "a": {"data_offsets": [0, 2]}, "b": {"data_offsets": [2, 5]}}, separators=(",", ":")
    ).encode()
    assert tensors(len(header).to_bytes(8, "little") + header + b"12345") == {"a": b"12", "b": b"345"}
