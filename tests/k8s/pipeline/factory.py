"""A stand-in for LLaMA-Factory and torch, for programs that ask its parser: what it refuses is written in the configuration."""

from __future__ import annotations

from pathlib import Path

_PARSER = """
import sys, yaml

BF16 = "Your setup doesn't support bf16/gpu. You need to assign use_cpu if you want to train the model on CPU."

def read_args():
    with open(sys.argv[1]) as file:
        return yaml.safe_load(file)

def judged(config):
    if config.get("bf16") and not config.get("use_cpu") and not GPU:
        raise ValueError(BF16)
    if config.get("tf32") and not GPU:
        raise ValueError("--tf32 requires Ampere or a newer GPU arch, cuda>=11 and torch>=1.7")
    if "refused" in config:
        raise ValueError(config["refused"])

def get_train_args(config):
    judged(config)

def get_infer_args(config):
    judged(config)
"""
_TORCH = """
class cuda:
    @staticmethod
    def is_available():
        return GPU
"""


def write(folder: Path, *, gpu: bool = False) -> Path:
    """Write it; the folder goes into PYTHONPATH.

    Args:
        folder: where to.
        gpu: whether its machine has one.
    """
    hparams = folder / "llamafactory" / "hparams"
    hparams.mkdir(parents=True)
    for one in (hparams, hparams.parent):
        (one / "__init__.py").write_text("")
    (hparams / "parser.py").write_text(f"GPU = {gpu}\n{_PARSER}")
    (folder / "torch.py").write_text(f"GPU = {gpu}\n{_TORCH}")
    return folder
