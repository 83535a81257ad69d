"""The machine as receipts and tables name it."""

from __future__ import annotations

import dataclasses

from common.machine import cpu_model, this_machine
from smoke.machine import host


def test_this_machine() -> None:
    here = this_machine()
    assert here.cores >= 1
    assert here.memory > 1 << 28
    named = host.describe()
    assert (named.cpu, named.cores, named.memory) == dataclasses.astuple(here)


def test_the_model_of_the_processor() -> None:
    assert cpu_model("processor\t: 0\nmodel name\t: AMD  EPYC 7B13\n") == "AMD EPYC 7B13"
    assert cpu_model("processor : 0\n") == ""
