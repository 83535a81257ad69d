"""How the servers of the api image are started, what they are called, and what each of them promises."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from packaging.version import Version

from smoke.payload import tiny
from smoke.rungs.table import FACTORY, MERGED, VLLM

# Each its own: without containers they share one loopback.
PORTS = {VLLM: 8000, MERGED: 8001, FACTORY: 8002}
# Less than the 30 s that Kubernetes grants by default before it kills.
GRACE_S = 25
# vLLM refuses to start on less than 160 MiB of shared memory (Docker's and Kubernetes' default is 64), and its processes
# then map 420 MB of it.
SHM = 1 << 30
# What the models are called.
TUNED, BASE = "tuned", "base"
_HAS_SHUTDOWN_TIMEOUT = Version("0.18.0")
# Room for 64 of the longest prompts in bf16. Without a figure vLLM measures free memory while it loads, and gives up when
# another process gives memory back meanwhile; the ladder's do.
_KV_CACHE = 64 << 20


@dataclass(frozen=True, slots=True)
class Promise:
    """What clients of a server can rely on; where the two differ, so that a change is noticed.

    Attributes:
        health: a path that answers 200 without a key as soon as the model is loaded, which a cluster's probes ask.
        checks: of `payload/ask.py` that are made.
        completions: the status of `/v1/completions`.
        logprobs: whether log probabilities are given to who asks for them, instead of left out without a word.
        unknown_model: the status when a model is asked that there is not.
        long_prompt: the status when a prompt is longer than the model's context, and words of the message.
    """

    health: str
    checks: tuple[str, ...]
    completions: int
    logprobs: bool
    unknown_model: int
    long_prompt: tuple[int, str]


_SHARED = ("answers", "streaming", "protocol", "refusals", "load", "hang-up")
_VLLM = Promise("/health", (*_SHARED, "metrics"), 200, True, 404, (400, "context length"))
PROMISES: dict[str, Promise] = {
    VLLM: _VLLM,
    # The same program on other weights: what is left to see is that they answer.
    MERGED: dataclasses.replace(_VLLM, checks=("answers", "streaming")),
    # It has no /health; this path is what k8s/manifests/inference probes. It answers in the name of any model, and what
    # vLLM refuses inside of it comes out as an error of its own.
    FACTORY: Promise("/openapi.json", _SHARED, 404, False, 200, (500, "")),
}


def models(server: str) -> tuple[str, ...]:
    """The models a server has, the tuned one first."""
    return (TUNED, BASE) if server == VLLM else (TUNED,)


def command(server: str, *, gpu: bool, vllm: str, launcher: tuple[str, ...] = ("llamafactory-cli", "api")) -> list[str]:
    """How the server is started.

    Args:
        server: one of the three.
        gpu: on the GPU.
        vllm: the version in the image.
        launcher: what runs LLaMA-Factory's api; the default is right for process 1 of a container alone (`payload/api.py`).
    """
    new = Version(vllm) >= _HAS_SHUTDOWN_TIMEOUT
    if server == FACTORY:
        extra = [f"vllm_config={json.dumps({'kv_cache_memory_bytes': _KV_CACHE})}"] if gpu and new else []
        return [*launcher, "api.yaml", *extra]
    adapter = ["--enable-lora", "--lora-modules", f"{TUNED}=adapter", "--max-lora-rank", str(tiny.LORA_RANK)]
    return [
        *("vllm", "serve", "model" if server == VLLM else "merged", "--host", "127.0.0.1", "--port", str(PORTS[server])),
        *("--served-model-name", models(server)[-1], *(adapter if server == VLLM else ())),
        *("--dtype", "bfloat16" if gpu else "float32", "--max-model-len", str(tiny.MAX_LENGTH)),
        # Start fast; and take nothing from the model's own generation_config, which could make decoding less than greedy.
        *("--enforce-eager", "--generation-config", "vllm"),
        # Without it, SIGTERM kills the engine in the middle of its requests; older versions refuse it.
        *(("--shutdown-timeout", str(GRACE_S // 2)) if new else ()),
        *(("--gpu-memory-utilization", str(tiny.GPU_SHARE)) if gpu else ()),
        *(("--kv-cache-memory-bytes", str(_KV_CACHE)) if gpu and new else ()),
    ]


def environment(*, gpu: bool, key: str = "") -> dict[str, str]:
    """What the servers need to run without any network but loopback.

    Args:
        gpu: on the GPU.
        key: what clients have to send; by a variable, because a command line can be read by all. Empty: none.
    """
    variables = {
        "API_HOST": "127.0.0.1",
        "API_PORT": str(PORTS[FACTORY]),
        "API_MODEL_NAME": TUNED,
        # vLLM would ask a name server for its own address.
        "VLLM_HOST_IP": "127.0.0.1",
    }
    if key:
        variables |= {"API_KEY": key, "VLLM_API_KEY": key}
    return variables if gpu else {**variables, "VLLM_CPU_KVCACHE_SPACE": "1"}
