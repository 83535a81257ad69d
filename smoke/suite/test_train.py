"""The train image makes a model, fine-tunes it and merges the result, with LLaMA-Factory's own command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TypeVar

import pytest

from common import console
from common.errors import SmokeError
from smoke.boxes.box import told
from smoke.payload import tiny
from smoke.receipt import Training
from smoke.rungs import judge, serving, training
from smoke.rungs.artifacts import losses_of, tensors
from smoke.rungs.jobs import Job
from smoke.rungs.run import Run
from smoke.rungs.table import FACTORY, KNOWN, MERGED, VLLM

_UNTRAINED_ABOVE, _TRAINED_BELOW = 3.0, 0.1
# How far a loss may lie from that of the same step in another run. On the CPU one thread adds up in one order; a GPU adds up
# in any, and bf16 keeps two to three digits of what comes out.
_SAME = {False: 0.0, True: 0.05}
# By signal 9: as an engine tells it, and as a parent process is told.
_KILLED = (137, -9)
T = TypeVar("T")
Say = Callable[[str], None]
Took = Callable[[float], None]


@pytest.mark.rung("tiny model", needs=("device of train",))
def test_tiny_model(run: Run, say: Say) -> None:
    """A random Llama, a tokenizer and eight questions, made on the spot."""
    command = ["python", run.payload("tiny.py"), *(["--gpu"] if run.gpu else []), "."]
    with run.box("tiny model", "train", command) as box:
        box.finish(KNOWN["tiny model"].limit)
        made = told("tiny model", box.stdout())
    say(f"{made['parameters']:,} random parameters, {len(tiny.rows())} questions")


@pytest.mark.rung("train", needs=("tiny model",))
def test_train(run: Run, say: Say) -> None:
    """LoRA fine-tuning: the loss falls, the adapter is written, on the device that was asked for."""
    with run.box("train", "train", ["llamafactory-cli", "train", "train.yaml"]) as box:
        ended = box.finish(KNOWN["train"].limit)
        log, printed = box.output(), box.stdout()
    losses = losses_of(run.place.fetch("adapter/trainer_log.jsonl").decode())
    run.figures.training = Training(losses, round(ended.seconds, 3), ended.memory)
    run.figures.measure("train: time", ended.seconds, "s")
    run.figures.measure("train: memory", ended.memory, "bytes")
    assert losses[0] > _UNTRAINED_ABOVE, f"the first loss is {losses[0]:.3f}: the model was trained before"
    assert losses[-1] < _TRAINED_BELOW, f"the last loss is {losses[-1]:.3f}, not below {_TRAINED_BELOW}"
    device = "cuda" if run.gpu else "cpu"
    used = re.search(r"device: (\w+)", log)
    assert used, "LLaMA-Factory did not say which device it trains on"
    assert used[1] == device, f"it trained on {used[1]}, not on {device}"
    # LLaMA-Factory shows the first row as it trains on it; progress bars, on the other stream, may fall into its middle.
    rendered = run.place.fetch("rendered.txt").decode()
    assert rendered.rstrip() in printed, "the chat template renders a row differently from LLaMA-Factory's template"
    adapter = json.loads(run.place.fetch("adapter/adapter_config.json"))
    assert (adapter["peft_type"], adapter["r"]) == ("LORA", tiny.LORA_RANK), f"not the adapter asked for: {adapter}"
    assert not adapter["modules_to_save"], "the adapter holds whole modules, which vLLM refuses"
    weights = run.place.fetch("adapter/adapter_model.safetensors")
    say(
        f"loss {losses[0]:.3f} → {losses[-1]:.4f} in {len(losses)} steps on {device}, "
        f"adapter {console.size(len(weights))}, memory {console.size(ended.memory)}"
    )
    _begin_what_stands_on_it(run)


def _begin_what_stands_on_it(run: Run) -> None:
    # Two at once: the long lives of the servers beside the short jobs, so that no core waits for a last long one.
    servers = "vllm" in run.figures.versions.get("api", {})
    if servers:
        serving.begin(run, VLLM)
    training.begin_again(run)
    training.begin_resume(run)
    training.begin_broken(run)
    training.begin_export(run)
    training.begin_agree(run)
    if servers:
        serving.begin(run, MERGED)
        serving.begin(run, FACTORY)


@pytest.mark.rung("train again", needs=("train",))
def test_train_again(run: Run, say: Say, took: Took) -> None:
    """The same seed gives the same training: every loss of every step."""
    again = _result(training.begin_again(run), took)
    first = _first(run)
    assert len(again.steps) == len(first), f"{len(again.steps)} steps, expected {len(first)}"
    apart = _apart(run, again.steps)
    say(f"{len(first)} losses, {'all the same' if apart == 0 else f'at most {apart:.2g} apart'}")


@pytest.mark.rung("resume", needs=("train",))
def test_resume(run: Run, say: Say, took: Took) -> None:
    """Killed after a checkpoint, it goes on at the step after that and comes to the same losses."""
    resumed = _result(training.begin_resume(run), took)
    last = len(_first(run))
    assert resumed.code in _KILLED, f"the killed training ended with code {resumed.code}, expected one of {_KILLED}"
    assert resumed.reached < last, "the training was over before it was killed"
    steps = [step for step, _ in resumed.steps]
    expected = list(range(tiny.CHECKPOINT + 1, last + 1))
    assert steps == expected, f"it resumed with the steps {steps[0]} to {steps[-1]}, expected {expected[0]} to {expected[-1]}"
    apart = _apart(run, resumed.steps)
    say(
        f"killed at step {resumed.reached}, resumed at {steps[0]}, last loss {resumed.steps[-1][1]:.4f}, "
        f"{'all as without' if apart == 0 else f'at most {apart:.2g} apart'}"
    )


@pytest.mark.rung("broken config", needs=("train",))
def test_broken_config(run: Run, say: Say, took: Took) -> None:
    """What cannot be trained fails: by its exit code, in LLaMA-Factory's own words, with nothing written."""
    failures = _result(training.begin_broken(run), took)
    for failure in failures:
        words = training.BROKEN[failure.config]
        assert failure.code != 0, f"{failure.config}: expected a failure, got code 0; {failure.tail}"
        assert words in failure.output, f"{failure.config}: expected {words!r}, got {failure.tail}"
    assert not _written(run, "broken/adapter_config.json"), "a training that failed left an adapter"
    say("; ".join(f"{failure.config}: code {failure.code}, “{training.BROKEN[failure.config]}”" for failure in failures))


