"""Judgements on what was found, where no server is needed to find it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from smoke.rungs import judge
from smoke.rungs.servers import PROMISES
from smoke.rungs.table import VLLM

ROW = {"question": "Q?", "expected": "an answer", "adapter": "an answer", "merged": "an answer", "difference": 1e-5}
AGREE: dict[str, Any] = {"dtype": "torch.float32", "largest": 20.0, "rows": [ROW]}


def test_adapter_and_merge_that_agree() -> None:
    assert judge.agree(AGREE, 1) == []
    # What bf16 loses is much for float32.
    apart = {**AGREE, "rows": [{**ROW, "difference": 0.3}]}
    assert judge.agree({**apart, "dtype": "torch.bfloat16"}, 1) == []
    assert judge.agree(apart, 1) == ["'Q?': logits differ by 0.3, expected at most 0.0002"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"merged": "nothing"}, "by the merged, 'Q?': expected 'an answer', got 'nothing'"),
        ({"adapter": "nothing"}, "by the adapter, 'Q?': expected 'an answer', got 'nothing'"),
        ({"difference": float("nan")}, "'Q?': logits differ by nan, expected at most 0.0002"),
        ({"difference": float("inf")}, "'Q?': logits differ by inf, expected at most 0.0002"),
    ],
)
def test_adapter_and_merge_that_differ(change: dict[str, Any], complaint: str) -> None:
    assert judge.agree({**AGREE, "rows": [{**ROW, **change}]}, 1) == [complaint]


def test_too_few_questions_and_weights_of_an_unknown_type() -> None:
    assert judge.agree(AGREE, 8) == ["1 of 8 questions were compared"]
    (complaint,) = judge.agree({**AGREE, "dtype": "torch.float16"}, 1)
    assert complaint.startswith("the merged weights are torch.float16")


def test_questions_that_were_not_asked() -> None:
    found = {"models": ["base", "tuned"], "answers": []}
    assert judge.answers(found, ("tuned", "base"), 8) == ["0 of 8 questions were answered"]
    assert judge.load({"replies": []}) == ["0 of 32 requests were made"]


def test_streams_and_answers_that_have_no_partner() -> None:
    answer = {"model": "tuned", "question": "Q?", "got": "an answer"}
    stream = {"model": "tuned", "question": "Q?", "streamed": "an answer", "pieces": 3, "finish": "stop"}
    assert judge.streaming({"streams": [stream]}, [answer]) == []
    assert judge.streaming({"streams": []}, [answer]) == ["'Q?' to tuned: no stream"]
    assert judge.streaming({"streams": [stream]}, []) == ["'Q?' to tuned: a stream of what was never answered"]


METRICS = {"health": 200, "metrics": 200, "running": 0.0, "waiting": 0.0, "succeeded": 8.0, "generated": 90.0}


@pytest.mark.parametrize("name", sorted(METRICS))
def test_metrics_that_are_missing_or_wrong(name: str) -> None:
    assert judge.metrics(METRICS, requests=8) == []
    for wrong in (None, 1.0, float("nan")):
        assert len(judge.metrics({**METRICS, name: wrong}, requests=8)) == 1


PROTOCOL: dict[str, Any] = {
    "question": "Q?",
    "expected": "one two three four",
    "stop": {"word": "three", "got": "one two ", "finish": "stop"},
    "length": {"got": "one two three", "finish": "length", "tokens": 3},
    "logprobs": [{"token": "one two three four", "logprob": -0.1, "top": [["one two three four", -0.1]]}],
    "completions": {"status": 200, "text": "one two three four"},
}


@pytest.mark.parametrize(
    ("where", "what", "value"),
    [
        ("stop", "got", "one two three"),
        ("stop", "got", None),
        ("stop", "finish", "length"),
        ("length", "got", "one two three four"),
        ("length", "got", "uno dos tres"),
        ("length", "got", None),
        ("length", "tokens", 4),
        ("completions", "text", "one"),
        ("completions", "status", 500),
    ],
)
def test_protocol_broken_in_one_place(where: str, what: str, value: object) -> None:
    assert judge.protocol(PROTOCOL, PROMISES[VLLM]) == []
    broken = copy.deepcopy(PROTOCOL)
    broken[where][what] = value
    assert len(judge.protocol(broken, PROMISES[VLLM])) == 1


@pytest.mark.parametrize(
    ("logprobs", "complaint"),
    [
        ([], "got none"),
        ([{"token": "one", "logprob": -0.1, "top": [["one", -0.1]]}], "got them of 'one'"),
        ([{"token": "one two three four", "logprob": float("nan"), "top": [["x", -1.0]]}], "got nan"),
        ([{"token": "one two three four", "logprob": -0.1, "top": []}], "as the most likely token, got []"),
    ],
)
def test_logprobs_that_are_none(logprobs: list[dict[str, Any]], complaint: str) -> None:
    assert any(complaint in one for one in judge.protocol({**PROTOCOL, "logprobs": logprobs}, PROMISES[VLLM]))
