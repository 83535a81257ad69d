"""What is wrong with what `payload/ask.py` and `payload/agree.py` found out; an empty list when nothing is.

Each complaint says which question it is about, what was expected, and what came instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smoke.payload.ask import AT_ONCE, CUT
from smoke.rungs.servers import Promise

Result = Mapping[str, Any]
# How far two logits may lie apart, by the type that the merged weights are stored in: as a share of the largest logit. In
# float32 both ways compute the same sums in another order; bf16 rounds each weight to 8 bits, and two layers add that up.
AGREE = {"torch.float32": 1e-5, "torch.bfloat16": 0.05}


def answers(result: Result, models: Sequence[str], questions: int) -> list[str]:
    """The list of models, the tuned one first, and the tuned model's answers, word for word."""
    expected = sorted(models)
    tuned = models[0]
    wrong = [] if result["models"] == expected else [f"/v1/models names {result['models']}, expected {expected}"]
    given = [answer for answer in result["answers"] if answer["model"] == tuned]
    if len(given) != questions:
        wrong.append(f"{len(given)} of {questions} questions were answered")
    return wrong + _inexact(given)


def streaming(result: Result, whole: Iterable[Result]) -> list[str]:
    """Every stream came in pieces, ended as a stream ends, and carries the text of the whole answer."""
    wrong = []
    streams = {(stream["model"], stream["question"]): stream for stream in result["streams"]}
    for answer in whole:
        stream = streams.pop((answer["model"], answer["question"]), None)
        about = f"{answer['question']!r} to {answer['model']}"
        if stream is None:
            wrong.append(f"{about}: no stream")
        elif stream["streamed"] != answer["got"]:
            wrong.append(
                f"{about}: expected the stream to be {answer['got']!r} as the whole answer, got {stream['streamed']!r}"
            )
        elif stream["finish"] is None:
            wrong.append(f"{about}: the stream ended without a finish_reason")
        # One word may be one token; a whole sentence in one piece was not streamed.
        elif stream["pieces"] < 2 <= len(answer["got"].split(" ")):
            wrong.append(f"{about}: {answer['got']!r} came in one piece")
    return wrong + [f"{question!r} to {model}: a stream of what was never answered" for model, question in sorted(streams)]


def protocol(result: Result, promise: Promise) -> list[str]:
    """A stop sequence and max_tokens cut the answer where they should; probabilities and completions are as promised."""
    about, expected = repr(result["question"]), str(result["expected"])
    wrong = []
    stop, before = result["stop"], expected.partition(result["stop"]["word"])[0]
    if (stop["got"], stop["finish"]) != (before, "stop"):
        wrong.append(
            f"{about} with stop={stop['word']!r}: expected {before!r} by 'stop', got {stop['got']!r} by {stop['finish']!r}"
        )
    cut = result["length"]
    if not cut["got"] or not expected.startswith(cut["got"]) or cut["got"] == expected:
        wrong.append(f"{about} with max_tokens={CUT}: expected the beginning of {expected!r}, got {cut['got']!r}")
    if (cut["finish"], cut["tokens"]) != ("length", CUT):
        wrong.append(
            f"{about} with max_tokens={CUT}: expected {CUT} tokens by 'length', got {cut['tokens']} by {cut['finish']!r}"
        )
    completions = result["completions"]
    if completions["status"] != promise.completions:
        wrong.append(
            f"/v1/completions: expected status {promise.completions}, got {completions['status']}: {completions['text']}"
        )
    elif promise.completions == 200 and completions["text"] != expected:
        wrong.append(f"{about} to /v1/completions: expected {expected!r}, got {completions['text']!r}")
    return wrong + _logprobs(about, expected, result["logprobs"], given=promise.logprobs)


def refusals(result: Result, promise: Promise) -> list[str]:
    """Strangers stay outside, wrong requests are answered as promised, and the server lives on."""
    expected = {
        "no key": (401, ""),
        "bad key": (401, ""),
        "bad key for the list": (401, ""),
        "unknown model": (promise.unknown_model, ""),
        "long prompt": promise.long_prompt,
    }
    wrong = []
    for what, (status, words) in expected.items():
        got, text = result[what]["status"], result[what]["text"] or ""
        if got != status or words not in text:
            wrong.append(f"{what}: expected status {status}{f' and {words!r}' if words else ''}, got {got}: {text}")
    return wrong + _inexact([result["after"]], "after the refusals, ")


