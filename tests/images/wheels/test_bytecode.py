"""Bytecode is what the image's own interpreter makes."""

from __future__ import annotations

import contextlib
import marshal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from common import paths
from common.errors import BuildError
from common.run import run
from images.wheels.bytecode import Compiler
from images.wheels.install import SITE
from lockfiles import lockfile
from lockfiles.debian import resolver, rootfs
from tests.images.wheels.wheels import content, layer_of, make, members

SOURCE = b'"""Doc."""\nX = {"a", "b", "c"}\n\n\ndef f(x):\n    return x in {"p", "q", "r", "s"}, (1, 2), "p"\n'


@pytest.fixture(scope="module")
def tree() -> Path:
    resolver.fetch(lockfile.read_base().debs)
    return rootfs.made(lockfile.read_base()).tree


@pytest.mark.host
def test_it_equals_what_compileall_writes_in_the_image(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_bytes(SOURCE)
    libraries = ":".join(str(tree / folder) for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"))
    loader: list[str | Path] = [tree / "lib64/ld-linux-x86-64.so.2", "--library-path", libraries, tree / "usr/bin/python3.11"]
    argv = [
        *loader,
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
        "-p",
        "/opt/here",
        "-s",
        tmp_path,
        tmp_path,
    ]
    run(argv, error=BuildError, env={"PYTHONHOME": str(tree / "usr"), "PYTHONHASHSEED": "0"})
    with Compiler(tree) as compiler:
        ours = compiler.compile("/opt/here/m.py", SOURCE)
    assert ours == (tmp_path / "__pycache__/m.cpython-311.pyc").read_bytes()
    assert ours[4:8] == b"\x01\0\0\0"  # hash-based, not checked (PEP 552)


@pytest.mark.host
def test_it_does_not_depend_on_what_was_compiled_before(tree: Path) -> None:
    with Compiler(tree) as fresh, Compiler(tree) as used:
        for number in range(50):
            used.compile(f"/m{number}.py", SOURCE.replace(b"f(x)", b"f%d(x)" % number))
        used.compile("/bad.py", b"print 'python 2'\n")
        assert fresh.compile("/m.py", SOURCE) == used.compile("/m.py", SOURCE)


@pytest.mark.host
def test_what_is_no_python_3_11_gets_none(tree: Path) -> None:
    with Compiler(tree) as compiler:
        for source in (b"print 'python 2'\n", b"x = '\xff'\n", b"\0", b"(" * 100_000, b"# -*- coding: nonsense -*-\n"):
            assert compiler.compile("/m.py", source) == b""
        assert compiler.compile("/m.py", b"x = 1\n")


@pytest.mark.host
def test_an_interpreter_that_dies_is_named(tree: Path) -> None:
    with pytest.raises(BuildError, match="the image's interpreter died while compiling"), Compiler(tree) as compiler:
        compiler.compile("/m.py", SOURCE)
        for child in psutil.Process(compiler._process.pid).children():
            child.kill()
        compiler.compile("/m.py", SOURCE)


@pytest.mark.host
def test_it_does_not_depend_on_the_wheels_before(tree: Path) -> None:
    with Compiler(tree) as first, Compiler(tree) as later:
        for _ in range(3):
            later.compile("/a.py", SOURCE.replace(b"f(x)", b"g(x)"))
            later.fresh()
        sources = [SOURCE, SOURCE.replace(b"Doc", b"p"), SOURCE]
        assert [first.compile("/m.py", source) for source in sources] == [later.compile("/m.py", source) for source in sources]


@pytest.mark.host
def test_it_ends_with_the_process_that_asked(tree: Path) -> None:
    asks = "import os, sys; from pathlib import Path; from images.wheels.bytecode import Compiler; "
    asks += "c = Compiler(Path(sys.argv[1])); "
    asks += "c.compile('/m.py', b'x = 1'); print(c._process.pid, flush=True); os.kill(os.getpid(), 9)"
    said = subprocess.run([sys.executable, "-c", asks, str(tree)], capture_output=True, text=True, cwd=paths.ROOT, check=False)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(said.stdout)).wait(60)


@pytest.mark.host
def test_a_layer_holds_the_bytecode_of_each_module_and_of_nothing_else(tree: Path, own_folders: Path) -> None:
    files = {
        "one/__init__.py": b"",
        "one/a.py": SOURCE,
        "one/old.py": b"print 'x'\n",
        "one-1.0.data/scripts/tool.py": b"#!python\n",
    }
    wheel = make(own_folders, files)
    with Compiler(tree) as compiler:
        tar, _ = layer_of(wheel, compiler=compiler)
    codes = sorted(name for name in members(tar) if name.endswith(".pyc"))
    assert codes == [f"{SITE}/one/__pycache__/{name}.cpython-311.pyc" for name in ("__init__", "a")]
    if sys.version_info[:2] == (3, 11):
        code = marshal.loads(content(tar, codes[1])[16:])
        assert code.co_filename == f"/{SITE}/one/a.py"
    assert "one/__pycache__/a.cpython-311.pyc,," in content(tar, f"{SITE}/one-1.0.dist-info/RECORD").decode()
