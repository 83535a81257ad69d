"""How a signed model is served: nothing beside it is loaded, and no code of anybody's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.errors import UsageError
from k8s.pipeline import fetch, served
from tests.k8s.conftest import REPO

GOOD: list[dict[str, Any]] = [
    {},
    {
        "infer_backend": "vllm",
        "vllm_maxlen": 8192,
        "vllm_gpu_util": 0.9,
        "vllm_enforce_eager": False,
        "infer_dtype": "bfloat16",
    },
    {"trust_remote_code": False, "adapter_name_or_path": None, "vllm_config": {}},
    {"vllm_config": {"tensor_parallel_size": 2, "kv_cache_dtype": "fp8", "limit_mm_per_prompt": {"image": 2}}},
    {"vllm_config": '{"max_num_seqs": 64}'},
    {"vllm_config": {"distributed_executor_backend": "mp"}},
    {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 512, "default_system": "You speak / write plainly."},
]
BAD: list[dict[str, Any]] = [
    {"trust_remote_code": True},
    {"trust_remote_code": "yes"},
    {"trust_remote_code": 1},
    {"adapter_name_or_path": "/x"},
    {"adapter_folder": "/x"},
    {"hf_hub_token": "x"},
    {"cache_dir": "/tmp"},
    {"model_revision": "main"},
    {"use_unsloth": True},
    {"sglang_config": {"trust_remote_code": True}},
    {"kt_weight_path": "/x"},
    {"offload_folder": "/x"},
    {"no_such_key": 1},
    {"infer_backend": "sglang"},
    {"infer_dtype": "/x"},
    {"flash_attn": "https://example.com"},
    {"rope_scaling": {"type": "../x"}},
    {"vllm_config": {"trust_remote_code": True}},
    {"vllm_config": {"trust_remote_code": False}},
    {"vllm_config": {"hf_overrides": {"architectures": ["X"]}}},
    {"vllm_config": {"model": "/etc"}},
    {"vllm_config": {"tokenizer": "evil/x"}},
    {"vllm_config": {"hf_config_path": "evil/x"}},
    {"vllm_config": {"worker_cls": "evil.Worker"}},
    {"vllm_config": {"load_format": "pt"}},
    {"vllm_config": {"distributed_executor_backend": "evil.Executor"}},
    {"vllm_config": {"distributed_executor_backend": ["mp"]}},
    {"vllm_config": {"chat_template": "{{ x }}"}},
    {"vllm_config": {"speculative_config": {"model": "evil/x"}}},
    {"vllm_config": {"logits_processors": ["evil:Processor"]}},
    {"vllm_config": {"kv_transfer_config": {}}},
    {"vllm_config": {"quantization": "a/b"}},
    {"vllm_config": {"quantization": {"a": {"b": {"c": {"d": 1}}}}}},
    {"vllm_config": '{"trust_remote_code": true}'},
    {"vllm_config": "{"},
    {"vllm_config": "config.yaml"},
    {"vllm_config": ["trust_remote_code"]},
    {"vllm_config": [1]},
]


@pytest.mark.parametrize("settings", GOOD, ids=repr)
def test_sizes_numbers_and_modes_are_taken(settings: dict[str, Any]) -> None:
    assert served.refused(settings) == ""


@pytest.mark.parametrize("settings", BAD, ids=repr)
def test_what_could_load_something_else_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "inference.yaml"
    config.write_text(yaml.safe_dump(settings))
    with pytest.raises(UsageError, match="the signed model is served, nothing beside it"):
        fetch.inference(config, tmp_path, "llama3")


def test_what_is_delivered_is_taken() -> None:
    (config,) = yaml.safe_load_all((REPO / "manifests/inference/configmap.yaml").read_text())
    assert served.refused(yaml.safe_load(config["data"]["inference.yaml"])) == ""


@pytest.mark.parametrize(
    "body",
    [
        {"model_type": "x", "auto_map": {"AutoConfig": "evil/repo--configuration.X"}},
        {"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "modeling.X"}},
        {"model_type": "llama", "chat_template": "{{ cycler.__init__.__globals__ }}"},
    ],
    ids=["code of a hub", "code beside it", "a template"],
)
def test_a_model_that_names_code_is_served_without_it(body: dict[str, Any], tmp_path: Path) -> None:
    """LLaMA-Factory hands `trust_remote_code` on to transformers and to vLLM: false there means that `auto_map` is not read."""
    (tmp_path / "config.json").write_text(json.dumps(body))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(body))
    config = tmp_path / "inference.yaml"
    for said in ("", "trust_remote_code: false\n", "infer_backend: vllm\n"):
        config.write_text(said)
        assert fetch.inference(config, tmp_path, "llama3")["trust_remote_code"] is False
