"""Of the user's pip configuration, where packages are asked for counts; what else is installed, and where, does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common import paths, pip
from common.files import sha256_file
from tests.images.wheels.wheels import make


def configured(monkeypatch: pytest.MonkeyPatch, file: Path, text: str) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    file.write_text(text)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))


def test_where_packages_are_asked_for_goes_on_in_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[global]\nindex-url = https://u:p@mirror.example/simple\ntimeout = 7\n[install]\ntrusted-host = one.example\n"
    configured(monkeypatch, tmp_path / "pip.conf", f"{text}[download]\nproxy = http://proxy.example:1\n")
    monkeypatch.setenv("PIP_CERT", "/etc/ca.pem")
    found = pip.environment("install")
    expected = {
        **{"PIP_INDEX_URL": "https://u:p@mirror.example/simple", "PIP_TIMEOUT": "7", "PIP_TRUSTED_HOST": "one.example"},
        **{"PIP_CERT": "/etc/ca.pem", "PIP_CONFIG_FILE": os.devnull},
    }
    assert found.items() >= expected.items()
    assert "PIP_PROXY" not in found


def test_pip_really_asks_what_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, tmp_path / "pip.conf", "[global]\nindex-url = https://mirror.example/simple\n")
    argv = [*pip.PIP, "config", "list"]
    said = subprocess.run(argv, env=pip.environment("install"), capture_output=True, text=True, check=True).stdout
    assert ":env:.index-url='https://mirror.example/simple'" in said
    assert "global." not in said


@pytest.mark.parametrize(
    "setting", ["requirement", "constraint", "target", "prefix", "root", "user", "no-deps", "pre", "python", "no-binary", "log"]
)
@pytest.mark.parametrize("place", ["variable", "global", "install"])
def test_what_else_is_installed_and_where_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, place: str
) -> None:
    configured(monkeypatch, tmp_path / "pip.conf", "")
    # The machine's own files may say something as well.
    before = pip.environment("install")
    (tmp_path / "pip.conf").write_text("" if place == "variable" else f"[{place}]\n{setting} = x\n")
    if place == "variable":
        monkeypatch.setenv(f"PIP_{setting.upper().replace('-', '_')}", "x")
    assert pip.environment("install") == before


def test_a_configuration_that_cannot_be_read_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, tmp_path / "pip.conf", "nonsense\n")
    with pytest.raises(ValueError, match=r"pip\.conf"):
        pip.environment("install")


@pytest.mark.host
def test_neither_the_callers_folder_nor_pips_settings_put_anything_into_the_environment(tmp_path: Path) -> None:
    """`invokew` in a folder that somebody else can write to, with pip told to install more than the lock."""
    checkout, hostile = tmp_path / "checkout", tmp_path / "hostile"
    (checkout / "lockfiles").mkdir(parents=True)
    (checkout / "lockfiles/toolkit.txt").write_text("")
    shutil.copy(paths.ROOT / "invokew", checkout)
    shutil.copytree(paths.ROOT / "common", checkout / "common")
    hostile.mkdir()
    for name in ("ensurepip", "venv", "pip", "invoke", "common", "ast", "subprocess", "sitecustomize"):
        (hostile / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\nraise SystemExit(3)\n")
    wheel = make(tmp_path, {"evil.py": b""}, name="evil")
    (tmp_path / "more.txt").write_text(f"{wheel.as_uri()} --hash={sha256_file(wheel)}\n")
    variables = {"PIP_REQUIREMENT": str(tmp_path / "more.txt"), "PYTHONPATH": str(hostile), "PYTHONSTARTUP": "x.py"}
    environment = {**os.environ, **variables, "PINWHEEL_PYTHON": sys.executable}
    done = subprocess.run(
        [checkout / "invokew", "--version"], cwd=hostile, env=environment, capture_output=True, text=True, check=False
    )
    assert "No module named invoke" in done.stderr, done
    assert not (tmp_path / "ran").exists()
    assert not list((checkout / ".venv").glob("lib/*/site-packages/evil*"))
