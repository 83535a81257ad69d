"""The api image serves what was trained, by both of its servers, and stops when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from common import console
from smoke.bench import Bench
from smoke.container import Sandbox
from smoke.payload import tiny
from smoke.receipt import Answer, Serving
from smoke.servers import BASE, FACTORY, GRACE_S, PORT, SHM, TUNED, VLLM, command, environment
from smoke.session import PAYLOAD

_URL = f"http://127.0.0.1:{PORT}"
_READY_LIMIT_S = 300.0
_ASK_LIMIT_S = 180.0
Say = Callable[[str], None]


@dataclass(slots=True)
class Server:
    """A server under test; `ready` is 0 until it answers."""

    name: str
    box: Sandbox
    models: tuple[str, ...]
    health: str
    ready: float = 0.0


@pytest.fixture(scope="class")
def serving(request: pytest.FixtureRequest, bench: Bench, server: str) -> Iterator[Server]:
    """The started server; it may not be ready yet, and may have been stopped by the last rung."""
    gpu = bench.gpu is not None
    argv = command(server, gpu=gpu, vllm=bench.figures.versions["api"]["vllm"])
    with bench.container(server, "api", argv, environment=environment(gpu=gpu), shm=SHM) as box:
        if server == VLLM:
            yield Server(server, box, (TUNED, BASE), "/health")
        else:
            # LLaMA-Factory's api has no /health, and serves the one model.
            yield Server(server, box, (TUNED,), "/v1/models")


@pytest.fixture(scope="class")
def answers(bench: Bench, serving: Server) -> tuple[Answer, ...]:
    """All questions to all models, asked once."""
    models = [argument for model in serving.models for argument in ("--model", model)]
    said = serving.box.ask(["python", f"{PAYLOAD}/ask.py", "--port", str(PORT), *models], _ASK_LIMIT_S)
    assert said["models"] == sorted(serving.models), f"/v1/models names {said['models']}, not {sorted(serving.models)}"
    found = tuple(Answer(server=serving.name, **answer) for answer in said["answers"])
    bench.figures.answers.extend(found)
    return found


@pytest.mark.parametrize("server", [VLLM, FACTORY], scope="class")
class TestServe:
    """One server after the other: each needs the memory and the cores for itself."""

    @pytest.mark.rung("{server}: ready", needs=("train", "contract of api"))
    def test_ready(self, say: Say, serving: Server) -> None:
        """It answers within the time limit."""
        serving.ready = serving.box.await_http(f"{_URL}{serving.health}", _READY_LIMIT_S)
        say(f"{serving.health} answers after {console.seconds(serving.ready)}")

    @pytest.mark.rung("{server}: answers", needs=("{server}: ready",))
    def test_answers(self, say: Say, answers: tuple[Answer, ...]) -> None:
        """Greedy decoding gives back every trained answer, word for word."""
        tuned = [answer for answer in answers if answer.model == TUNED]
        wrong = [answer for answer in tuned if answer.got != answer.expected]
        assert len(tuned) == len(tiny.rows()), f"{len(tuned)} of {len(tiny.rows())} questions were answered"
        assert not wrong, (
            f"{len(wrong)} of {len(tuned)} answers are wrong; {wrong[0].question!r}: "
            f"expected {wrong[0].expected!r}, got {wrong[0].got!r}"
        )
        say(f"{len(tuned)} of {len(tuned)} exact")

    @pytest.mark.rung("{server}: streaming", needs=("{server}: ready",))
    def test_streaming(self, say: Say, answers: tuple[Answer, ...]) -> None:
        """A stream carries the same text as the whole reply."""
        differ = [answer for answer in answers if answer.streamed != answer.got]
        assert not differ, f"{differ[0].question!r}: whole {differ[0].got!r}, streamed {differ[0].streamed!r}"
        say(f"{len(answers)} of {len(answers)} equal")

    @pytest.mark.rung("{server}: stop", needs=("{server}: ready",))
    def test_stop(self, bench: Bench, say: Say, serving: Server) -> None:
        """SIGTERM ends it in time, cleanly, and leaves no process."""
        before = serving.box.processes()
        assert before, "the container's processes cannot be seen from here: the engine runs on another machine"
        ended = serving.box.terminate(GRACE_S)
        left = serving.box.processes()
        bench.figures.servings.append(
            Serving(serving.name, round(serving.ready, 3), round(ended.seconds, 3), ended.code, ended.memory)
        )
        assert not left, f"{len(left)} of {len(before)} processes outlive the container: {left}"
        assert ended.code == 0, f"after SIGTERM it ends with code {ended.code}; log: {serving.box.tail()}"
        say(
            f"{len(before)} processes gone {console.seconds(ended.seconds)} after SIGTERM, code 0, "
            f"memory {console.size(ended.memory)}"
        )


@pytest.mark.rung("the base model does not know", needs=(f"{VLLM}: ready",))
def test_base_knows_nothing(bench: Bench, say: Say) -> None:
    """The negative control: what was not trained is not answered, so the answers above do come from the training."""
    base = [answer for answer in bench.figures.answers if answer.model == BASE]
    assert len(base) == len(tiny.rows()), f"the base model was asked {len(base)} of {len(tiny.rows())} questions"
    known = [answer for answer in base if answer.got == answer.expected]
    assert not known, f"the base model knows {len(known)} of {len(base)} answers, {known[0].question!r} for one"
    say(f"0 of {len(base)} known")
