"""Waiting for what comes true sooner or later, and ports that nobody else takes: tests hold on a machine that is busy."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

# Ends a hang; no test is judged by it.
LIMIT_S = 120.0


def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: it does not, within `LIMIT_S`.
    """
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true within {LIMIT_S:.0f} s"
        time.sleep(0.01)


def reserved_port() -> socket.socket:
    """A socket that keeps a free port of loopback for a server of ours, which may listen there while this one is open."""
    held = socket.socket()
    # As the server does, too: two such sockets may share a port as long as one of them does not listen.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
