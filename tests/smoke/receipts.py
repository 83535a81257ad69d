"""Receipts such as a run writes, for tests of what reads them: the figures are those of a real run, rounded."""

from __future__ import annotations

from dataclasses import replace

from smoke.payload import tiny
from smoke.receipt import Answer, Figure, Gpu, Host, Outcome, ProvenImage, Rung, Serving, SmokeReceipt, Training, Version
from smoke.rungs.table import FACTORY, KNOWN, MERGED, VLLM

STARTED = "2026-11-23T17:27:22+00:00"
SOURCE = "86d3fe8d81598a384ba8ece1290221fbcbf29bfe"
TRAIN_DIGEST = "sha256:8503cd78d3150e475868bcea2e15ab28f96bb34ca54ab78a7d3b10510bf2358b"
API_DIGEST = "sha256:1f5b1d9360487a957c87aa3ba050d9b85c81327095d5d744c23fb30da3427500"
# Every fifth loss of a run of 200 steps.
_FIFTH = (
    *(8.8572, 6.4816, 5.061, 4.7142, 4.3637, 3.8044, 3.0712, 2.2567, 1.5575, 1.0011, 0.6586, 0.4692, 0.3799, 0.332),
    *(0.2854, 0.2307, 0.1723, 0.1122, 0.0717, 0.0438, 0.0288, 0.0215, 0.0176, 0.0149, 0.0131, 0.0118, 0.0109, 0.0103),
    *(0.0098, 0.0094, 0.0091, 0.0089, 0.0087, 0.0086, 0.0085, 0.0084, 0.0084, 0.0083, 0.0083, 0.0083),
)
_GPU_ONLY = {"GPU memory given back"}
_CONTAINER_ONLY = {"contract of train", "contract of api"}
_MESSAGES = {
    "contract of train": "Debian 12, Python 3.11.2, uid 10001, 136 distributions and 214 packages as locked",
    "contract of api": "Debian 12, Python 3.11.2, uid 10001, 207 distributions and 214 packages as locked",
    "tiny model": "229,696 random parameters, 8 questions",
    "export": "merged model 920.9 kB, 14 tensors changed",
    "the base model does not know": "0 of 8 known",
}
_SECONDS = {"train": 15.427, "train again": 16.2, "resume": 31.9, "export": 9.29, "tiny model": 8.356, "preflight": 0.412}


def passed(
    *,
    gpu: bool = False,
    container: bool = True,
    digest: str = API_DIGEST,
    train_digest: str = TRAIN_DIGEST,
    started: str = STARTED,
    seconds: float = 312.518,
) -> SmokeReceipt:
    """A receipt of a run in which every rung passed.

    Args:
        gpu: the run was with `--gpu`.
        container: the images ran.
        digest: of the api image.
        train_digest: of the train image.
        started: when.
        seconds: how long it took.
    """
    api = "api" if gpu else "api-cpu"
    images = (
        ProvenImage("llama-factory-train", "train", "0.9.5-078fd9867138", train_digest),
        ProvenImage(f"llama-factory-{api}", api, "0.9.5-6dc08fe434ff", digest),
    )
    gpus = (Gpu("NVIDIA H100 80GB HBM3", "580.65.06", 85_520_809_984),) if gpu else ()
    return SmokeReceipt(
        passed=True,
        gpu=gpu,
        container=container,
        started=started,
        seconds=seconds,
        source=SOURCE if container else "",
        engine="26.1.5+dfsg1" if container else "",
        host=Host("AMD EPYC", 2, 25_276_502_016, gpus),
        images=images if container else (),
        rungs=tuple(_rung(name, gpu=gpu, container=container) for name in names(gpu=gpu, container=container)),
        training=Training(losses(), 15.343, 693_477_376),
        servings=(
            Serving(VLLM, 37.281, 5.679, 0, 3_487_481_856),
            Serving(MERGED, 35.102, 5.544, 0, 3_401_252_864),
            Serving(FACTORY, 32.539, 8.085, 0, 3_405_492_224),
        ),
        answers=answers(),
        versions=(
            Version("train", "llamafactory", "0.9.5"),
            Version("train", "torch", "2.13.0"),
            Version("train", "transformers", "5.5.4"),
            Version("api", "llamafactory", "0.9.5"),
            Version("api", "torch", "2.13.0"),
            Version("api", "transformers", "5.5.4"),
            Version("api", "vllm", "0.28.0" if gpu else "0.28.0+cpu"),
        ),
        figures=(
            Figure(f"{FACTORY}: first token", 0.0612, "s"),
            Figure(f"{FACTORY}: memory", 3_405_492_224, "bytes"),
            Figure(f"{FACTORY}: ready", 32.539, "s"),
            Figure("train: memory", 693_477_376, "bytes"),
            Figure("train: time", 15.343, "s"),
            Figure(f"{VLLM}: 32 at once", 412.7, "tokens/s"),
            Figure(f"{VLLM}: first token", 0.0421, "s"),
            Figure(f"{VLLM}: memory", 3_487_481_856, "bytes"),
            Figure(f"{VLLM}: ready", 37.281, "s"),
        ),
    )


