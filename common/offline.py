"""Whether anything may be fetched. `--offline` of every command sets PINWHEEL_OFFLINE; whatever fetches looks here.

Three things stay allowed: this machine's own addresses (engine, embedded registry), a mirror that the user names in
PINWHEEL_MIRROR, and sending to where the user said (`push --registry`, `deploy --env`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import MissingEnvironmentError

VARIABLE = "PINWHEEL_OFFLINE"
FIX = "run `invoke fetch` while online, or set PINWHEEL_MIRROR to what `invoke fetch --to` wrote"


def offline() -> bool:
    """Whether the network must not be used."""
    return os.environ.get(VARIABLE, "").lower() not in {"", "0", "false", "no"}


@contextmanager
def forced(*, wanted: bool) -> Iterator[None]:
    """Be offline while the block runs, if `wanted`; programs that it starts are offline too."""
    before = os.environ.get(VARIABLE)
    if wanted:
        os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def demand_network(what: str, *, fix: str) -> None:
    """Refuse when offline.

    Args:
        what: the action that needs the network, as the beginning of a sentence.
        fix: what the user can do.

    Raises:
        MissingEnvironmentError: the network must not be used.
    """
    if offline():
        raise MissingEnvironmentError(f"{what} needs the network, and this run is offline", fix=fix)
