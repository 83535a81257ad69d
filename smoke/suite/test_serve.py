"""The api image serves what was trained, by each of its servers, and stops when it is told to.

A server lives its life as a job (`smoke/rungs/serving.py`), begun when the training passed; here it is judged, check by check.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common import console
from smoke.payload import tiny
from smoke.receipt import Serving
from smoke.rungs import judge, serving
from smoke.rungs.run import Run
from smoke.rungs.servers import BASE, GRACE_S, PROMISES, models
from smoke.rungs.serving import Served
from smoke.rungs.table import FACTORY, KNOWN, MERGED, VLLM

_QUESTIONS = len(tiny.rows())
Say = Callable[[str], None]
Took = Callable[[float], None]


def _ready(run: Run, served: Served) -> str:
    """It answers within the time limit."""
    run.figures.measure(f"{served.server}: ready", served.ready, "s")
    return f"{PROMISES[served.server].health} answers after {console.seconds(served.ready)}"


def _answers(run: Run, served: Served) -> str:
    """Greedy decoding gives back every trained answer, word for word."""
    result = served.result("answers")
    run.figures.answers.extend(served.answers())
    _none(judge.answers(result, models(served.server), _QUESTIONS))
    exact = f"{_QUESTIONS} of {_QUESTIONS} exact"
    # Where streaming is no rung of its own, it is looked at here.
    return exact if f"{served.server}: streaming" in KNOWN else f"{exact}; {_streaming(run, served)}"


def _streaming(run: Run, served: Served) -> str:
    """A stream carries the same text as the whole answer, in pieces."""
    result = served.result("streaming")
    _none(judge.streaming(result, served.result("answers")["answers"]))
    run.figures.measure(f"{served.server}: first token", result["first"], "s")
    run.figures.measure(f"{served.server}: one stream", result["rate"], "tokens/s")
    count = len(result["streams"])
    return f"{count} of {count} equal, first token after {result['first'] * 1000:.0f} ms, {result['rate']:.0f} tokens/s"


def _protocol(run: Run, served: Served) -> str:
    """Stop sequences, limits, log probabilities, completions without a chat: as each server promises."""
    del run
    promise = PROMISES[served.server]
    _none(judge.protocol(served.result("protocol"), promise))
    logprobs = "right" if promise.logprobs else "not given"
    completions = "exact" if promise.completions == 200 else f"status {promise.completions}"
    return f"stop and max_tokens cut; log probabilities {logprobs}; /v1/completions {completions}"


def _refusals(run: Run, served: Served) -> str:
    """Without the right key nothing; wrong models and too long prompts as promised; and it lives on."""
    del run
    result = served.result("refusals")
    _none(judge.refusals(result, PROMISES[served.server]))
    names = ("no key", "bad key", "unknown model", "long prompt")
    return ", ".join(f"{name} {result[name]['status']}" for name in names) + "; then exact"


def _load(run: Run, served: Served) -> str:
    """Many requests at once, each answered word for word."""
    result = served.result("load")
    _none(judge.load(result))
    count = len(result["replies"])
    run.figures.measure(f"{served.server}: {count} at once", result["rate"], "tokens/s")
    return f"{count} of {count} exact at once, {result['rate']:.0f} tokens/s"


def _hang_up(run: Run, served: Served) -> str:
    """Clients that go in the middle of a stream are not worked for any longer, and harm nobody."""
    del run
    result = served.result("hang-up")
    _none(judge.hang_up(result, questions=_QUESTIONS, counted="metrics" in PROMISES[served.server].checks))
    running = "" if result["running"] is None else f", {result['running']:.0f} requests running"
    return f"{result['gone']} clients gone{running}; then exact"


def _metrics(run: Run, served: Served) -> str:
    """What probes and Prometheus read."""
    del run
    result = served.result("metrics")
    # Each question to each model, whole and as a stream.
    _none(judge.metrics(result, requests=2 * _QUESTIONS * len(models(served.server))))
    return f"{result['samples']} names; {result['succeeded']:.0f} requests, {result['generated']:.0f} tokens, none running"


def _stop(run: Run, served: Served) -> str:
    """SIGTERM ends it in time, cleanly, and leaves no process."""
    ended = served.ended
    run.figures.servings.append(
        Serving(served.server, round(served.ready, 3), round(ended.seconds, 3), ended.code, ended.memory)
    )
    run.figures.measure(f"{served.server}: stop", ended.seconds, "s")
    run.figures.measure(f"{served.server}: memory", ended.memory, "bytes")
    assert served.before, "its processes cannot be seen from here: the engine runs on another machine"
    assert not served.left, f"{len(served.left)} of {served.before} processes outlive it: {served.left}"
    assert ended.seconds <= GRACE_S, f"it ended {ended.seconds:.1f} s after SIGTERM, expected at most {GRACE_S} s"
    assert ended.code == 0, f"after SIGTERM it ends with code {ended.code}, expected 0; {served.tail}"
    assert not served.leaked, "the API key stands in its log"
    gone = f"{served.before} processes gone {console.seconds(ended.seconds)} after SIGTERM"
    return f"{gone}, code 0, memory {console.size(ended.memory)}"


_JUDGES: dict[str, Callable[[Run, Served], str]] = {
    "ready": _ready,
    "answers": _answers,
    "streaming": _streaming,
    "protocol": _protocol,
    "refusals": _refusals,
    "load": _load,
    "hang-up": _hang_up,
    "metrics": _metrics,
    "stop": _stop,
}


def _needs(server: str, check: str) -> tuple[str, ...]:
    if check != "ready":
        return (f"{server}: ready",)
    return ("export" if server == MERGED else "train", "device of api")


@pytest.mark.parametrize(
    ("server", "check"),
    [
        pytest.param(server, check, marks=pytest.mark.rung(f"{server}: {check}", needs=_needs(server, check)))
        for server in (VLLM, MERGED, FACTORY)
        for check in _JUDGES
        if f"{server}: {check}" in KNOWN
    ],
)
def test_server(run: Run, say: Say, took: Took, server: str, check: str) -> None:
    """What a server showed in its life."""
    job = serving.begin(run, server)
    try:
        served = job.result()
    except BaseException:
        took(job.seconds)
        raise
    took({"ready": served.ready, "stop": served.ended.seconds}.get(check, served.seconds(check)))
    say(_JUDGES[check](run, served))


@pytest.mark.rung("the base model does not know", needs=(f"{VLLM}: answers",))
def test_base_knows_nothing(run: Run, say: Say) -> None:
    """The negative control: what was not trained is not answered, so the answers above do come from the training."""
    base = [answer for answer in run.figures.answers if answer.model == BASE]
    assert len(base) == _QUESTIONS, f"the base model was asked {len(base)} of {_QUESTIONS} questions"
    known = [answer for answer in base if answer.got == answer.expected]
    assert not known, f"the base model knows {len(known)} of {len(base)} answers, {known[0].question!r} for one"
    say(f"0 of {len(base)} known")


def _none(wrong: list[str]) -> None:
    assert not wrong, wrong[0] if len(wrong) == 1 else f"{len(wrong)} things are wrong; the first: {wrong[0]}"
