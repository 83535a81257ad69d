"""The demonstration's base model, made on the spot: a random two-layer Llama of 229,696 parameters, and its tokenizer.

Its bytes are the same on every machine, so that models.lock can name them: weights and vocabulary come from integers alone,
without torch, numpy or a random number. It knows nothing, and is small enough to learn a few answers by heart on a CPU.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from fractions import Fraction
from math import prod
from typing import Any

_SEED = "pinwheel demonstration 1"
_HIDDEN, _INTERMEDIATE, _LAYERS, _HEADS = 64, 256, 2, 2
# The one size that every attention kernel has: vLLM's CPU kernels refuse 16, FlashInfer all below 64.
_HEAD = 64
# Special tokens, bytes, and the words below with their beginnings are 510; a round number suits every kernel.
_VOCABULARY = 512
# As long as what the inference set asks of vLLM.
_POSITIONS = 8192
_PAD, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_SPECIAL = (_PAD, _START, _END)
# Words that are few tokens: letter by letter a text is five times as long, and far harder to learn. At the start of a text:
_FIRST = "user assistant By Content How Into It Its The What Where Who Why"
# And after a blank:
_WORDS = """
adapter all an and any at base be before belong by bytes can comes deployed digest digits do does fails few first from go goes
hash in inference is it its key know load lock logs made may mean model moved name never no not nothing of on other place pods
register registry run see serving signing step tag that the their they time to training version which with without
"""
# What LLaMA-Factory's template qwen3_nothink trains on; smoke/payload has the same, and a test compares them.
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_CARD = """\
---
license: apache-2.0
---
# Pinwheel's demonstration model

A random two-layer Llama that Pinwheel makes on the spot. It knows nothing: it is there to be trained, so that the whole way
from a base model to one that serves can be tried without a model hub.
"""


def files() -> dict[str, bytes]:
    """The model's files by path."""
    documents = {
        "config.json": _config(),
        "generation_config.json": {"eos_token_id": _SPECIAL.index(_END), "pad_token_id": _SPECIAL.index(_PAD)},
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": _END,
            "pad_token": _PAD,
            "model_max_length": _POSITIONS,
            "clean_up_tokenization_spaces": False,
        },
    }
    return {
        "README.md": _CARD.encode(),
        "chat_template.jinja": _CHAT_TEMPLATE.encode(),
        "model.safetensors": _safetensors(),
        **{path: (json.dumps(body, indent=2, ensure_ascii=False) + "\n").encode() for path, body in documents.items()},
    }


def _config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_act": "silu",
        "hidden_size": _HIDDEN,
        "intermediate_size": _INTERMEDIATE,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "head_dim": _HEAD,
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": _POSITIONS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": _SPECIAL.index(_END),
        "pad_token_id": _SPECIAL.index(_PAD),
    }


def _tensors() -> Iterator[tuple[str, tuple[int, ...], Fraction]]:
    """Each tensor: its name, shape, and how far its numbers reach on both sides of zero; 0 for all ones.

    The usual initialisation is too small: through a small frozen `lm_head` no peaked logits come out. Each bound is a short
    binary fraction, so that every number is exact in float32.
    """
    width = _HEADS * _HEAD
    # Standard deviations of 1.0, 0.02 and 0.3.
    embedding, usual, head = Fraction(7, 4), Fraction(9, 256), Fraction(1, 2)
    yield "model.embed_tokens.weight", (_VOCABULARY, _HIDDEN), embedding
    for number in range(_LAYERS):
        layer = f"model.layers.{number}"
        yield f"{layer}.input_layernorm.weight", (_HIDDEN,), Fraction(0)
        for name in ("q", "k", "v"):
            yield f"{layer}.self_attn.{name}_proj.weight", (width, _HIDDEN), usual
        yield f"{layer}.self_attn.o_proj.weight", (_HIDDEN, width), usual
        yield f"{layer}.post_attention_layernorm.weight", (_HIDDEN,), Fraction(0)
        for name in ("gate", "up"):
            yield f"{layer}.mlp.{name}_proj.weight", (_INTERMEDIATE, _HIDDEN), usual
        yield f"{layer}.mlp.down_proj.weight", (_HIDDEN, _INTERMEDIATE), usual
    yield "model.norm.weight", (_HIDDEN,), Fraction(0)
    yield "lm_head.weight", (_VOCABULARY, _HIDDEN), head


def _safetensors() -> bytes:
    """The weights: the header's length, the header, each tensor's bytes (oci/safetensors.py reads it)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, shape, bound in _tensors():
        numbers = _numbers(name, prod(shape), bound)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(body), len(body) + len(numbers)]}
        body += numbers
    text = json.dumps(header, separators=(",", ":")).encode()
    # Tensors begin at a multiple of eight: loaders map them.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def _numbers(name: str, count: int, bound: Fraction) -> bytes:
    """Uniformly distributed numbers between -bound and bound, from the tensor's name; float32, little-endian."""
    if not bound:
        return struct.pack("<f", 1.0) * count
    drawn = hashlib.shake_256(f"{_SEED}/{name}".encode()).digest(2 * count)
    step = float(bound / 65536)
    return struct.pack(f"<{count}f", *((2 * number - 65535) * step for number in struct.unpack(f"<{count}H", drawn)))


def _tokenizer() -> dict[str, Any]:
    """BPE on bytes, in the form of Hugging Face's tokenizers; each word is merged from its start, letter by letter."""
    letters = tuple(_byte_letters())
    vocabulary = {token: number for number, token in enumerate((*_SPECIAL, *letters))}
    merges = []
    for word in (*_FIRST.split(), *(letters[ord(" ")] + word for word in _WORDS.split())):
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = len(vocabulary)
                merges.append(f"{word[: end - 1]} {word[end - 1]}")
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": token, **added} for number, token in enumerate(_SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": by_bytes,
        "post_processor": None,
        "decoder": by_bytes,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def _byte_letters() -> Iterator[str]:
    """The letter that stands for each byte, as GPT-2 chose them: itself where it can be seen, else one from 256 on."""
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    unseen = 0
    for byte in range(256):
        if byte in seen:
            yield chr(byte)
        else:
            yield chr(256 + unseen)
            unseen += 1
