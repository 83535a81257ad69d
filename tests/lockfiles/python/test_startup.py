"""Code of a wheel that runs at each start of Python, against Python itself."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from lockfiles.python import startup

MARK = "import os; open(os.environ['MARK'], 'w').close()\n"


def found(files: dict[str, str | bytes]) -> list[str]:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    with zipfile.ZipFile(held) as archive:
        return sorted(startup.find(archive))


# What is laid out in the site folder; whether Python 3.11 runs it is asked of Python itself.
LAID_OUT: list[dict[str, str | bytes]] = [
    {"x.pth": MARK},
    {"x.pth": "# a comment\n\n" + MARK},
    {"x.pth": "folder\r\n" + MARK},
    {"x.pth": MARK.replace("import ", "import\t", 1)},
    {".x.pth": MARK},
    {"sitecustomize.py": MARK},
    {"usercustomize.py": MARK},
    {"sitecustomize/__init__.py": MARK},
    {"x.pth": "folder\n", "folder/sitecustomize.py": MARK},
    {"x.pth": "# " + MARK},
    {"x.pth": "folder\n", "folder/other.py": MARK},
    {"x.pth": " " + MARK},
    {"folder/x.pth": MARK},
    {"folder/sitecustomize.py": MARK},
    {"x.pth.txt": MARK},
    {"mysitecustomize.py": MARK},
    {"__init__.py": MARK},
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("python")
    venv.create(home, symlinks=True, with_pip=False)
    return home


@pytest.mark.parametrize("files", LAID_OUT, ids=" ".join)
def test_what_python_runs_is_found_and_nothing_else(python: Path, tmp_path: Path, files: dict[str, str | bytes]) -> None:
    site = python / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for name, body in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(body.encode() if isinstance(body, str) else body)
    mark = tmp_path / "ran"
    try:
        # The user's own module is looked for in the user's site folder too, which is switched on for this.
        environment = {**os.environ, "MARK": str(mark), "PYTHONUSERBASE": str(tmp_path)}
        settings = python / "pyvenv.cfg"
        settings.write_text(settings.read_text().replace("system-site-packages = false", "system-site-packages = true"))
        (tmp_path / site.relative_to(python)).mkdir(parents=True)
        subprocess.run([python / "bin/python", "-c", ""], env=environment, check=True)
        assert bool(found(files)) is mark.exists()
    finally:
        for name in files:
            (site / name).unlink()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("x.pth", "x.pth"),
        ("one-1.0.data/purelib/x.pth", "x.pth"),
        ("one-1.0.data/platlib/sitecustomize.py", "sitecustomize.py"),
        ("one-1.0.data/data/lib/python3.11/dist-packages/x.pth", "x.pth"),
        ("sitecustomize.cpython-311-x86_64-linux-gnu.so", "sitecustomize.cpython-311-x86_64-linux-gnu.so"),
    ],
)
def test_it_is_found_wherever_a_wheel_may_lay_it_out_from(name: str, path: str) -> None:
    assert found({name: MARK}) == [path]


@pytest.mark.parametrize("name", ["one-1.0.data/scripts/x.pth", "one/x.pth", "one-1.0.dist-info/x.pth"])
def test_what_lands_elsewhere_does_not_run(name: str) -> None:
    assert found({name: MARK}) == []


def test_what_is_too_large_to_look_into_is_taken_for_code() -> None:
    assert found({"x.pth": b"#" * (1 << 20) + b"#\n"}) == ["x.pth"]
