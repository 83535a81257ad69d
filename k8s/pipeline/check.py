"""Let LLaMA-Factory's own parser judge a run's configurations, before a GPU is waited for.

    python -m pinwheel_pipeline.check [--config /config]

Runs in the train image: `train.yaml` by the parser of `llamafactory-cli train`, `export.yaml` by that of `llamafactory-cli
export`. Neither loads the model or the data, which need not be there yet. What is refused only because there is no GPU here
does not count, where the training will have one.

Exit codes: 2 LLaMA-Factory refuses, 10 there is no LLaMA-Factory here.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import MissingEnvironmentError, UsageError

from .program import say, start

# A refusal may quote all keys that there are.
_LONGEST = 600

Parse = Callable[[dict[str, Any]], object]


@dataclass(frozen=True, slots=True)
class Hardware:
    """A refusal that says something of the machine, and nothing of the configuration.

    Attributes:
        words: of the refusal.
        keys: which ask for it.
        reason: what they need.
    """

    words: str
    keys: tuple[str, ...]
    reason: str


# All that the parser of LLaMA-Factory 0.9.5 and transformers 5.5.4 ask of the machine (hparams/parser.py; training_args.py,
# `_validate_args` and `__post_init__`).
HARDWARE = (
    Hardware("doesn't support bf16/gpu", ("bf16", "bf16_full_eval"), "bfloat16 wants a GPU of NVIDIA's Ampere or newer"),
    Hardware("does not support `pure_bf16`", ("pure_bf16",), "bfloat16 wants a GPU of NVIDIA's Ampere or newer"),
    Hardware("--tf32 requires Ampere", ("tf32",), "TF32 is a number format of NVIDIA's Ampere and newer"),
)


def judge(config: Mapping[str, Any], parse: Parse, file: Path, *, excused: bool) -> tuple[str, ...]:
    """Parse a configuration.

    Args:
        config: the file's keys.
        parse: LLaMA-Factory's parser: raises what it refuses.
        file: for messages.
        excused: whether the machine is another than the training's.

    Returns:
        What could not be judged here, and why, a line each.

    Raises:
        UsageError: it is refused.
    """
    left, unjudged = dict(config), []
    while True:
        try:
            parse(dict(left))
        except Exception as problem:  # noqa: BLE001 - whatever a parser raises is its refusal
            hardware = next((one for one in HARDWARE if one.words in str(problem)), None)
            keys = [key for key in hardware.keys if key in left] if hardware and excused else []
            if not hardware or not keys:
                raise _refused(problem, file) from None
            unjudged.append(f"{', '.join(keys)}: not judged here, there is no GPU: {hardware.reason}")
            # What else is wrong would hide behind it.
            left = {key: value for key, value in left.items() if key not in keys}
        else:
            return tuple(unjudged)


def main(argv: list[str]) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="check")
    parser.add_argument("--config", type=Path, default=Path("/config"))
    options = parser.parse_args(argv)
    # One device: several are the launcher's to handle, not the parser's, which would send us there.
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    # Its advice on good configurations is printed by the training itself.
    os.environ["LLAMAFACTORY_VERBOSITY"] = "ERROR"
    try:
        import torch
        from llamafactory.hparams import parser as factory
    except ModuleNotFoundError as problem:
        fix = "run it in the train image"
        raise MissingEnvironmentError("there is no LLaMA-Factory here", where=str(problem), fix=fix) from None
    for name, parse in (("train.yaml", factory.get_train_args), ("export.yaml", factory.get_infer_args)):
        file = options.config / name
        config = _read(factory.read_args, file)
        excused = not torch.cuda.is_available() and config.get("use_cpu") is not True
        for line in judge(config, parse, file, excused=excused):
            say(f"{file}: {line}")
    say("LLaMA-Factory takes the configurations of training and export")
    return 0


def _read(read_args: Callable[[], object], file: Path) -> dict[str, Any]:
    """The keys of a configuration, read as LLaMA-Factory reads its command line."""
    sys.argv = ["llamafactory-cli", str(file)]
    try:
        config = read_args()
    except Exception as problem:  # noqa: BLE001 - as in `judge`
        raise _refused(problem, file) from None
    if not isinstance(config, dict):
        raise UsageError("LLaMA-Factory finds no mapping of keys", where=str(file))
    return config


def _refused(problem: Exception, file: Path) -> UsageError:
    words = " ".join(str(problem).split()) or type(problem).__name__
    words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]} …"
    return UsageError(f"LLaMA-Factory refuses the configuration: {words}", where=str(file), fix="mend the experiment")


if __name__ == "__main__":
    start("check", main)
