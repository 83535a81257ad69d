"""The programs that run inside the images, as far as they run without one."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from smoke import servers, session
from smoke.payload import tiny

PAYLOAD = Path(tiny.__file__).parent


def test_rows_are_distinct_and_long_enough_to_prove_something() -> None:
    rows = tiny.rows()
    assert len(rows) == 8
    assert len({row["instruction"] for row in rows}) == len({row["output"] for row in rows}) == 8
    assert all(set(row) == {"instruction", "input", "output"} and not row["input"] for row in rows)
    assert min(len(row["output"]) for row in rows) > 30


def test_chat_template_has_exactly_the_pieces_that_llama_factory_trains_on() -> None:
    # Its qwen3_nothink: "<|im_start|>user\n{{content}}<|im_end|>\n<|im_start|>assistant\n" and "{{content}}<|im_end|>\n".
    # No Jinja here: the rung `train` compares the rendered text with what LLaMA-Factory prints.
    assert tiny.chat_template() == (
        "{% for message in messages %}"
        r"{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
        "{% endfor %}"
        r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


@pytest.mark.parametrize("gpu", [False, True])
def test_configurations_read_back_as_yaml(gpu: bool) -> None:
    for config in tiny.configs(gpu=gpu).values():
        assert yaml.safe_load(tiny.yaml(config)) == config


def test_training_on_the_cpu_and_on_the_gpu() -> None:
    cpu, gpu = tiny.configs(gpu=False)["train.yaml"], tiny.configs(gpu=True)["train.yaml"]
    assert (cpu["use_cpu"], cpu["bf16"], cpu["fp16"]) == (True, False, False)
    assert gpu["bf16"] is True
    assert "use_cpu" not in gpu
    shared = {"use_cpu", "bf16", "fp16"}
    assert {key: value for key, value in cpu.items() if key not in shared} == {
        key: value for key, value in gpu.items() if key not in shared
    }
    assert "modules_to_save" not in cpu
    assert (cpu["lora_alpha"], cpu["lora_rank"], cpu["do_train"]) == (32, 16, True)


def test_all_steps_name_the_same_model_template_and_adapter() -> None:
    train, export, api = tiny.configs(gpu=False).values()
    assert train["template"] == export["template"] == api["template"] == "qwen3_nothink"
    assert train["output_dir"] == export["adapter_name_or_path"] == api["adapter_name_or_path"] == "adapter"
    assert f"{servers.TUNED}=adapter" in servers.command(servers.VLLM, gpu=False, vllm="0.28.0+cpu")


def test_server_commands() -> None:
    assert servers.command(servers.FACTORY, gpu=True, vllm="0.28.0") == ["llamafactory-cli", "api", "api.yaml"]
    cpu = servers.command(servers.VLLM, gpu=False, vllm="0.28.0+cpu")
    gpu = servers.command(servers.VLLM, gpu=True, vllm="0.28.0")
    assert cpu[cpu.index("--dtype") + 1] == "float32"
    assert gpu[gpu.index("--dtype") + 1] == "bfloat16"
    assert int(cpu[cpu.index("--shutdown-timeout") + 1]) < servers.GRACE_S < 30
    # vLLM knows it from 0.18.0 on, and refuses to start over what it does not know.
    assert "--shutdown-timeout" not in servers.command(servers.VLLM, gpu=True, vllm="0.11.0")
    assert "VLLM_CPU_KVCACHE_SPACE" in servers.environment(gpu=False)
    assert servers.environment(gpu=False)["API_PORT"] == str(servers.PORT)
    assert "VLLM_CPU_KVCACHE_SPACE" not in servers.environment(gpu=True)
    assert tiny.configs(gpu=True)["api.yaml"]["infer_dtype"] == "bfloat16"


@pytest.mark.parametrize("script", sorted(PAYLOAD.glob("*.py")), ids=lambda script: str(script.name))
def test_imports_nothing_of_pinwheel(script: Path) -> None:
    named = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            named.add(str(node.module).partition(".")[0])
    assert named <= {*sys.stdlib_module_names, "torch", "transformers", "tokenizers", "openai"}


def test_contract_runs_as_plain_python() -> None:
    done = subprocess.run(
        [sys.executable, "-I", PAYLOAD / "contract.py"], capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["prefix"] == sys.prefix
    assert "/tmp" in found["writable"]
    assert "lo" in found["interfaces"]


def test_the_whole_payload_travels() -> None:
    data = session.payload(owner="1")
    for file in PAYLOAD.iterdir():
        if file.is_file():
            assert file.read_bytes() in data