@pytest.mark.rung("export", needs=("train",))
def test_export(run: Run, say: Say, took: Took) -> None:
    """The adapter merged into the model: a model of its own, with other weights than the base, and its tokenizer."""
    _result(training.begin_export(run), took)
    file = run.place.fetch("merged/model.safetensors")
    merged, base = tensors(file), tensors(run.place.fetch("model/model.safetensors"))
    assert merged.keys() == base.keys(), "the merged model has other tensors than the base"
    changed = [name for name, value in merged.items() if value != base[name]]
    assert changed, "the merged model is the base"
    assert run.place.fetch("merged/chat_template.jinja").decode() == tiny.chat_template(), "the export lost the template"
    run.place.fetch("merged/tokenizer.json")
    say(f"merged model {console.size(len(file))}, {len(changed)} tensors changed")


@pytest.mark.rung("adapter and merge agree", needs=("export",))
def test_agree(run: Run, say: Say, took: Took) -> None:
    """Both ways of using what was trained give the trained answers, by nearly the same logits."""
    result = _result(training.begin_agree(run), took)
    wrong = judge.agree(result, len(tiny.rows()))
    assert not wrong, wrong[0]
    difference = max(row["difference"] for row in result["rows"])
    dtype = result["dtype"].removeprefix("torch.")
    say(f"{len(result['rows'])} answers each; logits up to {result['largest']:.1f}, {difference:.2g} apart, merged in {dtype}")


def _result(job: Job[T], took: Took) -> T:
    try:
        return job.result()
    finally:
        took(job.seconds)


def _written(run: Run, name: str) -> bool:
    try:
        run.place.fetch(name)
    except SmokeError:
        return False
    return True


def _first(run: Run) -> tuple[float, ...]:
    assert run.figures.training is not None
    return run.figures.training.losses


def _apart(run: Run, steps: tuple[tuple[int, float], ...]) -> float:
    """How far losses lie from those of the first training; not farther than they may."""
    first, limit = _first(run), _SAME[run.gpu]
    apart = 0.0
    for step, loss in steps:
        difference = abs(loss - first[step - 1])
        assert difference <= limit, f"loss of step {step}: expected {first[step - 1]} (± {limit}), got {loss}"
        apart = max(apart, difference)
    return apart
