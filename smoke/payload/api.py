"""`llamafactory-cli api` for who does not run it as process 1 of a container.

    python3 api.py CONFIG [KEY=VALUE …]

uvicorn ends its loop at SIGTERM and then sends the signal to itself once more, with the handler that stood before. Process 1
has no default one: it goes on, Python ends in order and vLLM ends its engine. Everywhere else the default one ends the process
on the spot, and the engine's processes stay behind. Here the handler is one that ends Python in order, from the start on.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Become LLaMA-Factory's command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from llamafactory.cli import main as cli

    sys.argv = ["llamafactory-cli", "api", *sys.argv[1:]]
    cli()


# vLLM's engine is a process that imports this module again, under another name.
if __name__ == "__main__":
    main()
