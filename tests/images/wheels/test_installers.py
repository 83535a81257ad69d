"""Awkward wheels, installed by pip and by uv for real, and ours: the same tree but for what differences.toml explains."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

from common.errors import BuildError
from common.run import run
from images.wheels.install import PREFIX
from tests.images import oracle
from tests.images.trees import Entry, Tree
from tests.images.wheels.wheels import layer_of

LONG = "/".join(["deep" * 10] * 6) + "/" + "n" * 120 + ".txt"
MODULE = b"def main():\n    return 3\n"
PKGUTIL = b"__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
ONE = {
    "one/__init__.py": MODULE,
    "one/broken_on_purpose.py": b"print 'python 2'\n",
    "one/ünïcode näme.txt": "grüße".encode(),
    'one/a,b "quoted".txt': b"for RECORD's CSV",
    "one/Case.txt": b"upper",
    "one/case.txt": b"lower",
    "one/empty.txt": b"",
    "one/lib.so": b"\x7fELF" + bytes(100_000),
    "one/run.sh": b"#!/bin/sh\n",
    "one/__pycache__/__init__.cpython-311.pyc": b"brought along",
    f"one/{LONG}": b"a path of 380 characters, which tar holds in a pax header",
    "space/part/here.py": b"y = 2\n",
    "pkgutil_style/__init__.py": PKGUTIL,
    "pkgutil_style/one.py": b"",
    "one_path.pth": b"import one\n",
    "one-1.0.dist-info/licenses/LICENSE": b"free",
    "one-1.0.dist-info/licenses/third party/NOTICE.txt": b"free, too",
    "one-1.0.dist-info/entry_points.txt": b"[console_scripts]\none-cli = one:main\nother = one.sub:Thing.run [extra]\n\n"
    b"[gui_scripts]\none-gui = one:main\n\n[one.plugins]\nx = one\n",
    "one-1.0.data/scripts/tool": b"#!python\nprint('tool')\n",
    "one-1.0.data/scripts/tool-w": b"#!pythonw -E\nprint('tool')\n",
    "one-1.0.data/scripts/shell": b"#!/bin/sh\necho shell\n",
    "one-1.0.data/scripts/binary": b"\x7fELF" + bytes(range(256)),
    "one-1.0.data/data/share/one/doc.txt": b"doc",
    "one-1.0.data/data/etc/one/one.conf": b"[one]\n",
    "one-1.0.data/headers/one.h": b"#define ONE 1\n",
    "one-1.0.data/headers/sub/two.h": b"#define TWO 2\n",
    "one-1.0.data/purelib/one_pure.py": b"pure = True\n",
    "one-1.0.data/platlib/one_plat.py": b"plat = True\n",
}
# A name that PEP 503 normalises, in its old spelling within the wheel, and a second part of both namespaces.
TWO = {
    "space/other/here.py": b"y = 3\n",
    "pkgutil_style/__init__.py": PKGUTIL,
    "pkgutil_style/two.py": b"",
    "Foo.Bar_baz-2.0+local.1.dist-info/COPYING": b"free",
}
EXECUTABLE = (
    "one/lib.so",
    "Foo.Bar_baz-2.0+local.1.dist-info/RECORD",
    "one/run.sh",
    "one-1.0.data/scripts/binary",
    "one-1.0.data/headers/one.h",
)
pytestmark = pytest.mark.slow


def wheel(path: Path, info: str, name: str, version: str, files: dict[str, bytes], *, algorithm: str = "sha256") -> Path:
    """Write a wheel: every other entry stored, the rest deflated, one in zip64's form, one an empty folder."""
    inside = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: extra\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-any\n",
    }
    record = io.StringIO()
    for inner, data in inside.items():
        digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).rstrip(b"=").decode()
        quoted = inner.replace('"', '""')
        record.write(f'"{quoted}",{algorithm}={digest},{len(data)}\n')
    inside[f"{info}/RECORD"] = f"{record.getvalue()}{info}/RECORD,,\n".encode()
    with zipfile.ZipFile(path, "w") as archive:
        if "one/__init__.py" in files:
            archive.writestr(zipfile.ZipInfo("one/empty/"), b"")
        for number, (inner, data) in enumerate(inside.items()):
            entry = zipfile.ZipInfo(inner)
            entry.compress_type = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            entry.external_attr = (0o100755 if inner in EXECUTABLE else 0o100644) << 16
            with archive.open(entry, "w", force_zip64=inner == "one/case.txt") as out:
                out.write(data)
    return path


@pytest.fixture
def awkward(own_folders: Path) -> list[Path]:
    return [
        wheel(own_folders / "one-1.0-py3-none-any.whl", "one-1.0.dist-info", "one", "1.0", ONE, algorithm="sha512"),
        wheel(
            own_folders / "foo_bar_baz-2.0+local.1-1build-py3-none-any.whl",
            "Foo.Bar_baz-2.0+local.1.dist-info",
            "Foo.Bar-baz",
            "2.0+local.1",
            TWO,
        ),
    ]


def installed(by: str, wheels: list[Path], folder: Path) -> Tree:
    """What an installer adds to an empty virtual environment, as if that were the image's."""
    venv = folder / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", venv], error=BuildError)
    before = set(venv.rglob("*"))
    python = venv / "bin/python"
    env = {"UV_CACHE_DIR": str(folder / "uv"), "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    uv: list[str | Path] = [find_uv_bin(), "pip", "install", "--no-config", "--offline", "--link-mode=copy", "--python", python]
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "install", "--no-compile"]
    run([*(uv if by == "uv" else pip), "--no-deps", "--no-index", *wheels], error=BuildError, env=env)
    (venv / ".lock").unlink(missing_ok=True)  # uv's
    tree, own = Tree(), f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for file in sorted(set(venv.rglob("*")) - before - {venv / ".lock"}):
        path = f"{PREFIX}/{file.relative_to(venv)}".replace(own, "python3.11")
        mode = oct(file.stat().st_mode & 0o7777)
        if file.is_dir():
            tree.entries[path] = Entry("folder", mode, 0, 0, 0, "", "")
            continue
        data = file.read_bytes().replace(bytes(venv), f"/{PREFIX}".encode())
        tree.entries[path] = Entry("file", mode, 0, 0, len(data), hashlib.sha256(data).hexdigest(), "")
        tree.kept[path] = data
    return tree


@pytest.mark.parametrize("by", ["uv", "pip"])
def test_awkward_wheels_become_the_tree_that_an_installer_makes(by: str, awkward: list[Path], own_folders: Path) -> None:
    theirs = installed(by, awkward, own_folders)
    ours = Tree()
    with tarfile.open(fileobj=io.BytesIO(layer_of(*awkward)[0])) as tar:
        ours.add(tar, re.compile(".*"))
    # The folders that hold the environment itself.
    frame = {
        "opt",
        PREFIX,
        f"{PREFIX}/bin",
        f"{PREFIX}/lib",
        f"{PREFIX}/lib/python3.11",
        f"{PREFIX}/lib/python3.11/site-packages",
    }
    for path in (*frame, f"{PREFIX}/include"):
        ours.entries.pop(path, None)
        theirs.entries.pop(path, None)
    found = oracle.unexplained(ours, theirs, by)
    assert not found, "\n".join(map(str, found))
    assert len(ours.entries) > len(ONE) + len(TWO)
