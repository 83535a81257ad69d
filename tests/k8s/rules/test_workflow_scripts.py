"""Which failures of a shell script nobody would notice."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8s.rules.shell import Script

NOTICED = {
    "one command": "train x",
    "joined": "prepare && train && echo done",
    "echo first": "echo begin; train",
    "stops by itself": "set -e\ntrain\necho done",
    "stops by name": "set -o errexit; train; echo",
    "pipe with pipefail": "set -euo pipefail\ntrain | tee log\necho",
    "quoted": "echo 'a; b' \"c; d\" a\\;b",
    "comment": "# prepare; train\ntrain # then; echo",
    "here-document": "cat <<EOF\ntrain; echo\nEOF",
    "line goes on": "train \\\n  --now && \\\n  echo",
    "waits": "until curl --fail -G 'http://127.0.0.1/' >& /tmp/out; do sleep 1; done && cat /tmp/out",
    "prepares, then waits": "apk add curl && until nc -z db 5432; do echo waiting; sleep 2; done; train",
    "asks": "if test -f x; then echo there; elif grep -q a b; then echo b; else echo none; fi\ntrain",
    "asks for two things": "while a && b || ! c; do sleep 1; done; train",
    "a loop of words": "for f in a b; do echo $f; done; train",
    "redirected": "train >log 2>&1",
    "assignments": "A=1; B=2; train",
    "in a subshell at the end": 'exec train "$(pwd)"',
}
HIDDEN = {
    "before a semicolon": ("train; echo done", "train"),
    "before a line break": ("train\necho done", "train"),
    "in the background": ("train &\nwait", "train"),
    "pipe": ("train | tee log", "train"),
    "pipe though it stops": ("set -e\ntrain | tee log", "train"),
    "or true": ("train || true", "train"),
    "or true though it stops": ("set -e\ntrain || :", "train"),
    "asked too late": ("train\nset -e\necho", "train"),
    "with its own variables": ('HF_TOKEN="$HF_TOKEN" llamafactory-cli train x;\necho "done";', "llamafactory-cli train x"),
    "after what is joined": ("a && b; c", "b"),
    "in a loop": ("for f in a b; do\n  fetch $f\ndone", "fetch $f"),
    "after a condition": ("if ready; then train; fi; echo done", "train"),
    "a loop before a pipe": ("for f in a b; do echo $f; done | sort", "done"),
    "after a loop that waits": ("until ready; do sleep 1; done; train; echo", "train"),
}


@pytest.mark.parametrize("case", NOTICED)
def test_takes(case: str) -> None:
    assert Script.of(NOTICED[case]).hidden() == ""


@pytest.mark.parametrize("case", HIDDEN)
def test_refuses(case: str) -> None:
    text, command = HIDDEN[case]
    assert Script.of(text).hidden().startswith(f"`{command}` may fail")


@pytest.mark.parametrize(("flags", "fine"), [(["-ec"], True), (["-e", "-c"], True), (["-c"], False), (["-lc"], False)])
def test_options_of_the_command_line_count(flags: list[str], fine: bool) -> None:
    assert (Script.of("train; echo", flags).hidden() == "") is fine


def test_what_is_in_a_substitution_is_a_command_of_its_own() -> None:
    found = Script.of('x="$(curl -L http://example.com)"; y=`wget a | sort`\nrun "$(date)"')
    assert [one.name for one in found.commands] == ["curl", "wget", "sort", "date", "run"]


@pytest.mark.host
@pytest.mark.parametrize("case", ["before a semicolon", "pipe", "pipe though it stops", "or true", "after what is joined"])
def test_a_real_shell_hides_it(case: str, tmp_path: Path) -> None:
    """The verdicts are about what bash does: with programs that fail, the script ends well."""
    text = HIDDEN[case][0].replace("train", "false").replace("a && b; c", "true && false; true")
    assert subprocess.run(["bash", "-c", text], cwd=tmp_path, check=False, capture_output=True).returncode == 0


@given(st.text(alphabet="ab'\"`$(){};&|\n\\#<>E O=-", max_size=60))
@settings(deadline=None)
def test_no_text_makes_it_crash(text: str) -> None:
    Script.of(text).hidden()
