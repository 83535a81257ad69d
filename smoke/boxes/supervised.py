"""A program of this host under a supervisor: what it prints, how it ends, and everything that it started with it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from common.errors import SmokeError
from smoke.boxes import supervisor

_LOOK_S = 0.5
# What it had printed before it ended is in the pipes by then; one of its own that goes on printing is not waited for.
_DRAIN_S = 2.0
_OUT, _ERR = "stdout", "stderr"


class Program:
    """One program, and all its descendants. `start` begins it, `end` leaves nothing of it.

    Args:
        command: argument vector; the program is looked up on the PATH of `environment`.
        directory: where it runs.
        environment: all of it.
        log: gets both streams, line by line in the order they came; None for none.

    Attributes:
        pid: of the program itself.
        code: once it ended: its exit code, 128 + N when signal N killed it.
        started, finished: on the monotonic clock.
        peak: the highest sum of its processes' memory that was seen, bytes; shared pages are divided among those that share.
    """

    def __init__(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str], log: IO[bytes] | None = None
    ) -> None:
        self.command = tuple(command)
        self.pid = 0
        self.code = -1
        self.started = self.finished = 0.0
        self.peak = 0
        self._directory, self._environment, self._log = directory, environment, log
        self._held = {_OUT: bytearray(), _ERR: bytearray()}
        self._merged = bytearray()
        # The beginning of a line whose end has not come yet.
        self._open = {_OUT: bytearray(), _ERR: bytearray()}
        self._lock = threading.Lock()
        self._refusal = ""
        self._begun, self._ended = threading.Event(), threading.Event()
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._control = -1
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start it.

        Raises:
            SmokeError: it cannot be started.
        """
        self.started = time.monotonic()
        report, tell = os.pipe()
        hear, self._control = os.pipe()
        # -I: neither its environment nor its directory may change how the supervisor itself starts.
        argv = [sys.executable, "-I", supervisor.__file__, str(tell), str(hear), *self.command]
        try:
            self._supervisor = subprocess.Popen(
                argv,
                cwd=self._directory,
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(tell, hear),
                # Ctrl-C at the terminal is for us; what it means to the program is decided here.
                start_new_session=True,
            )
        except BaseException:
            os.close(report)
            os.close(self._control)
            self._control = -1
            raise
        finally:
            os.close(tell)
            os.close(hear)
        self._reader = threading.Thread(target=self._listen, args=(report,), name="reader", daemon=True)
        self._reader.start()
        self._begun.wait()
        if self._refusal:
            self.end()
            raise SmokeError("it does not start", where=self._refusal)

    def wait(self, seconds: float) -> bool:
        """Wait for the program's own end; whether it came in this time."""
        return self._ended.wait(max(0.0, seconds))

    def signal(self, number: int) -> None:
        """Send it a signal; to one that ended, nothing."""
        with self._lock:
            if self._control >= 0:
                # A supervisor that was killed hears nothing.
                with contextlib.suppress(BrokenPipeError):
                    os.write(self._control, bytes([number]))

    def processes(self) -> list[int]:
        """The program and everything below it that lives."""
        above = self._supervisor
        return [] if above is None or above.returncode is not None else supervisor.descendants(above.pid)

    def end(self) -> None:
        """End everything that still runs; may be called twice, and from any thread."""
        with self._lock:
            if self._control >= 0:
                os.close(self._control)
                self._control = -1
        if self._supervisor is not None:
            self._supervisor.wait()
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join()

    def output(self) -> bytes:
        """Both streams so far, line by line in the order they came."""
        with self._lock:
            return bytes(self._merged + self._open[_OUT] + self._open[_ERR])

    def stdout(self) -> bytes:
        """Its standard output so far."""
        with self._lock:
            return bytes(self._held[_OUT])

    def stderr(self) -> bytes:
        """Its standard error so far."""
        with self._lock:
            return bytes(self._held[_ERR])

    def _listen(self, report: int) -> None:
        try:
            self._read(report)
        finally:
            # Whatever goes wrong in here, nobody waits for ever.
            self._finish()

    def _read(self, report: int) -> None:
        """Read what it prints and what the supervisor tells, until both have no more to say."""
        above = self._supervisor
        if above is None or above.stdout is None or above.stderr is None:
            return
        looked = 0.0
        with selectors.DefaultSelector() as selector, above.stdout, above.stderr, open(report, "rb", buffering=0) as told:
            selector.register(above.stdout, selectors.EVENT_READ, _OUT)
            selector.register(above.stderr, selectors.EVENT_READ, _ERR)
            selector.register(told, selectors.EVENT_READ, "")
            while selector.get_map():
                self._take(selector, _LOOK_S)
                if self.code >= 0 and not self._ended.is_set():
                    limit = time.monotonic() + _DRAIN_S
                    while self._take(selector, 0.0) and time.monotonic() < limit:
                        continue
                    self._finish()
                if time.monotonic() - looked >= _LOOK_S and not self._ended.is_set():
                    self.peak = max(self.peak, _memory(self.processes()))
                    looked = time.monotonic()

    def _take(self, selector: selectors.BaseSelector, seconds: float) -> bool:
        """Read once whatever is there to be read; whether there was anything."""
        ready = selector.select(seconds)
        for key, _ in ready:
            data = os.read(key.fd, 1 << 16)
            if not data:
                selector.unregister(key.fileobj)
                if not key.data and not self.finished:
                    # The supervisor itself was killed, and nobody stands above the program any more.
                    _kill_session(self.pid)
                    self._hear("ended 137")
            elif key.data:
                self._keep(key.data, data)
            else:
                for line in data.decode(errors="replace").splitlines():
                    self._hear(line)
        return bool(ready)

    def _hear(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "started":
            self.pid = int(rest)
        elif word == "failed":
            self._refusal, self.finished, self.code = rest, time.monotonic(), 127
        elif word == "ended":
            self.finished, self.code = time.monotonic(), int(rest)
        self._begun.set()

    def _keep(self, stream: str, data: bytes) -> None:
        with self._lock:
            self._held[stream] += data
            whole, newline, rest = (bytes(self._open[stream]) + data).rpartition(b"\n")
            self._open[stream] = bytearray(rest)
            self._append(whole + newline)

    def _append(self, data: bytes) -> None:
        self._merged += data
        if self._log is not None and data:
            try:
                self._log.write(data)
                self._log.flush()
            except (OSError, ValueError):
                # A full disk, or closed because the run is over: what is printed has to be read on, or the program would wait.
                self._log = None

    def _finish(self) -> None:
        """Whoever waits may go on: all that it printed is there."""
        with self._lock:
            for stream in (_OUT, _ERR):
                self._append(bytes(self._open[stream]))
                self._open[stream].clear()
        self._begun.set()
        self._ended.set()


def _kill_session(session: int) -> None:
    """End the processes of a session, which a program and all below it are of that did not leave it; 0 is nobody's."""
    if not session:
        return
    for process in psutil.process_iter():
        # One that ended meanwhile, or is another's, is none of these.
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) == session:
                os.kill(process.pid, signal.SIGKILL)


def _memory(pids: Sequence[int]) -> int:
    total = 0
    for pid in pids:
        # One that ended meanwhile has none.
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(pid).memory_full_info().pss
    return total
