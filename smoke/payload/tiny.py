"""Make what the smoke test trains on: a tiny random model, its tokenizer, a dataset of eight rows, and the configurations.

Runs inside the train image, and as plain `python3` wherever torch and transformers are: it imports nothing of Pinwheel.

    python3 tiny.py [--gpu] DIRECTORY

Everything is made on the spot, so that a smoke test needs no network and no model file. The directory then holds

    model/            a random two-layer Llama, 229,696 parameters, with tokenizer and chat template
    data/             smoke.json (alpaca rows), dataset_info.json
    rendered.txt      the first row as the chat template renders it
    train.yaml        for `llamafactory-cli train`; writes adapter/
    again.yaml        the same training once more; writes again/
    killed.yaml       the same with checkpoints, to be killed after the first; writes resumed/
    resume.yaml       goes on from that checkpoint
    misspelt.yaml     a training with a key that there is not
    no-dataset.yaml   a training on a dataset that there is not; both have to fail and write nothing to broken/
    export.yaml       for `llamafactory-cli export`; writes merged/
    api.yaml          for `llamafactory-cli api`

Prints one JSON object: the number of parameters.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TEMPLATE = "qwen3_nothink"
LORA_RANK = 16
MAX_LENGTH = 512
# vLLM's share of a GPU's memory: the model needs megabytes, and the GPU may be shared.
GPU_SHARE = 0.2
# The step whose checkpoint the killed training goes on from: early, so that it is surely killed before its end.
CHECKPOINT = 50
MISSPELT, NO_DATASET = "learning_rat", "elsewhere"
_VOCABULARY = 512
_SEED = 20

Config = dict[str, str | int | float | bool]


def rows() -> list[dict[str, str]]:
    """The eight questions and answers, in LLaMA-Factory's alpaca form."""
    found: list[dict[str, str]] = json.loads((HERE / "rows.json").read_text(encoding="utf-8"))
    return found


def chat_template() -> str:
    """The Jinja text that renders exactly what LLaMA-Factory's template of the same family trains on.

    vLLM renders with this one, LLaMA-Factory with its own: where they differ by a byte the served model knows nothing.
    """
    return (HERE / "chat_template.jinja").read_text(encoding="utf-8")


def configs(*, gpu: bool) -> dict[str, Config]:
    """LLaMA-Factory's configurations by file name; paths are relative to the directory they lie in.

    Args:
        gpu: train in bf16 on the device; otherwise in float32 on the CPU.
    """
    common: Config = {"model_name_or_path": "model", "template": TEMPLATE}
    adapter: Config = {**common, "adapter_name_or_path": "adapter"}
    train: Config = {
        **common,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        # No modules_to_save: vLLM refuses such adapters.
        "lora_target": "all",
        "lora_rank": LORA_RANK,
        "lora_alpha": 2 * LORA_RANK,
        "dataset_dir": "data",
        "dataset": "smoke",
        "cutoff_len": 256,
        "output_dir": "adapter",
        "overwrite_output_dir": True,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 200,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "cosine",
        "seed": _SEED,
        # Every step, so that the first logged loss is the untrained one.
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "plot_loss": True,
    }
    train |= {"bf16": True} if gpu else {"use_cpu": True, "bf16": False, "fp16": False}
    # A training that goes on must not empty the directory it goes on in, nor the log it appends to.
    resume: Config = {
        **train,
        "output_dir": "resumed",
        "overwrite_output_dir": False,
        "resume_from_checkpoint": f"resumed/checkpoint-{CHECKPOINT}",
    }
    killed: Config = {**train, "output_dir": "resumed", "save_strategy": "steps", "save_steps": CHECKPOINT}
    broken: Config = {**train, "output_dir": "broken"}
    export: Config = {**adapter, "export_dir": "merged", "export_device": "cpu", "export_legacy_format": False}
    api: Config = {
        **adapter,
        "infer_backend": "vllm",
        "infer_dtype": "bfloat16" if gpu else "float32",
        "vllm_maxlen": MAX_LENGTH,
        "vllm_enforce_eager": True,
    }
    if gpu:
        api["vllm_gpu_util"] = GPU_SHARE
    return {
        "train.yaml": train,
        "again.yaml": {**train, "output_dir": "again"},
        "killed.yaml": killed,
        "resume.yaml": resume,
        "misspelt.yaml": {**broken, MISSPELT: 1e-3},
        "no-dataset.yaml": {**broken, "dataset": NO_DATASET},
        "export.yaml": export,
        "api.yaml": api,
    }


def yaml(config: Config) -> str:
    """The configuration as YAML; JSON's scalars are YAML's."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items())


def make_tokenizer(texts: list[str]) -> Any:
    """A byte-level BPE tokenizer trained from the dataset's own text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",  # noqa: S106 - a token of text
        pad_token="<|endoftext|>",  # noqa: S106
        chat_template=chat_template(),
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: Any) -> Any:
    """A random Llama that LoRA can overfit.

    The usual initialisation is too small for that: through a frozen small `lm_head` no peaked logits come out.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(_SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=_VOCABULARY,
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            # The one size that every attention kernel has: vLLM's CPU kernels refuse 16, FlashInfer all below 64.
            head_dim=64,
            max_position_embeddings=MAX_LENGTH,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(0.0, 1.0)
        model.lm_head.weight.normal_(0.0, 0.3)
    return model


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description="make a tiny model, a dataset and LLaMA-Factory's configurations")
    parser.add_argument("--gpu", action="store_true", help="configure for bf16 on the GPU instead of float32 on the CPU")
    parser.add_argument("directory", type=Path)
    args = parser.parse_args()
    directory: Path = args.directory
    (directory / "data").mkdir(parents=True, exist_ok=True)

    dataset = rows()
    tokenizer = make_tokenizer([text for row in dataset for text in (row["instruction"], row["output"])])
    model = make_model(tokenizer)
    tokenizer.save_pretrained(directory / "model")
    model.save_pretrained(directory / "model")
    (directory / "data" / "smoke.json").write_text(json.dumps(dataset, indent=2) + "\n", encoding="utf-8")
    (directory / "data" / "dataset_info.json").write_text(
        json.dumps({"smoke": {"file_name": "smoke.json"}}, indent=2) + "\n", encoding="utf-8"
    )
    for name, config in configs(gpu=args.gpu).items():
        (directory / name).write_text(yaml(config), encoding="utf-8")
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": dataset[0]["instruction"]}, {"role": "assistant", "content": dataset[0]["output"]}],
        tokenize=False,
    )
    (directory / "rendered.txt").write_text(rendered, encoding="utf-8")
    print(json.dumps({"parameters": sum(p.numel() for p in model.parameters())}))


if __name__ == "__main__":
    main()
