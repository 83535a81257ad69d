"""Bytecode, compiled by the image's own interpreter on this machine.

The base's Python runs by its own dynamic loader and libraries, so it needs neither a container nor root. One process per
wheel: marshal's output depends on what else the interpreter holds, so a wheel's bytecode is a function of that wheel alone.
It is forked, which is done in a millisecond, where a start takes thirty.
Files are "unchecked hash-based" (PEP 552): no time in them, nothing to compare at import.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
from pathlib import Path

from common.errors import BuildError

# The process that is started forks before it has compiled anything; each child serves one wheel, and all begin alike.
# Out of memory is no verdict on a source: the child dies of it, and the build with it.
_WORKER = r"""
import importlib.util, os, struct, sys, warnings
from importlib._bootstrap_external import _code_to_hash_pyc
warnings.simplefilter("ignore")
def read(size):
    parts = []
    while size and (part := os.read(0, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
def write(data):
    while data:
        data = data[os.write(1, data):]
def serve():
    while (head := read(8)) and head != FRESH:
        lengths = struct.unpack(">II", head)
        name = read(lengths[0]).decode("utf-8", "surrogateescape")
        text = read(lengths[1])
        try:
            code = compile(text, name, "exec", dont_inherit=True)
            data = bytes(_code_to_hash_pyc(code, importlib.util.source_hash(text), False))
            del code
        except (SyntaxError, ValueError, RecursionError, OverflowError):
            data = b""
        write(struct.pack(">I", len(data)) + data)
    return 0 if head else 3
FRESH = b"\xff" * 8
while not (child := os.fork()) or not (status := os.waitpid(child, 0)[1]):
    if not child:
        os._exit(serve())
sys.exit(0 if status == 3 << 8 else 1)
"""
_FRESH = b"\xff" * 8
# What a hostile source may take: KiB of memory, and seconds of processor for a whole wheel. No wheel in use comes near (0.2 GiB
# at most); a dictionary of three million constants would take 4.6 GiB, an f-string of a million fields ten minutes.
_MEMORY, _TIME = 1 << 20, 300
_LIMITED = f'ulimit -v {_MEMORY} && ulimit -t {_TIME} && exec "$@"'


class Compiler:
    """A running interpreter of the image.

    Args:
        tree: the base's root file system.
    """

    def __init__(self, tree: Path) -> None:
        libraries = ":".join(str(tree / folder) for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"))
        argv = [str(tree / "lib64/ld-linux-x86-64.so.2"), "--library-path", libraries, str(tree / "usr/bin/python3.11")]
        # PYTHONHOME: the stdlib of the image, not this machine's. A fixed hash seed: sets of constants keep one order.
        env = {"PYTHONHOME": str(tree / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
        self._process = subprocess.Popen(
            # -P, -B: nothing is imported from the folder this runs in, and nothing is written into the tree.
            ["/bin/sh", "-c", _LIMITED, "sh", *argv, "-P", "-B", "-S", "-s", "-c", _WORKER],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> Compiler:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            # A dead interpreter's pipe still holds what could not be written.
            with contextlib.suppress(BrokenPipeError):
                if pipe:
                    pipe.close()
        self._process.wait()

    def fresh(self) -> None:
        """Forget what was compiled: the next module is a new wheel's first.

        Raises:
            BuildError: the interpreter died.
        """
        self._send(_FRESH)

    def compile(self, name: str, source: bytes) -> bytes:
        """The `.pyc` of one module; empty if it is no Python 3.11.

        Args:
            name: its path in the image, as tracebacks show it.
            source: its bytes.

        Raises:
            BuildError: the interpreter died.
        """
        path = name.encode("utf-8", "surrogateescape")
        self._send(struct.pack(">II", len(path), len(source)) + path + source, name)
        head = self._receive(4, name)
        return self._receive(struct.unpack(">I", head)[0], name)

    def _send(self, data: bytes, name: str = "") -> None:
        assert self._process.stdin is not None  # noqa: S101
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError:
            raise self._died(name) from None

    def _receive(self, size: int, name: str) -> bytes:
        assert self._process.stdout is not None  # noqa: S101
        data = self._process.stdout.read(size)
        if len(data) != size:
            raise self._died(name)
        return data

    def _died(self, name: str) -> BuildError:
        said = self._process.stderr.read().decode(errors="replace").splitlines() if self._process.stderr else []
        # The last line of a traceback says what it was.
        where = ": ".join(filter(None, (name, *said[-1:])))
        fix = f"a wheel's sources may take {_MEMORY >> 20} GiB and {_TIME} s of CPU; leave the file out, or pin another version"
        return BuildError("the image's interpreter died while compiling", where=where, fix=fix)
