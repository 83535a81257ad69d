"""Experiments that are refused, each with the place, what is wrong and what to do; nothing of them is ever sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import ExitCode, UsageError
from lockfiles.models.lockfile import PinnedModel
from tests.k8s.training.conftest import BASE, FILE, Lab
from tests.k8s.training.test_lengths import base

# The keys are read from the wheels of train.lock.
pytestmark = pytest.mark.host

ROW = {"instruction": "a", "input": "", "output": "b"}


def refusals(lab: Lab, capsys: pytest.CaptureFixture[str], path: str = FILE) -> str:
    with pytest.raises(UsageError) as caught:
        lab.read(path)
    assert caught.value.exit_code == ExitCode.USAGE
    return " ".join((capsys.readouterr().err + caught.value.line()).split())


def test_the_example_as_shipped_is_clean_once_its_base_is_locked(lab: Lab) -> None:
    made = lab.read()
    assert (made.team, made.model, made.run, made.base) == ("example", "tiny", "sft", BASE)
    assert [one.path for one in made.dataset.files] == ["dataset_info.json", "questions.json"]


KEYS: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt key": (
        {"learning_rat": 1e-4},
        "learning_rat: LLaMA-Factory 0.9.5 has no key of this name: did you mean learning_rate?",
    ),
    **{
        f"{value!r} for GPUs": ({"gpus": value}, f"gpus: {value!r} is no number of GPUs: write how many GPUs one pod gets")
        for value in (0, -1, 1.5, True, "4", "all", [1])
    },
    "a key of older transformers": ({"evaluation_strategy": "no"}, "evaluation_strategy: LLaMA-Factory 0.9.5 has no key"),
    "a key nothing sets": ({"compute_dtype": "bf16"}, "compute_dtype: LLaMA-Factory 0.9.5 has no key"),
    "a number in quotes": (
        {"learning_rate": "1e-4"},
        "learning_rate: '1e-4' is not what it takes: write a value of type float, without quotes",
    ),
    "a fraction for a count": ({"lora_rank": 1.5}, "lora_rank: 1.5 is not what it takes: write a value of type int"),
    "a truth for a count": ({"cutoff_len": True}, "cutoff_len: True is not what it takes"),
    "a number for a truth": ({"bf16": 1}, "bf16: 1 is not what it takes: write a value of type bool"),
    "a list for a name": ({"dataset": ["questions"]}, "dataset: ['questions'] is not what it takes"),
    "an unknown stage": ({"stage": "sfd"}, "stage: 'sfd' is not what it takes: write one of dpo, kto"),
    "an unknown scheduler": ({"lr_scheduler_type": "cosinus"}, "lr_scheduler_type: 'cosinus' is not what it takes"),
    "an unknown attention": ({"flash_attn": "fast"}, "flash_attn: 'fast' is not what it takes: write one of auto"),
    "an unknown loss": ({"pref_loss": "sigmoids"}, "did you mean sigmoid?"),
    "an unknown template": ({"template": "qwen3_nothinc"}, "has no template 'qwen3_nothinc': did you mean qwen3_nothink?"),
    "no template": ({"template": None}, "template: missing: the served model has to render as it was trained"),
    "no stage": ({"stage": None}, "stage: missing"),
    "no dataset": ({"dataset": None}, "dataset: missing: there is nothing to train on"),
    "no do_train": ({"do_train": None}, "do_train: missing: a run says what it is: write `do_train: true`"),
    "no training": ({"do_train": False}, "do_train: False: nothing would be trained: write `do_train: true`"),
    "a reward model": ({"stage": "rm"}, "rm: it trains or needs a reward model"),
    "a kind that is not exported": (
        {"finetuning_type": "oft"},
        "'oft': not a kind this platform exports: write lora, full or freeze",
    ),
    "workers of Ray": (
        {"ray_num_workers": 4},
        "4: there is no Ray in the cluster: leave it out; `gpus` gives a run several GPUs",
    ),
    "LongLoRA": ({"shift_attn": True}, "shift_attn: True: LongLoRA wants a transformers below 4.48"),
    "a stream of some rows": (
        {"streaming": True, "max_steps": 9, "max_samples": 9},
        "max_samples: streaming and max_samples exclude each other",
    ),
    "a share of a stream": (
        {"streaming": True, "max_steps": 9, "val_size": 0.1},
        "val_size: of a stream no share can be held out",
    ),
    "history hidden and trained on": (
        {"mask_history": True, "train_on_prompt": True},
        "mask_history: mask_history and train_on_prompt exclude each other",
    ),
    "shares of what is not mixed": ({"interleave_probs": "0.5,0.5"}, "interleave_probs: it is for datasets that are mixed"),
    "an output folder": ({"output_dir": "saves/x"}, "output_dir: the platform sets it: leave it out"),
    "an output that is overwritten": ({"overwrite_output_dir": True}, "overwrite_output_dir: the platform sets it"),
    "an export folder": ({"export_dir": "merged"}, "export_dir: the platform sets it"),
    "a revision beside the lock": ({"model_revision": "main"}, "model_revision: the platform sets it"),
    "code of others": ({"trust_remote_code": True}, "True: code from a model repository would run in the pod"),
    "a push to a hub": ({"push_to_hub": True}, "push_to_hub: True: the model would leave by a way of its own"),
    "metrics to a service": ({"report_to": "wandb"}, "report_to: 'wandb': metrics would go to a service outside"),
    "metrics to swanlab": ({"use_swanlab": True}, "use_swanlab: True: metrics would go to a service outside"),
    "a token": ({"hf_hub_token": "hf_x"}, "hf_hub_token: a secret would stand in git"),
    "an adapter": ({"adapter_name_or_path": "saves/lora"}, "adapter_name_or_path: an adapter is no input of a run"),
    "a checkpoint": ({"resume_from_checkpoint": "checkpoint-1"}, "a step that is tried again resumes by itself"),
    "a second model": ({"ref_model": "base"}, "ref_model: a second model is asked for"),
    "checkpoints that cannot be resumed": (
        {"save_only_model": True},
        "a checkpoint without the optimizer's state cannot be resumed",
    ),
    "no checkpoints": ({"save_strategy": "no"}, "save_strategy: 'no': a retried step would begin anew"),
    "what the image has not": ({"deepspeed": "ds.json"}, "it needs deepspeed, which the train image has not"),
    "a quantization the image has not": ({"quantization_bit": 4}, "it needs bitsandbytes, which the train image has not"),
    "a file beside": ({"generation_config": "gen.json"}, "'gen.json' names a file, which would not be in the pod"),
    "an absolute path": ({"interleave_probs": "/data/x"}, "'/data/x' is a path of some machine"),
    "an address": ({"run_name": "s3://bucket/x"}, "is an address: what lies there is not pinned"),
    "no rate": ({"learning_rate": 0.0}, "learning_rate: 0.0 is not above zero"),
    "a negative batch": ({"per_device_train_batch_size": -1}, "-1 is not above zero"),
    "two kinds of numbers": ({"fp16": True}, "bf16 and fp16 exclude each other"),
    "two sets to evaluate on": ({"val_size": 0.1, "eval_dataset": "questions"}, "val_size and eval_dataset exclude each other"),
    "nothing to evaluate on": ({"eval_strategy": "epoch"}, "there is nothing to evaluate on: write val_size or eval_dataset"),
    "an endless stream": ({"streaming": True}, "a stream has no end: write max_steps"),
    "packing where it is none": ({"stage": "pt", "neat_packing": True}, "neat_packing is for the stage sft only"),
    "a model nobody pinned": (
        {"model_name_or_path": "maker/other"},
        "no model 'maker/other' is locked: pin it in lockfiles/models.in",
    ),
    "a model by path": ({"model_name_or_path": "/models/base"}, "'/models/base' is a path of some machine"),
    "a dataset that is not there": (
        {"dataset": "answers"},
        "there is no dataset 'answers': describe it here, or name one that there is: questions",
    ),
    "an empty name of a dataset": ({"dataset": "questions,"}, "'questions,' holds an empty name"),
    "a dataset on a hub": ({"dataset_dir": "ONLINE"}, "dataset_info.json:1: missing"),
    "a folder outside": ({"dataset_dir": "../../../../etc"}, "is no folder of experiments/"),
    "pairs for one answer": ({"stage": "dpo"}, 'the stage dpo compares pairs of answers: write `"ranking": true`'),
}


@pytest.mark.parametrize("mistake", KEYS)
def test_a_configuration_is_refused_for(mistake: str, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    change, said = KEYS[mistake]
    lab.say(**change)
    found = refusals(lab, capsys)
    assert said in found, found


TEXTS = {
    "a key twice": ("stage: sft\nstage: pt\n", "sft.yaml:2: the key stage stands twice"),
    "a word that means two things": ("bf16: yes\n", "yes means different things to different YAML parsers"),
    "an alias": ("a: &x 1\nb: *x\n", "an alias (*x) is used"),
    "no YAML": ("stage: [sft\n", "not YAML"),
    "a list": ("- stage\n", "not one mapping of keys"),
    "nothing": ("", "not one mapping of keys"),
    "two documents": ("stage: sft\n---\nstage: pt\n", "not one mapping of keys"),
}


@pytest.mark.parametrize("mistake", TEXTS)
def test_a_text_is_refused_for(mistake: str, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    text, said = TEXTS[mistake]
    lab.file.write_text(text)
    found = refusals(lab, capsys)
    assert said in found, found


ENTRIES: dict[str, tuple[dict[str, Any], str]] = {
    "a hub": (
        {"hf_hub_url": "maker/data"},
        "questions.hf_hub_url: a dataset on a hub is named: LLaMA-Factory pins no revision of it",
    ),
    "a script": ({"script_url": "load.py"}, "a script is named"),
    "a cloud": ({"cloud_file_name": "s3://b/x.json"}, "a file in a cloud's storage is named"),
    "an unknown key": ({"format": "alpaca"}, "questions.format: unknown key: known are columns"),
    "an unknown form": ({"formatting": "vicuna"}, "'vicuna' is no form of rows"),
    "an unknown column": ({"columns": {"question": "instruction"}}, "questions.columns.question: unknown name"),
    "no file": ({"file_name": None}, "questions.file_name: missing"),
    "an absent file": ({"file_name": "other.json"}, "the file 'other.json' does not exist"),
    "a file outside": ({"file_name": "../../x.json"}, "is no path below the folder"),
    "an absolute file": ({"file_name": "/etc/x.json"}, "is no path below the folder"),
    "a table": ({"file_name": "questions.csv"}, "'questions.csv' is no JSON or JSONL"),
    "a ranking that is none": ({"ranking": "yes"}, "'yes' is neither true nor false"),
    "pairs": ({"ranking": True}, "the stage sft takes one answer for each row"),
    "no questions": ({"columns": {"response": "output"}}, "the stage sft needs the column prompt"),
    "a column no row has": (
        {"columns": {"prompt": "instruction", "response": "output", "system": "sys"}},
        "no row has 'sys', the column system",
    ),
    "another shape": ({"formatting": "sharegpt", "columns": None}, "questions.json:1: [0].conversations: no messages"),
}


@pytest.mark.parametrize("mistake", ENTRIES)
def test_a_described_dataset_is_refused_for(mistake: str, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    change, said = ENTRIES[mistake]
    lab.info(**change)
    found = refusals(lab, capsys)
    assert said in found, found


ROWS: dict[str, tuple[list[Any], str]] = {
    "none": ([], "no rows: a training needs some"),
    "no mapping": (["a"], "[0]: a row is a mapping"),
    "no question": ([ROW, {**ROW, "instruction": ""}], "[1].instruction: nothing is asked"),
    "no answer": ([{"instruction": "a", "input": ""}], "[0].output: no answer"),
    "a number": ([{**ROW, "output": 1}], "[0].output: not a text"),
    "many of one kind": ([{**ROW, "output": None}] * 9, "4 more findings in this file"),
}


@pytest.mark.parametrize("mistake", ROWS)
def test_rows_are_refused_for(mistake: str, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    rows, said = ROWS[mistake]
    lab.rows(*rows)
    found = refusals(lab, capsys)
    assert said in found, found


def talk(*roles: str) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": "x"} for role in roles]}


TALKS = {
    "an unknown role": (talk("human", "robot"), "'robot' is no role"),
    "a role that is a list": ({"conversations": [{"from": ["human"], "value": "x"}]}, "['human'] is no role"),
    "two questions": (talk("human", "human"), "'human' speaks out of turn"),
    "a last question": (talk("human", "gpt", "human"), "end it with the answer"),
    "no value": ({"conversations": [{"from": "human"}]}, "not a message with from and value"),
}


@pytest.mark.parametrize("mistake", TALKS)
def test_a_conversation_is_refused_for(mistake: str, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    row, said = TALKS[mistake]
    lab.info(formatting="sharegpt", columns={"messages": "conversations"})
    lab.rows(talk("system", "human", "gpt"), row)
    found = refusals(lab, capsys)
    assert said in found, found


OPENAI = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
OPENAI |= {"observation_tag": "tool", "function_tag": "function", "system_tag": "system"}


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ("system user assistant", ""),
        ("user assistant tool tool assistant user assistant", ""),
        ("user assistant tool", ""),
        ("user", "end it with the answer"),
        ("assistant user", "'assistant' speaks out of turn: LLaMA-Factory skips the row"),
        ("user user assistant assistant", "'user' speaks out of turn"),
        ("user tool assistant", "'tool' speaks out of turn"),
        ("user assistant tool user assistant", "'user' speaks out of turn"),
    ],
)
def test_turns_of_openais_form_are_read_as_llama_factory_does(
    roles: str, said: str, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.info(formatting="openai", columns={"messages": "messages"}, tags=OPENAI)
    lab.rows({"messages": [{"role": role, "content": "x"} for role in roles.split()]})
    if said:
        assert said in refusals(lab, capsys)
    else:
        lab.read()


@pytest.mark.parametrize(
    ("template", "text", "pictures", "said"),
    [
        ("qwen2_vl", "<image>what", ["a.png"], ""),
        ("qwen2_vl", "<image><image>", ["a.png", "a.png"], ""),
        ("qwen2_vl", "what", [], ""),
        ("qwen3_nothink", "what", [], ""),
        ("qwen2_vl", "what", ["a.png"], "pictures: 1 images, and <image> stands 0 times in the texts"),
        ("qwen2_vl", "<image>", [], "pictures: 0 images, and <image> stands 1 times in the texts"),
        ("qwen2_vl", "<image>", ["a.png", "a.png"], "pictures: 2 images, and <image> stands 1 times in the texts"),
        ("qwen3_nothink", "<image>", ["a.png"], "pictures: the template takes no images"),
    ],
)
def test_pictures_stand_where_the_texts_say_and_the_template_takes_them(
    template: str, text: str, pictures: list[str], said: str, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    (lab.data / "a.png").write_bytes(b"png")
    lab.say(template=template)
    lab.info(columns={"prompt": "instruction", "response": "output", "images": "pictures"})
    lab.rows({"instruction": text, "output": "b", "pictures": pictures})
    if said:
        assert said in refusals(lab, capsys)
    else:
        lab.read()


def test_a_quantized_base_is_refused(
    lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINWHEEL_CACHE", str(tmp_path / "cache"))
    lab.lock(base(tmp_path, json.dumps({"quantization_config": {"quant_method": "gptq", "bits": 4}})))
    assert "model_name_or_path: tiny is quantized: what is trained upon it could not be exported" in refusals(lab, capsys)


def test_jsonl_is_read_line_by_line_and_a_broken_line_named(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.info(file_name="questions.jsonl")
    lines = [json.dumps(ROW), "", json.dumps(ROW)]
    (lab.data / "questions.jsonl").write_text("\n".join(lines) + "\n")
    assert [one.path for one in lab.read().dataset.files] == ["dataset_info.json", "questions.jsonl"]
    (lab.data / "questions.jsonl").write_text("\n".join([*lines, "{"]))
    assert "data/questions.jsonl:4: not JSON" in refusals(lab, capsys)


def _twice(lab: Lab) -> None:
    (lab.data / "dataset_info.json").write_text('{"questions": {}, "questions": {"file_name": "questions.json"}}')


def _broken(lab: Lab) -> None:
    (lab.data / "dataset_info.json").write_text('{"questions":\n')


def _list(lab: Lab) -> None:
    (lab.data / "dataset_info.json").write_text("[]")


def _link(lab: Lab) -> None:
    (lab.root / "secret.json").write_text(json.dumps([ROW]))
    (lab.data / "questions.json").unlink()
    (lab.data / "questions.json").symlink_to(lab.root / "secret.json")


def _media(lab: Lab) -> None:
    lab.info(columns={"prompt": "instruction", "response": "output", "images": "pictures"})
    lab.rows({**ROW, "pictures": ["a.png"]})


def _bytes(lab: Lab) -> None:
    (lab.data / "questions.json").write_bytes(b'[{"instruction": "\xff"}]')


def _namesake(lab: Lab) -> None:
    other = lab.root / "experiments" / "example-tiny" / "x"
    other.mkdir(parents=True)
    (lab.root / "experiments" / "example-tiny" / "x" / "a.yaml").write_text("a: 1\n")
    moved = lab.root / "experiments" / "example" / "tiny-x"
    lab.file.parent.rename(moved)


def _two_models(lab: Lab) -> None:
    lab.lock(PinnedModel("beside", BASE.repo, "v2", "d" * 40, "sha256:2", BASE.files), BASE)
    lab.say(model_name_or_path=BASE.repo)


CHECKOUTS: dict[str, tuple[Callable[[Lab], None], str, str]] = {
    "an entry twice": (_twice, FILE, "the key 'questions' stands twice"),
    "a broken description": (_broken, FILE, "data/dataset_info.json:2: not JSON"),
    "a list of datasets": (_list, FILE, "not a mapping of datasets"),
    "a link out of the folder": (_link, FILE, "leads out of the folder: put the file itself here, no link"),
    "a picture that is not there": (_media, FILE, "the media file 'a.png' does not exist"),
    "bytes that are no text": (_bytes, FILE, "questions.json:1: not UTF-8"),
    "two models of one name": (_namesake, "experiments/example/tiny-x/sft.yaml", "is called example-tiny-x as well"),
    "a base that is locked twice": (_two_models, FILE, "is locked more than once: write one of the names: beside, tiny"),
}


@pytest.mark.parametrize("mistake", CHECKOUTS)
def test_a_checkout_is_refused_for(mistake: str, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    change, path, said = CHECKOUTS[mistake]
    change(lab)
    found = refusals(lab, capsys, path)
    assert said in found, found


@pytest.mark.parametrize("name", ["Sft.yaml", "a_b.yaml", "-a.yaml", "a" * 38 + ".yaml"])
def test_a_name_that_no_object_can_have_is_refused(name: str, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.file.rename(lab.file.with_name(name))
    assert "cannot be a name" in refusals(lab, capsys, f"experiments/example/tiny/{name}")


@pytest.mark.parametrize(
    "place", ["experiments/sft.yaml", "sft.yaml", "experiments/a/b/c/sft.yaml", "experiments/example/tiny/sft.yml"]
)
def test_a_place_that_is_no_experiments_is_refused(place: str, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    (lab.root / place).parent.mkdir(parents=True, exist_ok=True)
    lab.file.rename(lab.root / place)
    assert "put it at experiments/<team>/<model>/<run>.yaml" in refusals(lab, capsys, place)


def test_an_absent_experiment_is_refused_with_those_that_there_are(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"there are: {FILE}" in refusals(lab, capsys, "experiments/example/tiny/dpo.yaml")


def test_without_a_lock_of_models_the_line_says_how_to_pin_one(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.lock()
    found = refusals(lab, capsys)
    assert "no model 'tiny' is locked: pin it in lockfiles/models.in, run `invoke lock`" in found


def test_everything_wrong_is_named_at_once(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.say(learning_rat=1, trust_remote_code=True, output_dir="x", dataset="answers")
    found = refusals(lab, capsys)
    assert all(word in found for word in ("learning_rat", "trust_remote_code", "output_dir", "answers", "4 findings"))
