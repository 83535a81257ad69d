"""A night that fails or is missing is told of in one issue, which a good night closes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.workflows import rules

pytestmark = pytest.mark.slow


class Repository:
    """What `gh` sees: issues, labels, runs."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "state.json"
        self._folder = folder
        program = folder / "bin" / "gh"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("gh.py")} "$@"\n')
        program.chmod(0o755)
        self.write(issues=[], labels=["bug"], runs=[])

    def write(self, **fields: Any) -> None:
        before = json.loads(self._state.read_text()) if self._state.exists() else {}
        self._state.write_text(json.dumps({**before, **fields}))

    def issues(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._state.read_text())["issues"]
        return found

    def night(self, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": path or f"{self._folder / 'bin'}:{os.environ['PATH']}",
            "GH_DOUBLE": str(self._state),
            "GITHUB_SERVER_URL": "https://git.example",
            "GITHUB_REPOSITORY": "a/b",
            "GITHUB_RUN_ID": "17",
        }
        argv = [sys.executable, str(rules.NIGHT), *arguments]
        return subprocess.run(argv, env=env, cwd=self._folder, capture_output=True, text=True, check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def run(hours: float, **fields: str) -> dict[str, str]:
    """A good night of main, so many hours ago."""
    began = (datetime.now(UTC) - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"workflow": "nightly.yml", "branch": "main", "conclusion": "success", "createdAt": began, **fields}


def test_a_failed_night_opens_an_issue_that_says_what_failed_and_where(repository: Repository) -> None:
    done = repository.night("verdict", "proof=failure", "relock=success")
    assert done.returncode == 1
    (issue,) = repository.issues()
    assert issue["labels"] == ["nightly"]
    assert "The night failed: proof: failure." in issue["said"][0]
    assert "https://git.example/a/b/actions/runs/17" in issue["said"][0]


def test_the_next_failed_night_goes_into_the_same_issue(repository: Repository) -> None:
    repository.night("verdict", "proof=failure")
    repository.night("verdict", "proof=success", "relock=cancelled")
    (issue,) = repository.issues()
    assert "relock: cancelled" in issue["said"][1]
    assert "proof" not in issue["said"][1]


@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped", "", "sucess"])
def test_only_success_is_a_good_night(repository: Repository, result: str) -> None:
    assert repository.night("verdict", "proof=success", f"relock={result}").returncode == 1
    assert len(repository.issues()) == 1


def test_a_good_night_closes_the_issue_and_leaves_others_alone(repository: Repository) -> None:
    foreign = {"number": 1, "state": "open", "title": "The night failed, or is missing", "labels": ["bug"], "said": []}
    repository.write(issues=[foreign])
    repository.night("verdict", "proof=failure")
    done = repository.night("verdict", "proof=success", "relock=success")
    assert done.returncode == 0
    first, second = repository.issues()
    assert first == foreign
    assert second["state"] == "closed"
    assert repository.night("verdict", "proof=success").returncode == 0
    assert len(repository.issues()) == 2
    # After that, a failed night opens a new one.
    repository.night("verdict", "proof=failure")
    assert [issue["state"] for issue in repository.issues()] == ["open", "closed", "open"]


@pytest.mark.parametrize(
    ("runs", "code"),
    [
        ([run(8.5)], 0),
        ([run(8.5), run(32)], 0),
        ([run(32.5)], 1),
        ([], 1),
        ([run(8.5, conclusion="failure"), run(32.5)], 1),
        ([run(8.5, branch="try-out"), run(32.5)], 1),
        ([run(8.5, workflow="ci.yml")], 1),
    ],
    ids=["fresh", "newest", "old", "never", "failed since", "of a branch", "of another workflow"],
)
def test_a_missing_night_is_told_of(repository: Repository, runs: list[dict[str, str]], code: int) -> None:
    repository.write(runs=runs)
    done = repository.night("watch", "--hours", "26")
    assert done.returncode == code, done.stderr
    assert len(repository.issues()) == code


def test_nights_that_stay_missing_are_one_issue(repository: Repository) -> None:
    for _ in range(3):
        repository.night("watch", "--hours", "26")
    (issue,) = repository.issues()
    assert len(issue["said"]) == 3


def test_a_hub_that_does_not_answer_is_one_line_and_no_success(repository: Repository) -> None:
    repository.write(down=True)
    for arguments in (["watch", "--hours", "26"], ["verdict", "proof=failure"], ["verdict", "proof=success"]):
        done = repository.night(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("error: gh ")
        assert done.stderr.count("\n") == 1
        assert "HTTP 502" in done.stderr


def test_without_gh_it_is_one_line(repository: Repository) -> None:
    done = repository.night("watch", "--hours", "26", path="/nonexistent")
    assert done.returncode == 1
    assert done.stderr.startswith("error: gh is not installed")


def test_a_summary_holds_what_was_said_and_what_changed(repository: Repository, tmp_path: Path) -> None:
    for argv in (["init", "-q"], ["add", "a.lock"]):
        (tmp_path / "a.lock").write_text("1\n")
        subprocess.run(["git", *argv], cwd=tmp_path, check=True)
    (tmp_path / "a.lock").write_text("2\n")
    (tmp_path / "said.txt").write_text("a package moved\n```\n# not a heading\n")
    done = repository.night("summary", "said.txt")
    assert done.returncode == 0, done.stderr
    assert "a package moved\n```\n# not a heading\n````\n" in done.stdout
    assert "a.lock | 2 +-" in done.stdout
    assert "It did not run." in repository.night("summary", "none.txt").stdout


def test_the_next_job_is_told_what_was_built_and_nothing_else(repository: Repository, tmp_path: Path) -> None:
    file, image = tmp_path / "build.json", {"role": "train", "name": "team/train", "digest": "sha256:" + "a" * 64}
    file.write_text(json.dumps({"images": [image, {**image, "role": "api"}]}))
    done = repository.night("images", "build.json")
    assert done.stdout == f"train=team/train@{image['digest']}\napi=team/train@{image['digest']}\n"
    for bad in ({**image, "name": "a\nevil=1"}, {**image, "digest": "sha256:1"}, {"role": "train"}, 7):
        file.write_text(json.dumps({"images": [bad]}))
        done = repository.night("images", "build.json")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: build.json ")
        assert done.stderr.count("\n") == 1
