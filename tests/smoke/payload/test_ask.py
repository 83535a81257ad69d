"""What is asked of a server and how it is judged, on a server that behaves and on each way to misbehave."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI

from smoke.payload import ask, tiny
from smoke.payload.prometheus import samples
from smoke.rungs import judge
from smoke.rungs.servers import PROMISES, models
from smoke.rungs.table import FACTORY, VLLM
from tests.smoke import chat_server
from tests.smoke.chat_server import KEY, ChatServer

# Each asks a server that takes its time.
pytestmark = pytest.mark.slow

ROWS = tiny.rows()
ANSWERS = {row["instruction"]: row["output"] for row in ROWS}
CLIENTS: dict[str, OpenAI] = {}


@pytest.fixture(scope="module", autouse=True)
def _client() -> Iterator[None]:
    # One for all: reading the certificates takes longer than most tests.
    with OpenAI(base_url="http://127.0.0.1:1/v1", api_key=KEY, max_retries=0) as CLIENTS["one"]:
        yield


def asked(server: ChatServer, timeout: float = 60.0) -> ask.Asked:
    root = f"http://127.0.0.1:{server.server_address[1]}"
    client = CLIENTS["one"].with_options(base_url=f"{root}/v1", timeout=timeout)
    prompt = f"<|im_start|>user\n{ROWS[0]['instruction']}<|im_end|>\n"
    return ask.Asked(client, root, models(VLLM if server.vllm else FACTORY), ROWS, prompt, server.vllm, timeout)


def findings(fault: str, checks: tuple[str, ...], *, vllm: bool = True) -> dict[str, dict[str, object]]:
    # Streams take a while, so that a client can hang up in the middle.
    pause = 0.002 if "hang-up" in checks else 0.0
    # Only a server that never answers, or never comes to rest, is given up soon: a busy machine takes its time.
    timeout = 2.0 if fault in {"hangs", "dies"} else 60.0
    patience = 0.3 if fault == "keeps working" else 60.0
    with (
        chat_server.serving(ANSWERS, vllm=vllm, fault=fault, pause=pause) as server,
        mock.patch.object(ask, "_PATIENCE_S", patience),
    ):
        return ask.make(asked(server, timeout), checks)


def complaints(said: dict[str, dict[str, object]], *, vllm: bool = True) -> Iterator[str]:
    name = VLLM if vllm else FACTORY
    for check, one in said.items():
        if "error" in one:
            yield str(one["error"])
            continue
        found = one["found"]
        assert isinstance(found, dict)
        match check:
            case "answers":
                yield from judge.answers(found, models(name), len(ROWS))
            case "streaming":
                whole = said["answers"]["found"]
                assert isinstance(whole, dict)
                yield from judge.streaming(found, whole["answers"])
            case "protocol":
                yield from judge.protocol(found, PROMISES[name])
            case "refusals":
                yield from judge.refusals(found, PROMISES[name])
            case "load":
                yield from judge.load(found)
            case "hang-up":
                yield from judge.hang_up(found, questions=len(ROWS), counted=vllm)
            case "metrics":
                yield from judge.metrics(found, requests=1)


@pytest.mark.parametrize("vllm", [True, False], ids=[VLLM, FACTORY])
def test_server_that_behaves(vllm: bool) -> None:
    said = findings("", PROMISES[VLLM if vllm else FACTORY].checks, vllm=vllm)
    assert list(complaints(said, vllm=vllm)) == []
    assert all("found" in one for one in said.values())


@pytest.mark.parametrize(
    ("fault", "check", "complaint"),
    [
        (
            "knows nothing",
            "answers",
            "'What is a wheel?': expected 'A built package of Python code, ready to unpack.', got 'A built pack",
        ),
        ("another model", "answers", "/v1/models names ['another', 'base', 'tuned'], expected ['base', 'tuned']"),
        (
            "other streams",
            "streaming",
            "to tuned: expected the stream to be 'A built package of Python code, ready to unpack.' as the whole answer, got",
        ),
        ("one piece", "streaming", "came in one piece"),
        ("endless stream", "streaming", "the stream ended without a finish_reason"),
        ("never stops", "protocol", "with stop='Python': expected 'A built package of ' by 'stop', got 'A built package of Py"),
        ("no limit", "protocol", "with max_tokens=3: expected 3 tokens by 'length', got 9 by 'stop'"),
        ("unknown end", "protocol", "with max_tokens=3: expected 3 tokens by 'length', got 3 by 'stop'"),
        ("no logprobs", "protocol", "expected log probabilities, got none"),
        ("positive logprobs", "protocol", "expected a log probability of 'A', got 0.5"),
        ("not the likeliest", "protocol", "expected 'A' as the most likely token"),
        ("half completions", "protocol", "to /v1/completions: expected 'A built package"),
        ("open", "refusals", "no key: expected status 401, got 200"),
        ("any key", "refusals", "bad key: expected status 401, got 200"),
        ("any model", "refusals", "unknown model: expected status 404, got 200"),
        ("takes everything", "refusals", "long prompt: expected status 400 and 'context length', got 200"),
        ("breaks down", "refusals", "long prompt: expected status 400 and 'context length', got 500"),
        (
            "dies",
            "refusals",
            "after the refusals, 'What is a wheel?': expected 'A built package of Python code, ready to unpack.', got 'API",
        ),
        ("confuses many", "load", "among 32 at once, "),
        ("keeps working", "hang-up", "after the clients hung up: expected 0 running requests, got 3.0"),
        ("keeps working", "metrics", "/metrics: expected 0 requests running when the server is at rest, got 3.0"),
        ("does not count", "metrics", "/metrics: expected 1 or more generated, got 0.0"),
        ("unreadable metrics", "metrics", "no sample of Prometheus' text format: 'broken'"),
        ("unhealthy", "metrics", "/health: expected status 200, got 404"),
        ("hangs", "answers", "APITimeoutError"),
        (
            "hangs",
            "load",
            "among 32 at once, 'What is a wheel?': expected 'A built package of Python code, ready to unpack.', got 'APITime",
        ),
        ("hangs", "hang-up", "APITimeoutError"),
    ],
)
def test_server_that_misbehaves_is_found_out(fault: str, check: str, complaint: str) -> None:
    # Answers are what streams are compared with, and what metrics count.
    checks = ("answers", check) if check in {"streaming", "metrics"} else (check,)
    found = list(complaints(findings(fault, checks)))
    assert any(complaint in one for one in found), found


def test_llama_factory_that_learned_something_new_is_noticed() -> None:
    said = findings("", ("protocol", "refusals"), vllm=True)
    found = list(complaints(said, vllm=False))
    assert any(one.startswith("/v1/completions: expected status 404, got 200") for one in found)
    assert any("log probabilities came, which this server did not give" in one for one in found)
    assert any(one.startswith("unknown model: expected status 200, got 404") for one in found)


def test_one_check_that_breaks_down_leaves_the_others() -> None:
    said = findings("unreadable metrics", ("metrics", "answers"))
    assert "error" in said["metrics"]
    assert "found" in said["answers"]


def test_metrics_are_read_when_the_server_is_at_rest() -> None:
    with chat_server.serving(ANSWERS, fault="counts late") as server:
        server.running = 1
        found = ask.metrics(asked(server))
    assert (found["running"], server.looks) == (0, 3)


def test_load_is_at_once() -> None:
    with chat_server.serving(ANSWERS, fault="confuses many") as server:
        ask.load(asked(server))
        assert server.highest > 8


def test_clients_go_in_the_middle() -> None:
    with chat_server.serving(ANSWERS, pause=0.002) as server:
        found = ask.hang_up(asked(server))
    assert (found["gone"], found["running"]) == (len(ROWS), 0)


@pytest.mark.slow
def test_as_a_program_with_the_key_from_its_environment(tmp_path: Path) -> None:
    (tmp_path / "rendered.txt").write_text(f"user {ROWS[0]['instruction']} assistant {ROWS[0]['output']} end")
    with chat_server.serving(ANSWERS) as server:
        argv = [sys.executable, str(Path(ask.__file__)), "--port", str(server.server_address[1]), "--model", "tuned", "--vllm"]
        done = subprocess.run(
            [*argv, "--check", "protocol", "--check", "refusals"],
            cwd=tmp_path,
            env={**os.environ, "API_KEY": KEY},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    said = json.loads(done.stdout)
    assert list(said) == ["protocol", "refusals"]
    assert list(complaints(said)) == []
    assert KEY not in done.stdout + done.stderr


NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]*", fullmatch=True)
VALUES = st.floats(allow_nan=False, allow_infinity=False, width=32)
LABELS = st.text(st.characters(exclude_characters='"\\\n\r', exclude_categories=("Cc", "Zl", "Zp", "Cs")))


@given(st.dictionaries(NAMES, st.lists(st.tuples(LABELS, VALUES), min_size=1, max_size=3), max_size=5))
def test_samples_are_added_up_by_name(metrics: dict[str, list[tuple[str, float]]]) -> None:
    text = "# TYPE x gauge\n\n" + "".join(
        f'{name}{{label="{label}"}} {value!r}\n' for name, all_of in metrics.items() for label, value in all_of
    )
    assert samples(text) == {name: pytest.approx(sum(value for _, value in all_of)) for name, all_of in metrics.items()}


@given(st.text())
def test_samples_of_anything_are_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert all(isinstance(value, float) for value in samples(text).values())


def test_samples_with_and_without_labels_and_time() -> None:
    assert samples('a 1\nb{x="} 2"} 3 1700000000\n') == {"a": 1.0, "b": 3.0}
