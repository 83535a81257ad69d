"""What a server tells Prometheus of itself; `ask.py` reads it."""

from __future__ import annotations

# vLLM's own names of what is looked at.
METRICS = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "succeeded": "vllm:request_success_total",
    "generated": "vllm:generation_tokens_total",
}


def samples(text: str) -> dict[str, float]:
    """The samples of Prometheus' text format, those of one name added up.

    Args:
        text: lines `name{labels} value [timestamp]`; comments begin with `#`.

    Raises:
        ValueError: a line is none of these.
    """
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        # A label's value may hold spaces and braces, the value after the last brace does not.
        head, brace, tail = line.rpartition("}")
        name, values = (head.partition("{")[0], tail.split()) if brace else (line.split()[0], line.split()[1:])
        if not name or not values:
            raise ValueError(f"no sample of Prometheus' text format: {line[:80]!r}")
        found[name] = found.get(name, 0.0) + float(values[0])
    return found
