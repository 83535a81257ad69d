"""What the documents tell people to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.parser import Parser
from invoke.program import Program

import tasks
from common import paths

DOCUMENTS = [paths.ROOT / "README.md", *sorted((paths.ROOT / "docs").rglob("*.md"))]


def commands(document: Path) -> list[str]:
    """Every `invoke …` and `./invokew …` that a document shows, with optional parts as given and placeholders filled in."""
    text = document.read_text()
    found = re.findall(r"`(?:\./)?invokew? ([^`]+)`", text) + re.findall(r"^ {4}(?:\./)?invokew? (.+)$", text, re.MULTILINE)
    return [
        re.sub(
            r"\b(NAME|REF|PATH)\b",
            lambda match: f"x{match[1].lower()}",
            one.replace("[", "").replace("]", "").replace(' "…"', " x").replace("…", ""),
        ).strip()
        for one in found
    ]


CASES = [(document, command) for document in DOCUMENTS for command in commands(document)]


@pytest.mark.parametrize(("document", "command"), CASES, ids=[f"{d.name}: {c}" for d, c in CASES])
def test_a_command_in_the_documents_parses(document: Path, command: str) -> None:
    if not command or command.startswith("--help"):
        return
    contexts = Collection.from_module(tasks).to_contexts()
    parsed = Parser(contexts=contexts, initial=Program().initial_context).parse_argv(shlex.split(command))
    assert len(parsed) > 1, command


def test_the_documents_show_every_command() -> None:
    shown = {word for _, command in CASES for word in command.split()}
    assert {task.name for task in vars(tasks).values() if hasattr(task, "called")} <= shown


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_a_link_to_a_file_of_ours_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_test_that_the_documents_name_is_there(document: Path) -> None:
    files = list((paths.ROOT / "tests").rglob("test_*.py"))
    there = {name for file in files for name in (file.stem, *re.findall(r"(?m)^def (test_\w+)", file.read_text()))}
    assert set(re.findall(r"`(test_\w+)`", document.read_text())) - there == set()


def test_no_package_registry_is_named_in_what_git_tracks() -> None:
    """Locks name content, not location; mirrors come from the user's own configuration."""
    from common.run import run

    files = run(["git", "-C", paths.ROOT, "ls-files", "-z"]).stdout.split("\0")
    assert len(files) > 10
    # Spelt in two parts, so that this file passes its own test.
    names = [
        "pypi" + ".org",
        "pythonhosted" + ".org",
        "deb.debian" + ".org",
        "registry.npmjs" + ".org",
        "snapshot.debian" + ".org",
    ]
    for name in filter(None, files):
        path = paths.ROOT / name
        if path.is_file():
            data = path.read_bytes()
            assert not [host for host in names if host.encode() in data], name


def test_modules_stay_around_three_hundred_lines() -> None:
    for folder in ("common", "oci", "lockfiles", "images", "smoke", "registry", "k8s", "bench"):
        for file in (paths.ROOT / folder).rglob("*.py"):
            assert len(file.read_text().splitlines()) <= 320, file


def test_the_line_of_a_lock_that_the_documents_show_is_a_real_one() -> None:
    (line,) = re.findall(r'^    ("[a-z-]+" = \{ version .*)$', (paths.ROOT / "docs" / "locks.md").read_text(), re.MULTILINE)
    assert line in (paths.LOCKFILES / "train.lock").read_text().splitlines()
