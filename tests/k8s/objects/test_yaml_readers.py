"""What we write is read alike by everybody: by ourselves, by PyYAML (YAML 1.1), and by kubectl (Go's parser)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from k8s.objects import strict_yaml
from k8s.objects.findings import Finding

pytestmark = pytest.mark.slow

# What some parser takes for something else than text, or for structure.
ODD = [
    "0X1F",
    "0x1F",
    "-0X1f",
    "+0X1f",
    "0B1",
    "0b1",
    "0O17",
    "0o17",
    "0O8",
    "1_000",
    "0_7",
    "_1",
    "1__",
    "+.INF",
    ".Inf",
    "-.inf",
    ".NaN",
    "NaN",
    "nan",
    "Infinity",
    "inf",
    "-inf",
    "1e3",
    "1E3",
    "1e+3",
    "1.e3",
    ".5",
    "5.",
    "+.5",
    "-.5e3",
    ".5.",
    "1e",
    "e3",
    "012",
    "08",
    "09",
    "0",
    "-0",
    "+0",
    "+1",
    "00",
    "1:30",
    "1:30:30",
    "190:20:30.15",
    "2001-01-01",
    "2001-12-14t21:59:43.10-05:00",
    "2001-01-01T00:00:00Z",
    "=",
    "<<",
    "null",
    "Null",
    "NULL",
    "nULL",
    "~",
    "y",
    "Y",
    "n",
    "N",
    "yes",
    "Yes",
    "YES",
    "yEs",
    "no",
    "on",
    "On",
    "OFF",
    "true",
    "True",
    "TRUE",
    "tRUE",
    "false",
    "0x",
    "0b",
    "0o",
    "-",
    "--",
    "---",
    "...",
    "a:",
    "#a",
    "'",
    '"',
    "\\",
    "?",
    "|",
    ">",
    "&b",
    "*a",
    "!",
    "!!str",
    "%",
    "@",
    "`",
    ",",
    "]",
    "}",
    "[a]",
    "{a:b}",
    "{{a}}",
    "1_0.5",
    "0x1_f",
    "1e1_0",
    "1.5e1_0",
    "0x1p-2",
    "1e400",
    "-1e400",
    "0b102",
    "9223372036854775808",
    "18446744073709551616",
    "99999999999999999999999",
    "0.1",
    "1.10",
    "-1a",
    "0-1",
    "1.1.1",
    "10.0.0.1",
    "10.0.0.1:5000/x",
    "5Gi",
    "500m",
    "24h",
]
ODD += [
    "",
    " ",
    "  a",
    "a ",
    "a: b",
    "a #b",
    "- a",
    "--- a",
    "... a",
    "a\nb",
    "a\n\nb\n",
    "\na",
    "\n a",
    "a\n---\nb",
    "a\n...\nb",
]
ODD += [
    "a\tb",
    "\ta",
    "a\rb",
    "a\r\nb",
    "\u2028a",
    "a\u2029b",
    "a\u0085b",
    "\ufeffa",
    "a\ufeffb",
    "\x7f",
    "\x1b",
    "\xa0a",
    "\u200b",
]
ODD += ["\U0001f600", "\ufffd", "\ue000", "é", "a" * 3000, "|-\n a", "2001-01-01 00:00:00"]
ALPHABET = "0123456789abcdefxXoOeEyYnNtTzZ_.:+-=<~#'\"\\/ \n\t\u2028\u0085{}[],&*!|>%@`"
TEXTS = st.sampled_from(ODD) | st.text(ALPHABET, max_size=12) | st.text(max_size=12)
# Of a whole number as a float Go prints fewer digits from 2^53 on.
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(-1e15, 1e15)
# Each example starts kubectl: none is made smaller.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
TREES = st.recursive(
    TEXTS | NUMBERS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)


def strictly(text: str) -> Any:
    (one,) = strict_yaml.documents(text, "f.yaml")
    assert not isinstance(one, Finding), one.text()
    return one[0]


def written(spec: Any) -> tuple[dict[str, Any], str]:
    body = {"apiVersion": "example.com/v1", "kind": "Tree", "metadata": {"name": "x", "namespace": "n"}, "spec": spec}
    return body, strict_yaml.dump([body])


def is_text(value: str) -> bool:
    return not any(0xD800 <= ord(letter) < 0xE000 for letter in value)


@given(st.dictionaries(TEXTS.filter(is_text), TREES, max_size=6))
@settings(deadline=None, max_examples=300)
def test_what_is_written_reads_back_here_and_in_pyyaml(spec: dict[str, Any]) -> None:
    body, text = written(spec)
    assert strictly(text) == body
    assert yaml.safe_load(text) == body


@pytest.mark.parametrize("text", ODD)
def test_an_odd_text_stays_a_text(text: str) -> None:
    body, made = written({text or "k": text, "list": [text]})
    assert strictly(made) == yaml.safe_load(made) == body


@pytest.mark.parametrize(
    "number", ["0X1F", "-0X1f", "1e1_0", "1_0.5", "0_7", "0x1_f", "1_000", "yes", "0o17", "0b1", ".inf", ".NaN"]
)
def test_what_parsers_read_differently_is_refused(number: str) -> None:
    (one,) = strict_yaml.documents(f"a: {number}\n", "f.yaml")
    assert isinstance(one, Finding)
    assert "means different things to different YAML parsers" in one.what


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "1e400", "0xFFFFFFFFFFFFFFFFF"])
def test_a_number_of_more_than_64_bits_is_refused(number: str) -> None:
    (one,) = strict_yaml.documents(f"a: {number}\n", "f.yaml")
    assert isinstance(one, Finding)
    assert "has more than 64 bits" in one.what


def by_kubectl(text: str) -> Any:
    """The object as kubectl reads it; no server is asked."""
    kubectl = shutil.which("kubectl")
    assert kubectl
    argv = [kubectl, "annotate", "--local", "-f", "-", "zz=zz", "-o", "json"]
    environ = {**os.environ, "KUBECONFIG": os.devnull}
    done = subprocess.run(argv, input=text.encode(), capture_output=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr.decode()
    body = json.loads(done.stdout)
    del body["metadata"]["annotations"]
    return body


@pytest.mark.host
@given(st.lists(TREES, min_size=20, max_size=60))
@settings(
    deadline=None, max_examples=10, phases=PHASES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
def test_kubectl_reads_what_we_wrote(values: list[Any]) -> None:
    body, text = written({"values": values, "keys": {str(value): 1 for value in values if isinstance(value, str)}})
    assert by_kubectl(text) == body


@pytest.mark.host
def test_kubectl_reads_every_odd_text_as_a_text() -> None:
    body, text = written({"values": ODD, "keys": dict.fromkeys(ODD, "v")})
    assert by_kubectl(text) == body


PLAIN = st.sampled_from([one for one in ODD if one.isprintable() and not set(one) & set("#'\"\\?|>&*!%@`,[]{}: ")])


@pytest.mark.host
@given(st.lists(PLAIN | st.from_regex(r"[-+.]?[0-9][0-9a-fxXoO_.eE:+-]{0,8}", fullmatch=True), min_size=30, max_size=60))
@settings(deadline=None, max_examples=10, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
def test_what_we_read_from_a_file_is_what_kubectl_reads(plain: list[str]) -> None:
    """Of plain scalars, as people write them; those that we refuse left out."""
    kept: list[tuple[str, Any]] = []
    for one in plain:
        (read,) = strict_yaml.documents(f"a: {one}\n", "f.yaml")
        if not isinstance(read, Finding) and isinstance(read[0], dict):
            kept.append((one, read[0]["a"]))
    lines = "".join(f"    - {one}\n" for one, _ in kept)
    head = "apiVersion: example.com/v1\nkind: Tree\nmetadata:\n  name: x\nspec:\n  values:\n"
    found = by_kubectl(f"{head}{lines}    - end\n")["spec"]["values"][:-1]
    assert list(zip((one for one, _ in kept), found, strict=True)) == kept
