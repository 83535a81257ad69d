"""Tables that LLaMA-Factory passes on: by lists."""

from __future__ import annotations

from typing import Any

import pytest

from k8s.training import tables


@pytest.mark.parametrize(
    "config",
    [
        {"lr_scheduler_kwargs": {"num_cycles": 3, "min_lr_rate": 0.1}},
        {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
        {"accelerator_config": {"split_batches": True, "gradient_accumulation_kwargs": {"num_steps": 2}}},
        {"fsdp_config": {"fsdp_transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"], "version": 2}},
        {"lr_scheduler_kwargs": '{"num_cycles": 3}'},
        {"lr_scheduler_kwargs": {}, "vllm_config": {}, "template": "qwen", "lora_target": "all"},
    ],
    ids=repr,
)
def test_what_is_known_is_passed_on(config: dict[str, Any]) -> None:
    assert list(tables.refused(config)) == []


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"vllm_config": {"trust_remote_code": True}}, "vllm_config"),
        ({"vllm_config": '{"trust_remote_code": true}'}, "vllm_config"),
        ({"vllm_config": " {bad"}, "vllm_config"),
        ({"sglang_config": {"model": "evil/x"}}, "sglang_config"),
        ({"lr_scheduler_kwargs": {"lr_lambda": "evil.f"}}, "lr_scheduler_kwargs"),
        ({"accelerator_config": {"gradient_accumulation_kwargs": {"plugin": "evil"}}}, "accelerator_config"),
        ({"fsdp_config": {"fsdp_evil": 1}}, "fsdp_config"),
        ({"generation_config": {"custom_generate": "evil/x"}}, "generation_config"),
        ({"anything_else": {"a": 1}}, "anything_else"),
    ],
    ids=repr,
)
def test_what_no_list_has_is_named(config: dict[str, Any], key: str) -> None:
    assert [found[0] for found in tables.refused(config)] == [key]
