"""Runs one program and stands above everything it ever starts, as the kernel does with a container's processes.

    python -I supervisor.py REPORT CONTROL PROGRAM [ARGUMENT …]

A process whose parent ends becomes a child of this one (PR_SET_CHILD_SUBREAPER, prctl(2)), whatever session or group it went
to: so all that the program left behind can be found, and nothing gets away. REPORT and CONTROL are file descriptors:

- to REPORT go the lines `started PID` or `failed REASON`, and `ended CODE` when the program ends (128 + N: killed by signal N);
- each byte from CONTROL is a signal for the program. Its end, which comes when whoever started this ends, however it ends,
  means that everything has to end: nothing is left running then.

Standard library only, and nothing of Pinwheel, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
# What does not die of SIGKILL in this time hangs in a driver; waiting longer would hang the run as well.
_PATIENCE_S = 20.0
_PAUSE_S = 0.01


def descendants(ancestor: int) -> list[int]:
    """The living processes below a process, sorted; zombies are none."""
    parents: dict[int, int] = {}
    dead: set[int] = set()
    for entry in os.listdir("/proc"):  # noqa: PTH208 - some hundred names, several times a second
        if not entry.isdigit():
            continue
        # One that ended while we look is none.
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything.
            state, parent = Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            parents[int(entry)] = int(parent)
            if state in {"Z", "X"}:
                dead.add(int(entry))
    found: set[int] = set()
    below = {ancestor}
    while below := {pid for pid, parent in parents.items() if parent in below} - found:
        found |= below
    return sorted(found - dead)


class _Supervisor:
    """One program, and where to tell of it."""

    def __init__(self, report: int) -> None:
        self._report = report
        self._pid = 0

    def start(self, command: list[str]) -> bool:
        """Start the program, in a session of its own and with the signals as a shell would leave them; whether it did."""
        try:
            # Python ignores these two, and what is ignored stays so in who is started.
            self._pid = os.posix_spawnp(
                command[0], command, os.environ, setsid=True, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ]
            )
        except OSError as problem:
            self._say(f"failed {command[0]}: {problem.strerror}")
            return False
        self._say(f"started {self._pid}")
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the program, unless it was seen to end: its number may be another's by then."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def reap(self) -> bool:
        """Take note of what ended; whether anything is left, which the kernel alone knows for sure."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._pid:
                self._pid = 0
                code = os.waitstatus_to_exitcode(status)
                self._say(f"ended {code if code >= 0 else 128 - code}")

    def end(self) -> None:
        """End everything: again and again, because who is not killed yet may start others."""
        limit = time.monotonic() + _PATIENCE_S
        while self.reap() and time.monotonic() < limit:
            for pid in descendants(os.getpid()):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_PAUSE_S)

    def _say(self, line: str) -> None:
        # Whoever listened may be gone; the end of CONTROL will tell.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._report, f"{line}\n".encode())


def main() -> None:
    """Run the program until CONTROL ends."""
    report, control = int(sys.argv[1]), int(sys.argv[2])
    for descriptor in (report, control):
        os.set_inheritable(descriptor, False)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    supervisor = _Supervisor(report)
    # The handler does nothing: the signal's number in the pipe ends the waiting.
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    if not supervisor.start(sys.argv[3:]):
        return
    while True:
        ready, _, _ = select.select([control, awake], [], [])
        if awake in ready:
            os.read(awake, 512)
            supervisor.reap()
        if control in ready:
            asked = os.read(control, 512)
            for number in asked:
                supervisor.signal(number)
            if not asked:
                supervisor.end()
                return


if __name__ == "__main__":
    main()
