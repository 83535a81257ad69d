"""Bytecode, compiled by the image's own interpreter on this machine.

The base's Python runs by its own dynamic loader and libraries, so it needs neither a container nor root. One process per
wheel: marshal's output depends on what else the interpreter holds, so a wheel's bytecode is a function of that wheel alone.
Files are "unchecked hash-based" (PEP 552): no time in them, nothing to compare at import.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
from pathlib import Path

from common.errors import BuildError

# Out of memory is no verdict on a source: the worker dies of it, and the build with it.
_WORKER = r"""
import importlib.util, struct, sys, warnings
from importlib._bootstrap_external import _code_to_hash_pyc
warnings.simplefilter("ignore")
source, target = sys.stdin.buffer, sys.stdout.buffer
while head := source.read(8):
    lengths = struct.unpack(">II", head)
    name = source.read(lengths[0]).decode("utf-8", "surrogateescape")
    text = source.read(lengths[1])
    try:
        code = compile(text, name, "exec", dont_inherit=True)
        data = bytes(_code_to_hash_pyc(code, importlib.util.source_hash(text), False))
        del code
    except (SyntaxError, ValueError, RecursionError, OverflowError):
        data = b""
    target.write(struct.pack(">I", len(data)) + data)
    target.flush()
"""


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
            [*argv, "-S", "-s", "-c", _WORKER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
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

    def compile(self, name: str, source: bytes) -> bytes:
        """The `.pyc` of one module; empty if it is no Python 3.11.

        Args:
            name: its path in the image, as tracebacks show it.
            source: its bytes.

        Raises:
            BuildError: the interpreter died.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101
        assert stdout is not None  # noqa: S101
        path = name.encode("utf-8", "surrogateescape")
        try:
            stdin.write(struct.pack(">II", len(path), len(source)) + path + source)
            stdin.flush()
            (length,) = struct.unpack(">I", stdout.read(4))
            data = stdout.read(length)
        except (OSError, struct.error):
            said = self._process.stderr.read().decode(errors="replace")[-300:] if self._process.stderr else ""
            raise BuildError("the image's interpreter died while compiling", where=f"{name}: {said}") from None
        if len(data) != length:
            raise BuildError("the image's interpreter died while compiling", where=name)
        return data
