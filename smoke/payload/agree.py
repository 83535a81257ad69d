"""Compare an adapter on its base with the merged model; prints one JSON object.

Runs inside the train image, in the directory that `tiny.py` filled, and as plain `python3` wherever torch, transformers and
peft are. Both are computed in float32 on the CPU, whatever they were trained on: what differs then is the weights. It
judges nothing:

    {"dtype": "torch.float32", "largest": 41.7, "rows": [{"question", "expected", "adapter", "merged", "difference"}]}

`dtype` is that of the merged weights as they lie in the file, `largest` the largest logit, `difference` the largest one of
two logits of the question and its trained answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_MAX_TOKENS = 96


def main() -> None:
    """Compare and print."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def load(name: str, dtype: Any) -> Any:
        return AutoModelForCausalLM.from_pretrained(name, dtype=dtype)

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained("model")
    stored = str(load("merged", "auto").dtype)
    adapter = PeftModel.from_pretrained(load("model", torch.float32), "adapter").eval()
    merged = load("merged", torch.float32).eval()

    def render(messages: list[dict[str, str]], *, prompt: bool) -> Any:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        return tokenizer(text, return_tensors="pt", add_special_tokens=False)

    def answer(model: Any, question: Any) -> str:
        tokens = model.generate(**question, do_sample=False, max_new_tokens=_MAX_TOKENS, pad_token_id=tokenizer.pad_token_id)
        text: str = tokenizer.decode(tokens[0, question["input_ids"].shape[1] :], skip_special_tokens=True)
        return text

    largest, rows = 0.0, []
    for row in json.loads(Path(__file__).resolve().with_name("rows.json").read_text(encoding="utf-8")):
        asked = {"role": "user", "content": row["instruction"]}
        question = render([asked], prompt=True)
        whole = render([asked, {"role": "assistant", "content": row["output"]}], prompt=False)
        with torch.no_grad():
            one, other = adapter(**whole).logits, merged(**whole).logits
        largest = max(largest, one.abs().max().item())
        rows.append(
            {
                "question": row["instruction"],
                "expected": row["output"],
                "adapter": answer(adapter, question),
                "merged": answer(merged, question),
                "difference": (one - other).abs().max().item(),
            }
        )
    print(json.dumps({"dtype": stored, "largest": largest, "rows": rows}))


if __name__ == "__main__":
    main()
