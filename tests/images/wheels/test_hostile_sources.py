"""Sources made to harm the interpreter that compiles them: it ends within its limits, and the build with one clear line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from common.errors import BuildError, ExitCode
from images.wheels import bytecode
from images.wheels.bytecode import Compiler
from lockfiles import lockfile
from lockfiles.debian import resolver, rootfs

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def tree() -> Path:
    resolver.fetch(lockfile.read_base().debs)
    return rootfs.made(lockfile.read_base()).tree


# What Python itself refuses or folds within bounds: it gets no bytecode or small one, and the next module is compiled as ever.
HARMLESS = {
    "power_to_fold": b"9**9**9\n",
    "string_to_fold": b"'a' * 10**10\n",
    "shift_to_fold": b"1 << (1 << 40)\n",
    "tuple_to_fold": b"((1,) * 255) * 255 * 255 * 255 * 255\n",
    "digits": b"x = " + b"9" * 1_000_000,
    "parentheses": b"(" * 100_000,
    "brackets_left_open": b"[" * 150,
    "attributes": b"x" + b".a" * 200_000,
    "sum": b"x" + b"+x" * 300_000,
    "encoding_of_a_module_in_the_folder": b"# -*- coding: evil -*-\nx = 1\n",
    "encoding_that_is_slow": b"# -*- coding: punycode -*-\na-" + b"b" * 20_000,
    "encoding_that_is_none": b"# -*- coding: zlib_codec -*-\nx = 1\n",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_source_made_to_exhaust_the_compiler_does_not(tree: Path, name: str) -> None:
    began = time.monotonic()
    with Compiler(tree) as compiler:
        assert len(compiler.compile("/hostile.py", HARMLESS[name])) < 10_000
        assert compiler.compile("/m.py", b"x = 1\n")
    assert time.monotonic() - began < 120


@pytest.mark.parametrize(
    "source", [b"-" * 100_000 + b"1", b"if x: pass\n" + b"elif x: pass\n" * 20_000, b"x={" + b"1:2," * 800_000 + b"}"]
)
def test_a_source_that_takes_too_much_memory_ends_the_build_by_name(tree: Path, source: bytes) -> None:
    compiler = Compiler(tree)
    with pytest.raises(BuildError, match=r"died while compiling \(/hostile.py.*1 GiB and 300 s of CPU") as refused, compiler:
        compiler.compile("/hostile.py", source)
    assert refused.value.exit_code is ExitCode.BUILD
    assert "Traceback" not in refused.value.line()


def test_a_source_that_takes_too_long_ends_the_build_by_name(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytecode, "_LIMITED", 'ulimit -v 4194304 && ulimit -t 1 && exec "$@"')
    compiler = Compiler(tree)
    with pytest.raises(BuildError, match=r"died while compiling \(/hostile.py"), compiler:
        compiler.compile("/hostile.py", b'f"' + b"{x}" * 100_000 + b'"')


def test_the_interpreter_imports_nothing_from_where_it_is_started(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("struct.py", "warnings.py", "evil.py"):
        (tmp_path / name).write_text("raise SystemExit('imported')\n")
    (tmp_path / "encodings").mkdir()
    (tmp_path / "encodings/evil.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    with Compiler(tree) as compiler:
        assert compiler.compile("/m.py", b"# -*- coding: evil -*-\nx = 1\n") == b""
        assert compiler.compile("/m.py", b"x = 1\n")
    assert not list(tmp_path.rglob("*.pyc"))
