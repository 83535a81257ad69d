"""What a release record says of a deploy's circumstances: who, when, and with which excuse."""

from __future__ import annotations

import datetime
import getpass
import socket
from dataclasses import dataclass

from common import paths
from common.errors import MissingEnvironmentError
from common.run import run

# How the record writes a time, UTC.
TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Excuse:
    """Why a set was deployed though an image of it lacks proof, and until when that holds.

    Attributes:
        reason: in the words of who deployed it.
        until: UTC.
    """

    reason: str
    until: str

    @property
    def over(self) -> bool:
        """Whether its time is over."""
        return now() > self.until

    def text(self) -> str:
        """The excuse for people."""
        return f"without proof, which is {'over since' if self.over else 'allowed until'} {self.until}: {self.reason}"


def now() -> str:
    """The present as the record writes it."""
    return datetime.datetime.now(datetime.UTC).strftime(TIME)


def who() -> str:
    """Who deploys: git's name for the user, else the system's, and the machine. No address, nothing secret."""
    try:
        named = run(["git", "-C", paths.ROOT, "config", "user.name"]).stdout
    except MissingEnvironmentError:
        named = ""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # A user id without a name, as in many containers.
        user = "unknown"
    name = "".join(letter for letter in named if letter.isprintable()).strip()[:60]
    account = f"{user}@{socket.gethostname()}"
    return f"{name}, {account}" if name else account
