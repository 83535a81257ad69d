"""The train image makes a model, fine-tunes it and merges the result, with LLaMA-Factory's own command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from common import console
from smoke.artifacts import losses_of, tensors
from smoke.bench import Bench
from smoke.payload import tiny
from smoke.receipt import Training
from smoke.session import PAYLOAD

_UNTRAINED_ABOVE, _TRAINED_BELOW = 3.0, 0.1
_LIMIT_S = 300.0
Say = Callable[[str], None]


@pytest.mark.rung("tiny model", needs=("contract of train",))
def test_tiny_model(bench: Bench, say: Say) -> None:
    """A random Llama, a tokenizer and eight questions, made on the spot."""
    command = ["python", f"{PAYLOAD}/tiny.py", *(["--gpu"] if bench.gpu else []), "."]
    with bench.container("tiny model", "train", command) as box:
        box.finish(_LIMIT_S)
        made = json.loads(box.stdout().splitlines()[-1])
    say(f"{made['parameters']:,} random parameters, {len(tiny.rows())} questions")


@pytest.mark.rung("train", needs=("tiny model",))
def test_train(bench: Bench, say: Say) -> None:
    """LoRA fine-tuning: the loss falls, the adapter is written, on the device that was asked for."""
    with bench.container("train", "train", ["llamafactory-cli", "train", "train.yaml"]) as box:
        ended = box.finish(_LIMIT_S)
        log, printed = box.output(), box.stdout()
    losses = losses_of(bench.session.fetch("adapter/trainer_log.jsonl").decode())
    bench.figures.training = Training(losses, round(ended.seconds, 3), ended.memory)
    assert losses[0] > _UNTRAINED_ABOVE, f"the first loss is {losses[0]:.3f}: the model was trained before"
    assert losses[-1] < _TRAINED_BELOW, f"the last loss is {losses[-1]:.3f}, not below {_TRAINED_BELOW}"
    device = "cuda" if bench.gpu else "cpu"
    used = re.search(r"device: (\w+)", log)
    assert used, "LLaMA-Factory did not say which device it trains on"
    assert used[1] == device, f"it trained on {used[1]}, not on {device}"
    # LLaMA-Factory shows the first row as it trains on it; progress bars, on the other stream, may fall into its middle.
    rendered = bench.session.fetch("rendered.txt").decode()
    assert rendered.rstrip() in printed, "the chat template renders a row differently from LLaMA-Factory's template"
    adapter = json.loads(bench.session.fetch("adapter/adapter_config.json"))
    assert (adapter["peft_type"], adapter["r"]) == ("LORA", tiny.LORA_RANK), f"not the adapter asked for: {adapter}"
    assert not adapter["modules_to_save"], "the adapter holds whole modules, which vLLM refuses"
    weights = bench.session.fetch("adapter/adapter_model.safetensors")
    say(
        f"loss {losses[0]:.3f} → {losses[-1]:.4f} in {len(losses)} steps on {device}, "
        f"adapter {console.size(len(weights))}, memory {console.size(ended.memory)}"
    )


@pytest.mark.rung("export", needs=("train",))
def test_export(bench: Bench, say: Say) -> None:
    """The adapter merged into the model: a model of its own, with other weights than the base, and its tokenizer."""
    with bench.container("export", "train", ["llamafactory-cli", "export", "export.yaml"]) as box:
        box.finish(_LIMIT_S)
    file = bench.session.fetch("merged/model.safetensors")
    merged, base = tensors(file), tensors(bench.session.fetch("model/model.safetensors"))
    assert merged.keys() == base.keys(), "the merged model has other tensors than the base"
    changed = [name for name, value in merged.items() if value != base[name]]
    assert changed, "the merged model is the base"
    assert bench.session.fetch("merged/chat_template.jinja").decode() == tiny.chat_template(), "the export lost the template"
    bench.session.fetch("merged/tokenizer.json")
    say(f"merged model {console.size(len(file))}, {len(changed)} tensors changed")