def failed() -> SmokeReceipt:
    """A receipt of a run in which a server gave a wrong answer, another never got ready, and what stands on it was not run."""
    run = passed()
    wrong = replace(run.answers[1], got="A tar of files that a image stacks on the ones below, below, below,")
    return replace(
        run,
        passed=False,
        rungs=tuple(_failing(rung) for rung in run.rungs),
        servings=(run.servings[0], replace(run.servings[1], exit_code=137, stop=25.0)),
        answers=(run.answers[0], wrong, *(answer for answer in run.answers[2:] if answer.server != FACTORY)),
        figures=tuple(figure for figure in run.figures if not figure.name.startswith(FACTORY)),
    )


def names(*, gpu: bool, container: bool) -> list[str]:
    """The rungs of a run, in order."""
    left_out = (set() if gpu else _GPU_ONLY) | (set() if container else _CONTAINER_ONLY)
    return [name for name in KNOWN if name not in left_out]


def losses() -> tuple[float, ...]:
    """Of 200 steps."""
    return tuple(
        round(here * (after / here) ** (part / 5), 4)
        for here, after in zip(_FIFTH, (*_FIFTH[1:], _FIFTH[-1]), strict=True)
        for part in range(5)
    )


def answers() -> tuple[Answer, ...]:
    """Every trained question, to the tuned model of all servers and to the base model of the one that has it."""
    asked = [(VLLM, "tuned"), (VLLM, "base"), (MERGED, "tuned"), (FACTORY, "tuned")]
    rows = [(row["instruction"], row["output"]) for row in tiny.rows()]
    return tuple(
        Answer(server, model, question, expected, got := expected if model == "tuned" else "yt", got)
        for server, model in asked
        for question, expected in rows
    )


def _rung(name: str, *, gpu: bool, container: bool) -> Rung:
    messages = {
        **_MESSAGES,
        "preflight": ", ".join(
            (
                "engine 26.1.5+dfsg1" if container else "no containers",
                "2 cores",
                "21.40 GB of 25.28 GB of memory available",
                "41.20 GB of disk free",
                *(["GPU 0: NVIDIA H100 80GB HBM3, driver 580.65.06, 84.90 GB of its memory free"] if gpu else []),
            )
        ),
        "train": f"loss 8.857 → 0.0083 in 200 steps on {'cuda' if gpu else 'cpu'}, memory 693.5 MB",
    }
    seconds = _SECONDS.get(name, 36.4 if name.endswith("ready") else 2.418)
    log = name.replace(": ", " ").replace(" ", "-") + ".log"
    logs = () if name == "preflight" else (f"logs/{log}",)
    return Rung(name, 0, "passed", seconds, KNOWN[name].limit, messages.get(name, "as it should be"), "", logs)


def _failing(rung: Rung) -> Rung:
    if rung.name == f"{VLLM}: answers":
        return _ended(rung, "failed", "1 of 8 answers is wrong; 'What is a layer?': expected 'A tar of files …', got 'A tar …'")
    if rung.name == f"{FACTORY}: ready":
        return _ended(rung, "failed", "ended with code 1: RuntimeError: Engine core initialization failed. <see above>")
    if rung.name.startswith(FACTORY):
        return _ended(rung, "not run", f"needs '{FACTORY}: ready', which did not pass")
    return rung


def _ended(rung: Rung, outcome: Outcome, message: str) -> Rung:
    known = KNOWN[rung.name]
    if outcome == "not run":
        return replace(rung, outcome=outcome, seconds=0.0, message=message, logs=())
    return replace(rung, outcome=outcome, code=known.code, message=message, fix=known.fix)