def load(result: Result) -> list[str]:
    """Every one of the requests was answered, word for word."""
    replies = result["replies"]
    wrong = [] if len(replies) == AT_ONCE else [f"{len(replies)} of {AT_ONCE} requests were made"]
    return wrong + _inexact(replies, f"among {AT_ONCE} at once, ")


def hang_up(result: Result, *, questions: int, counted: bool) -> list[str]:
    """The clients did go in the middle, the server still answers, and works for none of them any more.

    Args:
        result: by the payload.
        questions: how many clients went.
        counted: whether the server tells how many requests it works on.
    """
    wrong = (
        [] if result["gone"] == questions else [f"{result['gone']} of {questions} clients hung up in the middle of a stream"]
    )
    if counted and result["running"] != 0:
        wrong.append(f"after the clients hung up: expected 0 running requests, got {result['running']}")
    return wrong + _inexact([result["after"]], "after the clients hung up, ")


def metrics(result: Result, *, requests: int) -> list[str]:
    """/health and /metrics answer, the figures add up, and nothing runs any more.

    Args:
        result: by the payload.
        requests: how many were certainly answered before.
    """
    wrong = [f"/{path}: expected status 200, got {result[path]}" for path in ("health", "metrics") if result[path] != 200]
    for what in ("running", "waiting"):
        if result[what] != 0:
            wrong.append(f"/metrics: expected 0 requests {what} when the server is at rest, got {result[what]}")
    for what in ("succeeded", "generated"):
        if result[what] is None or not math.isfinite(result[what]) or result[what] < requests:
            wrong.append(f"/metrics: expected {requests} or more {what}, got {result[what]}")
    return wrong


def agree(result: Result, questions: int) -> list[str]:
    """Adapter and merged model give the trained answers, and logits as close as the stored type allows."""
    share = AGREE.get(result["dtype"])
    if share is None:
        return [f"the merged weights are {result['dtype']}, expected one of {', '.join(AGREE)}"]
    wrong = [] if len(result["rows"]) == questions else [f"{len(result['rows'])} of {questions} questions were compared"]
    for way in ("adapter", "merged"):
        wrong += _inexact([{**row, "got": row[way]} for row in result["rows"]], f"by the {way}, ")
    bound = share * result["largest"]
    for row in result["rows"]:
        # Said this way round, because no comparison with NaN holds.
        if not row["difference"] <= bound:
            wrong.append(f"{row['question']!r}: logits differ by {row['difference']:.2g}, expected at most {bound:.2g}")
    return wrong


def _inexact(replies: Iterable[Result], where: str = "") -> list[str]:
    return [
        f"{where}{reply['question']!r}: expected {reply['expected']!r}, got {reply['got']!r}"
        for reply in replies
        if reply["got"] != reply["expected"]
    ]


def _logprobs(about: str, expected: str, tokens: list[Result] | None, *, given: bool) -> list[str]:
    if not given:
        return [] if tokens is None else [f"{about}: log probabilities came, which this server did not give until now"]
    if not tokens:
        return [f"{about}: expected log probabilities, got none"]
    wrong = []
    for token in tokens:
        if not (math.isfinite(token["logprob"]) and token["logprob"] <= 0):
            wrong.append(f"{about}: expected a log probability of {token['token']!r}, got {token['logprob']}")
        # Greedy decoding takes the most likely token.
        if not token["top"] or max(token["top"], key=lambda top: top[1])[1] > token["logprob"]:
            wrong.append(f"{about}: expected {token['token']!r} as the most likely token, got {token['top']}")
    said = "".join(token["token"] for token in tokens)
    if not said.startswith(expected):
        wrong.append(f"{about}: expected log probabilities of {expected!r}, got them of {said!r}")
    return wrong
