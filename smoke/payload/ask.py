"""Ask a server all trained questions with the `openai` client; prints one JSON object.

Runs inside an api image, next to the server, because the container has no network but loopback; and as plain `python3`
wherever the `openai` package is. It asks and judges nothing:

    {"models": [names], "answers": [{"model", "question", "expected", "got", "streamed"}]}
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

# Enough for the longest trained answer; a model that does not stop on its own runs into it and is found out.
_MAX_TOKENS = 96
_TIMEOUT_S = 60.0


def ask(client: Any, model: str, question: str) -> str:
    """The whole answer, by greedy decoding."""
    reply = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=_MAX_TOKENS,
    )
    return reply.choices[0].message.content or ""


def stream(client: Any, model: str, question: str) -> str:
    """The same answer, put together from the pieces of a stream."""
    pieces = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=_MAX_TOKENS,
        stream=True,
    )
    return "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)


def main() -> None:
    """Ask everything and print it."""
    from openai import OpenAI

    parser = argparse.ArgumentParser(description="ask a server the trained questions")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model", action="append", required=True, help="model name to ask; may be given more than once")
    parser.add_argument("--rows", type=Path, default=Path(__file__).resolve().with_name("rows.json"))
    args = parser.parse_args()

    client = OpenAI(base_url=f"http://127.0.0.1:{args.port}/v1", api_key="none", max_retries=0, timeout=_TIMEOUT_S)
    answers = [
        {
            "model": model,
            "question": row["instruction"],
            "expected": row["output"],
            "got": ask(client, model, row["instruction"]),
            "streamed": stream(client, model, row["instruction"]),
        }
        for model in args.model
        for row in json.loads(args.rows.read_text(encoding="utf-8"))
    ]
    print(json.dumps({"models": sorted(model.id for model in client.models.list()), "answers": answers}))


if __name__ == "__main__":
    main()
