"""Outlasting a cluster that is away for a while: a control plane that is upgraded comes back in minutes.

Only what happens after something was sent is worth that, and what merely looks on: before, who deploys is told at once. A call
that fails is no outage by itself, since a webhook or one overloaded resource fails in the same words: the server's own
`/readyz` is asked. While it does not answer, nobody can take the lease away; afterwards somebody may, so the lease is renewed
before anything else is sent.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from common import console
from common.run import Result
from k8s.rollouts.kubectl import Kubectl, brief, passing

_READY = ["get", "--raw", "/readyz"]


class Fence(Protocol):
    """What must still be ours when the cluster is back."""

    def renew(self) -> bool:
        """Claim it once more; whether the cluster took that."""

    def lost(self) -> str:
        """Why it is no longer ours; empty while it is."""


class Outlasting(Kubectl):
    """kubectl whose calls wait until the cluster answers again, for `Patience.away`; one line says so, one that it is back.

    Args:
        plain: kubectl as it is.
        fence: must be ours before a call is made again; None: the calls change nothing.
    """

    def __init__(self, plain: Kubectl, fence: Fence | None = None) -> None:
        super().__init__(plain.target, plain.patience)
        self._plain, self._fence = plain, fence
        # What it said to the last question whether it is there.
        self._words = ""

    def call(self, args: Sequence[str], *, stdin: str | None = None, timeout: float = 0, tries: int = 0) -> Result:
        """As of `Kubectl`; what fails while the cluster is away is done when it is back."""
        # It may have come back between the call and the question: what failed is tried once more in any case.
        last = False
        while True:
            result = self._plain.call(args, stdin=stdin, timeout=timeout, tries=tries)
            if not result.code or not passing(result):
                return result
            if self._answers():
                if last:
                    return result
                last = True
            elif not self._came_back():
                lasted = console.seconds(self.patience.away)
                return Result(1, "", f"the cluster has not answered for {lasted}: {self._words}")
            if why := self._fence.lost() if self._fence else "":
                return Result(1, "", why)

    def _answers(self) -> bool:
        """Whether the server is there and ready; whatever it says else, it answers."""
        timeout = min(self.patience.request, 10)
        said = self._plain.call([*_READY, f"--request-timeout={timeout:g}s"], timeout=2 * timeout, tries=1)
        answers, self._words = not said.code or not passing(said), brief(said)
        if answers:
            self.given_up = False
        return answers

    def _came_back(self) -> bool:
        """Wait for the cluster; false when that took too long."""
        if self.given_up:
            return False
        began = time.monotonic()
        console.warn("the cluster does not answer; waiting")
        while not (self._answers() and self._decided()):
            if time.monotonic() - began >= self.patience.away:
                self.given_up = True
                return False
            time.sleep(self.patience.pause)
        took = time.monotonic() - began
        self.silent += took
        console.info(f"the cluster answers again, after {console.seconds(took)}")
        return True

    def _decided(self) -> bool:
        """Whether it is known if the fence is still ours; while a renewal fails and nobody else has it, it is not."""
        return self._fence is None or self._fence.renew() or bool(self._fence.lost())
