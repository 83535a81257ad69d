"""models.in: what is refused, with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UsageError
from lockfiles import models
from lockfiles.models import inputs as models_in
from tests.lockfiles.models.steps import ASKED, REPO, ask

INPUTS = {
    "not toml": ("[models.tiny\n", r"not TOML: .*models.in:1\)"),
    "other table": ("# a\n[model.tiny]\n", r"unknown key 'model'"),
    "key before": ("# a\nrepo = 1\n", r"unknown key 'repo' \(lockfiles/models.in:2\)"),
    "no table": ("models = 3\n", "unknown key 'models'"),
    "not a table": ("models.tiny = 3\n", "repo and revision are missing"),
    "misspelt": (ASKED + 'flies = ["*"]\n', r"unknown key 'flies' \(lockfiles/models.in:4\)"),
    "no revision": ('\n[models.tiny]\nrepo = "a/b"\n', r"repo and revision are missing \(lockfiles/models.in:2\)"),
    "name": (ASKED.replace("tiny", '"Ti ny"', 1), r"not a name \(lockfiles/models.in:1\)"),
    "repo without owner": (
        '[models.a]\nrepo = "gpt2"\nrevision = "main"\n',
        r"not a repository: 'gpt2' \(lockfiles/models.in:2\)",
    ),
    "repo up": ('[models.a]\nrepo = "a/.."\nrevision = "main"\n', "not a repository"),
    "repo of three": ('[models.a]\nrepo = "a/b/c"\nrevision = "main"\n', "not a repository"),
    "repo with dashes": ('[models.a]\nrepo = "a/b--c"\nrevision = "main"\n', "not a repository"),
    "repo with a dot at its end": ('[models.a]\nrepo = "a/b."\nrevision = "main"\n', "not a repository"),
    "repo address": ('[models.a]\nrepo = "https://x/a"\nrevision = "main"\n', "not a repository"),
    "repo number": ('[models.a]\nrepo = 3\nrevision = "main"\n', "not a repository"),
    "revision up": ('[models.a]\nrepo = "a/b"\nrevision = "a/../b"\n', r"not a revision: .*:3\)"),
    "revision empty": ('[models.a]\nrepo = "a/b"\nrevision = ""\n', "not a revision"),
    "files no list": (ASKED + 'files = "*"\n', r"files is no list of patterns \(lockfiles/models.in:4\)"),
    "files empty": (ASKED + "files = []\n", "files is no list of patterns"),
    "allow without reason": (ASKED + 'allow = ["*.bin"]\n', r"allow and reason go together \(lockfiles/models.in:4\)"),
    "reason without allow": (ASKED + 'reason = "x"\n', "allow and reason go together"),
    "path and repo": (ASKED + 'path = "a"\n', r"unknown key 'repo' beside path \(lockfiles/models.in:2\)"),
    "path and revision": ('[models.a]\npath = "a"\nrevision = "main"\n', r"unknown key 'revision' beside path .*:3\)"),
    "path empty": ('[models.a]\npath = " "\n', r"not a folder: ' ' \(lockfiles/models.in:2\)"),
    "path number": ("[models.a]\npath = 3\n", "not a folder: 3"),
    "path of somebody": ('[models.a]\npath = "~/a"\n', "not a folder: '~/a' .*from the checkout's root, or absolute"),
    "path unprintable": ('[models.a]\npath = "a\\u0000b"\n', "not a folder"),
    "made of something else": ('[models.a]\nmade = "gpt"\n', r"Pinwheel makes no 'gpt' \(lockfiles/models.in:2\)"),
    "made is no text": ("[models.a]\nmade = true\n", "Pinwheel makes no True"),
    "made with patterns": ('[models.a]\nmade = "demonstration"\nfiles = ["*"]\n', "unknown key 'files' beside made"),
    "empty reason": (ASKED + 'allow = ["*.bin"]\nreason = " "\n', "allow and reason go together"),
}


@pytest.mark.parametrize(("text", "message"), INPUTS.values(), ids=INPUTS)
def test_an_input_that_makes_no_sense_is_refused_with_its_line(folder: Path, text: str, message: str) -> None:
    ask(text)
    with pytest.raises(UsageError, match=message):
        models.check()


def test_the_shipped_input_pins_the_demonstration_and_its_examples_can_be_used(folder: Path) -> None:
    text = (Path(__file__).parents[3] / "lockfiles" / "models.in").read_text()
    ask(text)
    assert models.names() == ("tiny",)
    ask("\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith(("#     ", "#\n"))))
    assert models.names() == ("base", "ours")


def test_an_input_that_is_not_utf_8_is_refused(folder: Path) -> None:
    (folder / "models.in").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        models.names()


_VALUES = st.one_of(st.text(max_size=6), st.integers(), st.booleans(), st.lists(st.text(max_size=3), max_size=2))
_KEYS = st.sampled_from(["repo", "revision", "path", "made", "files", "allow", "reason", "other"])


@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_whatever_a_table_says_is_taken_or_refused_with_its_line(entry: dict[str, Any]) -> None:
    text = "\n".join(["[models.tiny]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items())])
    where = ""
    try:
        model = models_in.parse_input("tiny", entry, text)
    except UsageError as refused:
        where = refused.where
    assert where.count("models.in") if where else [bool(model.repo), bool(model.path), bool(model.made)].count(True) == 1


_ENDINGS = [
    "bin",
    "pt",
    "pth",
    "pkl",
    "ckpt",
    "h5",
    "msgpack",
    "onnx",
    "gguf",
    "py",
    "PY",
    "JSON",
    "json",
    "safetensors",
    "so",
    "",
]


@given(st.text(max_size=8), st.sampled_from(_ENDINGS), st.lists(st.sampled_from(["*", "*.bin", "*.py", "a*"]), max_size=2))
def test_only_what_is_data_is_taken_whatever_is_asked_for(stem: str, ending: str, patterns: list[str]) -> None:
    plain = models_in.ModelInput("tiny", REPO, "main", tuple(patterns), (), "")
    assert not plain.wants(f"{stem}.{ending}") or ending in {"json", "safetensors"}
