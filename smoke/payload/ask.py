"""Ask a server what its clients will ask, with the `openai` client; prints one JSON object.

Runs inside an api image, next to the server, because the container has no network but loopback; and as plain `python3`
wherever the `openai` package is. It asks and judges nothing (`smoke/rungs/judge.py` does):

    {"answers": {"seconds": 1.5, "found": {…}}, "load": {"seconds": 60.1, "error": "APITimeoutError: …"}, …}

Each check stands alone: one that fails says so and the next is made all the same. The key is read from the environment
variable API_KEY, because a command line can be read by every user of a machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Beside this file when it runs as a program; of the package when the rungs and tests read it.
if __package__:
    from smoke.payload.prometheus import METRICS, samples
else:
    from prometheus import METRICS, samples  # type: ignore[import-not-found,no-redef]

# Enough for the longest trained answer; a model that does not stop on its own runs into it and is found out.
MAX_TOKENS = 96
# Where an answer is cut by max_tokens; every trained answer is longer.
CUT = 3
AT_ONCE = 32
# Seconds that a server may take to come to rest: to notice that a client hung up, and to count an answer as done that a
# client has read already.
_PATIENCE_S = 15.0
# Tokens of the answer that nobody waits for any more: so many that it surely runs when the client goes.
_LONG = 400
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom to ask and what.

    Attributes:
        client: the `openai` client, with the right key.
        root: the server's address, without `/v1`.
        models: names to ask; the tuned model first.
        rows: questions (`instruction`) and trained answers (`output`).
        prompt: the first question as the chat template renders it; empty when it is not known.
        vllm: whether the server is vLLM's own, which takes more parameters and has metrics.
        timeout: seconds for one request.
    """

    client: Any
    root: str
    models: tuple[str, ...]
    rows: list[dict[str, str]]
    prompt: str
    vllm: bool
    timeout: float

    def create(self, question: str, *, model: str = "", client: Any = None, **more: Any) -> Any:
        """One greedy request to the chat endpoint; `more` goes over its parameters."""
        parameters = {"temperature": 0, "max_tokens": MAX_TOKENS, **more}
        messages = [{"role": "user", "content": question}]
        chosen = client or self.client
        return chosen.chat.completions.create(model=model or self.models[0], messages=messages, **parameters)

    def answer(self, question: str, model: str = "") -> str:
        """The whole answer."""
        return self.create(question, model=model).choices[0].message.content or ""

    def first(self) -> Result:
        """The first question once more, to see whether the server is still itself."""
        # After an error uvicorn hangs up without saying so first: like any client, this one may find its connection gone, once.
        patient = self.client.with_options(max_retries=1)
        try:
            got = self.create(self.rows[0]["instruction"], client=patient).choices[0].message.content or ""
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is the finding
            got = _line(problem)
        return {**_asked(self.rows[0]), "got": got}

    def get(self, path: str) -> tuple[int, str]:
        """A plain GET without any key; the status and the body."""
        try:
            # Loopback, and the scheme is ours.
            with urllib.request.urlopen(self.root + path, timeout=self.timeout) as reply:  # noqa: S310
                return reply.status, reply.read().decode(errors="replace")
        except urllib.error.HTTPError as problem:
            return problem.code, problem.read().decode(errors="replace")


def answers(asked: Asked) -> Result:
    """Every question to every model, and which models there are."""
    given = [
        {"model": model, **_asked(row), "got": asked.answer(row["instruction"], model)}
        for model in asked.models
        for row in asked.rows
    ]
    return {"models": sorted(model.id for model in asked.client.models.list()), "answers": given}


def streaming(asked: Asked) -> Result:
    """The same as streams: their text, how it ended, and how fast it came."""
    streams, first, pieces, after = [], [], 0, 0.0
    for model in asked.models:
        for row in asked.rows:
            began = time.monotonic()
            times, text, finish = [], "", None
            for choice in _choices(asked.create(row["instruction"], model=model, stream=True)):
                if choice.delta.content:
                    times.append(time.monotonic())
                    text += choice.delta.content
                finish = choice.finish_reason or finish
            stream = {"model": model, "question": row["instruction"], "streamed": text}
            streams.append({**stream, "pieces": len(times), "finish": finish})
            if model == asked.models[0] and times:
                first.append(times[0] - began)
                pieces += len(times) - 1
                after += times[-1] - times[0]
    return {
        "streams": streams,
        "first": statistics.median(first) if first else None,
        # Every token of the tuned model is a piece of the stream, as long as the client keeps pace.
        "rate": pieces / after if after else None,
    }


