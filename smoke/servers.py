"""How the two servers of the api image are started, and what they are called."""

from __future__ import annotations

from packaging.version import Version

from smoke.payload import tiny

PORT = 8000
# Less than the 30 s that Kubernetes grants by default before it kills.
GRACE_S = 25
# vLLM refuses to start on less than 160 MiB of shared memory (Docker's and Kubernetes' default is 64), and its processes
# then map 420 MB of it.
SHM = 1 << 30
# What the models are called, and the servers.
TUNED, BASE = "tuned", "base"
VLLM, FACTORY = "vllm serve", "llamafactory-cli api"
_HAS_SHUTDOWN_TIMEOUT = Version("0.18.0")


def command(server: str, *, gpu: bool, vllm: str) -> list[str]:
    """How the server is started.

    Args:
        server: one of the two.
        gpu: on the GPU.
        vllm: the version in the image.
    """
    if server == FACTORY:
        return ["llamafactory-cli", "api", "api.yaml"]
    return [
        *("vllm", "serve", "model", "--host", "127.0.0.1", "--port", str(PORT), "--served-model-name", BASE),
        *("--enable-lora", "--lora-modules", f"{TUNED}=adapter", "--max-lora-rank", str(tiny.LORA_RANK)),
        *("--dtype", "bfloat16" if gpu else "float32", "--max-model-len", str(tiny.MAX_LENGTH)),
        # Start fast; and take nothing from the model's own generation_config, which could make decoding less than greedy.
        *("--enforce-eager", "--generation-config", "vllm"),
        # Without it, SIGTERM kills the engine in the middle of its requests; older versions refuse it.
        *(("--shutdown-timeout", str(GRACE_S // 2)) if Version(vllm) >= _HAS_SHUTDOWN_TIMEOUT else ()),
        *(("--gpu-memory-utilization", str(tiny.GPU_SHARE)) if gpu else ()),
    ]


def environment(*, gpu: bool) -> dict[str, str]:
    """What both servers need to run without any network but loopback."""
    variables = {
        "API_HOST": "127.0.0.1",
        "API_PORT": str(PORT),
        "API_MODEL_NAME": TUNED,
        # vLLM would ask a name server for its own address.
        "VLLM_HOST_IP": "127.0.0.1",
    }
    return variables if gpu else {**variables, "VLLM_CPU_KVCACHE_SPACE": "1"}
