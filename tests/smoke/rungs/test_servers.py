"""How the servers are started, and what is expected of each."""

from __future__ import annotations

import pytest
import yaml

from common import paths
from smoke.payload import ask, tiny
from smoke.rungs import servers
from smoke.rungs.servers import PORTS, PROMISES, command, environment
from smoke.rungs.table import FACTORY, KNOWN, MERGED, VLLM

NEW, OLD = "0.28.0", "0.11.0"


def value(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_vllm_serves_the_adapter_and_its_base_and_the_merged_model_alone() -> None:
    adapter, merged = (command(server, gpu=False, vllm=NEW) for server in (VLLM, MERGED))
    assert (adapter[2], value(adapter, "--served-model-name")) == ("model", servers.BASE)
    assert value(adapter, "--lora-modules") == f"{servers.TUNED}=adapter"
    assert int(value(adapter, "--max-lora-rank")) == tiny.LORA_RANK
    assert (merged[2], value(merged, "--served-model-name")) == ("merged", servers.TUNED)
    assert not [argument for argument in merged if "lora" in argument]
    assert servers.models(VLLM) == (servers.TUNED, servers.BASE)
    assert servers.models(MERGED) == servers.models(FACTORY) == (servers.TUNED,)


@pytest.mark.parametrize("server", [VLLM, MERGED])
def test_vllm_on_the_cpu_and_on_the_gpu(server: str) -> None:
    cpu, gpu = (command(server, gpu=on_gpu, vllm=NEW) for on_gpu in (False, True))
    assert (value(cpu, "--dtype"), value(gpu, "--dtype")) == ("float32", "bfloat16")
    assert "--gpu-memory-utilization" in gpu
    assert "--gpu-memory-utilization" not in cpu
    # Two servers load at once: one that measures free memory meanwhile would give up.
    assert int(value(gpu, "--kv-cache-memory-bytes")) > 0
    assert int(value(cpu, "--shutdown-timeout")) < servers.GRACE_S < 30
    # vLLM knows it from 0.18.0 on, and refuses to start over what it does not know.
    assert not {"--shutdown-timeout", "--kv-cache-memory-bytes"} & set(command(server, gpu=True, vllm=OLD))


def test_llama_factory_is_started_by_its_own_command_line_unless_told_otherwise() -> None:
    assert command(FACTORY, gpu=False, vllm=NEW) == ["llamafactory-cli", "api", "api.yaml"]
    assert command(FACTORY, gpu=False, vllm=NEW, launcher=("python", "api.py")) == ["python", "api.py", "api.yaml"]
    assert command(FACTORY, gpu=True, vllm=OLD) == ["llamafactory-cli", "api", "api.yaml"]
    *_, extra = command(FACTORY, gpu=True, vllm=NEW)
    # Read as OmegaConf reads it: a key, and YAML after the first equals sign.
    key, _, text = extra.partition("=")
    assert (key, list(yaml.safe_load(text))) == ("vllm_config", ["kv_cache_memory_bytes"])
    assert tiny.configs(gpu=True)["api.yaml"]["infer_dtype"] == "bfloat16"


def test_the_key_travels_by_variables_alone() -> None:
    key = "some-secret"
    variables = environment(gpu=False, key=key)
    # LLaMA-Factory reads the one, vLLM the other.
    assert (variables["API_KEY"], variables["VLLM_API_KEY"]) == (key, key)
    assert not {"API_KEY", "VLLM_API_KEY"} & environment(gpu=True).keys()
    assert variables["API_PORT"] == str(PORTS[FACTORY])
    assert "VLLM_CPU_KVCACHE_SPACE" in variables
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment(gpu=True)


def test_servers_do_not_meet_on_one_port() -> None:
    assert len(set(PORTS.values())) == len(PORTS) == 3
    for server in (VLLM, MERGED):
        assert value(command(server, gpu=False, vllm=NEW), "--port") == str(PORTS[server])


def test_every_check_is_known_and_every_rung_has_its_check() -> None:
    for server, promise in PROMISES.items():
        rungs = {name.removeprefix(f"{server}: ") for name in KNOWN if name.startswith(f"{server}: ")} - {"ready", "stop"}
        assert rungs <= set(promise.checks) <= ask.CHECKS.keys()
    assert set(PROMISES[MERGED].checks) - {"answers"} == {"streaming"}


def test_the_cluster_probes_the_path_that_is_proven_here() -> None:
    (deployment,) = [
        document
        for file in sorted((paths.ROOT / "k8s/manifests/inference").glob("*.yaml"))
        for document in yaml.safe_load_all(file.read_text())
        if document["kind"] == "Deployment"
    ]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    probes = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert probes == {PROMISES[FACTORY].health}
    # And starts it as it is started here: without a shell, as process 1.
    assert container["command"][:2] == command(FACTORY, gpu=True, vllm=NEW)[:2]
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > servers.GRACE_S