def protocol(asked: Asked) -> Result:
    """What else a client may ask for: a stop sequence, a limit, probabilities, completions without a chat."""
    row = asked.rows[0]
    words = row["output"].split(" ")
    word = words[len(words) // 2]
    stopped = asked.create(row["instruction"], stop=[word]).choices[0]
    cut = asked.create(row["instruction"], max_tokens=CUT)
    short = cut.choices[0]
    likely = asked.create(row["instruction"], logprobs=True, top_logprobs=2).choices[0].logprobs
    result: Result = {
        **_asked(row),
        "stop": {"word": word, "got": stopped.message.content, "finish": stopped.finish_reason},
        "length": {"got": short.message.content, "finish": short.finish_reason, "tokens": cut.usage.completion_tokens},
        "logprobs": None,
    }
    if likely is not None:
        result["logprobs"] = [
            {"token": token.token, "logprob": token.logprob, "top": [[top.token, top.logprob] for top in token.top_logprobs]}
            for token in likely.content
        ]
    plain = {"model": asked.models[0], "prompt": asked.prompt, "temperature": 0, "max_tokens": MAX_TOKENS}
    result["completions"] = _refusal(lambda: asked.client.completions.create(**plain).choices[0].text)
    return result


def refusals(asked: Asked) -> Result:
    """What a server has to refuse, and whether it lives on."""
    question = asked.rows[0]["instruction"]
    stranger = asked.client.with_options(api_key="not-the-key")
    unknown = "no-such-model"
    return {
        "no key": {"status": asked.get("/v1/models")[0], "text": ""},
        "bad key": _refusal(lambda: asked.create(question, client=stranger).choices[0].message.content),
        "bad key for the list": _refusal(lambda: str(stranger.models.list())),
        "unknown model": _refusal(lambda: asked.create(question, model=unknown).model),
        # Some words for each token that the model has room for.
        "long prompt": _refusal(lambda: asked.create("pinwheel " * 4096).choices[0].message.content),
        "after": asked.first(),
    }


def load(asked: Asked) -> Result:
    """Many requests at once: all wait for each other and then leave together."""
    gate = threading.Barrier(AT_ONCE)

    def request(number: int) -> tuple[dict[str, str], int]:
        row = asked.rows[number % len(asked.rows)]
        gate.wait()
        try:
            reply = asked.create(row["instruction"])
            got, tokens = reply.choices[0].message.content or "", reply.usage.completion_tokens
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is the finding
            got, tokens = _line(problem), 0
        return {**_asked(row), "got": got}, tokens

    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(request, range(AT_ONCE)))
    seconds = time.monotonic() - began
    return {"replies": [reply for reply, _ in done], "rate": sum(tokens for _, tokens in done) / seconds}


def hang_up(asked: Asked) -> Result:
    """Clients that go away in the middle of a stream, one for each question."""
    # vLLM's own can be told to go on after the end of the answer: it then surely is in the middle.
    endless: Result = {"max_tokens": _LONG, "extra_body": {"ignore_eos": True}} if asked.vllm else {}
    gone = 0
    for row in asked.rows:
        stream = asked.create(row["instruction"], stream=True, **endless)
        for choice in _choices(stream):
            if choice.delta.content:
                gone += choice.finish_reason is None
                break
        stream.close()
    running = _metrics_at_rest(asked)[1].get(METRICS["running"]) if asked.vllm else None
    return {"gone": gone, "running": running, "after": asked.first()}


def metrics(asked: Asked) -> Result:
    """What a cluster's probes and Prometheus read; both come without a key."""
    status, numbers = _metrics_at_rest(asked)
    result = {what: numbers.get(name) for what, name in METRICS.items()}
    return {"health": asked.get("/health")[0], "metrics": status, "samples": len(numbers), **result}


def _metrics_at_rest(asked: Asked) -> tuple[int, dict[str, float]]:
    """The status and the numbers of /metrics, once no request runs or waits, or as they stand after `_PATIENCE_S`."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        status, text = asked.get("/metrics")
        numbers = samples(text)
        busy = any(numbers.get(METRICS[what]) for what in ("running", "waiting"))
        if not busy or time.monotonic() > until:
            return status, numbers
        time.sleep(0.2)


CHECKS: dict[str, Callable[[Asked], Result]] = {
    "answers": answers,
    "streaming": streaming,
    "protocol": protocol,
    "refusals": refusals,
    "load": load,
    "hang-up": hang_up,
    "metrics": metrics,
}


def make(asked: Asked, checks: Iterable[str]) -> dict[str, Result]:
    """Make the checks, one after the other."""
    results: dict[str, Result] = {}
    for name in checks:
        began = time.monotonic()
        try:
            outcome: Result = {"found": CHECKS[name](asked)}
        except Exception as problem:  # noqa: BLE001 - a check that breaks down must not take the others along
            outcome = {"error": _line(problem)}
        results[name] = {"seconds": time.monotonic() - began, **outcome}
    return results


def _asked(row: dict[str, str]) -> dict[str, str]:
    return {"question": row["instruction"], "expected": row["output"]}


def _choices(stream: Any) -> Iterator[Any]:
    for piece in stream:
        yield from piece.choices[:1]


def _refusal(call: Callable[[], Any]) -> Result:
    """The status the server answers with, and its text: of the answer, or why not."""
    from openai import APIStatusError

    try:
        return {"status": 200, "text": call()}
    except APIStatusError as problem:
        return {"status": problem.status_code, "text": _line(problem)}


def _line(problem: BaseException) -> str:
    return " ".join(f"{type(problem).__name__}: {problem}".split())[:400]


def main() -> None:
    """Ask everything and print it."""
    from openai import OpenAI

    parser = argparse.ArgumentParser(description="ask a server what its clients will ask")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model", action="append", required=True, help="model name to ask; more may follow the tuned one")
    parser.add_argument("--check", action="append", choices=CHECKS, help="what to check; default: all")
    parser.add_argument("--vllm", action="store_true", help="the server is vLLM's own")
    parser.add_argument("--timeout", type=float, default=150.0, help="seconds for one request")
    parser.add_argument("--rows", type=Path, default=Path(__file__).resolve().with_name("rows.json"))
    parser.add_argument("--rendered", type=Path, default=Path("rendered.txt"), help="the first row as the template renders it")
    args = parser.parse_args()

    rows = json.loads(args.rows.read_text(encoding="utf-8"))
    rendered = args.rendered.read_text(encoding="utf-8") if args.rendered.exists() else ""
    key = os.environ.get("API_KEY", "")
    root = f"http://127.0.0.1:{args.port}"
    client = OpenAI(base_url=f"{root}/v1", api_key=key or "none", max_retries=0, timeout=args.timeout)
    prompt = rendered.partition(rows[0]["output"])[0]
    asked = Asked(client, root, tuple(args.model), rows, prompt, args.vllm, args.timeout)
    print(json.dumps(make(asked, args.check or CHECKS)))


if __name__ == "__main__":
    main()
