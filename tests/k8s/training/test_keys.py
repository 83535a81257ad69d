"""Reading dataclasses without importing them, on sources made for it, and on the locked wheels."""

from __future__ import annotations

import ast

import pytest

from common.errors import LockError
from k8s.training import keys
from k8s.training.keys import Known
from lockfiles.model import Artifact, SetLock, Wheel

SOURCES = {
    "llamafactory/hparams/model_args.py": """
class Base:
    model_name_or_path: str | None = field(default=None)
    adapter: Attention = field(default=Attention.AUTO)
class ModelArguments(Base):
    derived: int | None = field(default=None, init=False)
    constant: ClassVar[int] = 1
    weight: torch.dtype | None = None
""",
    "llamafactory/hparams/data_args.py": "class DataArguments:\n    dataset: Optional[str] = None\n",
    "llamafactory/hparams/training_args.py": "class TrainingArguments(BaseTrainingArguments):\n    overwrite: bool = False\n",
    "llamafactory/hparams/finetuning_args.py": 'class FinetuningArguments:\n    stage: Literal["pt", "sft"] = "sft"\n',
    "llamafactory/hparams/generating_args.py": "class GeneratingArguments:\n    top_p: float = 0.7\n",
    "llamafactory/data/template.py": "def register(name):\n    'register_template(name=1)'\nregister_template(name='chatml')\n"
    "register_template(name='sees', mm_plugin=get_mm_plugin(name='x', image_token='i', video_token='v'))\n",
    "llamafactory/extras/constants.py": 'class Attention(StrEnum):\n    AUTO = "auto"\n    FA2 = "fa2"\n',
    "transformers/training_args_seq2seq.py": "class Seq2SeqTrainingArguments(TrainingArguments):\n    sortish: bool = False\n",
    "transformers/training_args.py": """
class TrainingArguments:
    output_dir: str | None = None
    num_train_epochs: float = 3.0
    do_train: bool = False
    strategy: Strategy | str = "no"
    either: str | None | Literal[False] = None
    logged: None | str | list[str] = None
""",
    "transformers/trainer_utils.py": 'class Strategy(ExplicitEnum):\n    NO = "no"\n    STEPS = "steps"\n',
    "transformers/debug_utils.py": "",
}
FILE = Artifact("x-1-py3-none-any.whl", 1, "0" * 64)
LOCK = SetLock(
    name="train",
    inputs="",
    date="2026-01-01",
    python="3.11.2",
    glibc="2.36",
    wheels=(Wheel("llamafactory", "1", FILE), Wheel("transformers", "5", FILE)),
)


def parsed(**changed: str) -> dict[str, ast.Module]:
    return {name: ast.parse(text) for name, text in {**SOURCES, **changed}.items()}


def test_fields_come_from_all_bases_and_none_that_nobody_may_set() -> None:
    found = keys.of_modules(parsed(), LOCK)
    assert sorted(found.keys) == [
        "adapter",
        "dataset",
        "do_train",
        "either",
        "logged",
        "model_name_or_path",
        "num_train_epochs",
        "output_dir",
        "overwrite",
        "sortish",
        "stage",
        "strategy",
        "top_p",
        "weight",
    ]
    assert found.templates == {"chatml": frozenset(), "sees": frozenset({"images", "videos"})}
    assert found.version == "1"
    assert found.packages == {"llamafactory", "transformers"}


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("stage", ["sft"], ["rm", 1, None]),
        ("adapter", ["fa2"], ["fast", True]),
        ("strategy", ["steps"], ["often"]),
        ("top_p", [0.5, 1], ["0.5", True, None]),
        ("do_train", [True], [1, "true"]),
        ("dataset", ["a", None], [1, ["a"]]),
        ("either", ["a", None, False], [1]),
        ("logged", ["a", None, ["a"]], [1, True]),
        ("weight", ["whatever", 1], []),
    ],
)
def test_a_value_is_taken_by_its_annotation(key: str, good: list[object], bad: list[object]) -> None:
    found = keys.of_modules(parsed(), LOCK).keys[key]
    assert [found.takes(value) for value in good] == [True] * len(good)
    assert [found.takes(value) for value in bad] == [False] * len(bad)


@pytest.mark.parametrize("missing", ["llamafactory/hparams/data_args.py", "llamafactory/data/template.py"])
def test_a_wheel_that_is_built_otherwise_is_refused_and_not_read_as_empty(missing: str) -> None:
    with pytest.raises(LockError, match="not built as expected"):
        keys.of_modules(parsed(**{missing: ""}), LOCK)


@pytest.mark.host
def test_the_locked_wheels_know_what_a_training_needs(known: Known) -> None:
    assert len(known.keys) > 300
    assert len(known.templates) > 100
    assert known.keys["lr_scheduler_type"].takes("cosine")
    assert known.keys["report_to"].takes(["none"])
    assert {"qwen3_nothink", "llama3"} <= known.templates.keys()
    assert (known.templates["llama3"], known.templates["qwen2_vl"]) == (frozenset(), frozenset({"images", "videos"}))
    assert "custom" not in known.templates  # It stands in a docstring.
