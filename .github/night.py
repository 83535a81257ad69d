"""What the nightly workflows do beside our own commands: one issue for nights that fail or are missing, and a relock's summary.

    python3 .github/night.py verdict NAME=RESULT …   after a night: tell of what did not succeed, or close the issue
    python3 .github/night.py watch --hours 26        tell when no night has succeeded for that long
    python3 .github/night.py images FILE             print the images of a build receipt, role=name@digest, for the next job
    python3 .github/night.py summary FILE            print what a relock said, and which locks it changed, as Markdown

Needs Python alone, and for the issue `gh`, which must be signed in: by hand, or by GH_TOKEN and GH_REPO.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

WORKFLOW, BRANCH = "nightly.yml", "main"
# Only those who may write here can set a label, so nobody else's issue is taken for ours.
LABEL = "nightly"
TITLE = "The night failed, or is missing"
_HOW = "What a night does, and each command to run by hand, is in docs/ci.md."
# What a summary may hold is 1 MiB.
_LONGEST = 500_000
_IMAGE = re.compile(r"[a-z0-9-]+=[a-z0-9._/-]+@sha256:[0-9a-f]{64}")


def gh(*arguments: str, body: str = "") -> str:
    """What `gh` prints.

    Raises:
        SystemExit: it failed, or is not installed; one line.
    """
    try:
        done = subprocess.run(["gh", *arguments], input=body, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SystemExit("error: gh is not installed: see https://cli.github.com") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise SystemExit(f"error: gh {' '.join(arguments[:2])} failed with code {done.returncode}: {said}")
    return done.stdout


def issue() -> str:
    """The number of the open issue, the oldest where somebody opened a second one; empty for none."""
    found = json.loads(gh("issue", "list", "--label", LABEL, "--state", "open", "--limit", "100", "--json", "number"))
    return str(min((one["number"] for one in found), default=""))


def tell(text: str) -> None:
    """Say it in the issue: in the open one, else in a new one."""
    body = "\n\n".join(filter(None, [text, link(), _HOW])) + "\n"
    if number := issue():
        gh("issue", "comment", number, "--body-file", "-", body=body)
    else:
        gh("label", "create", LABEL, "--description", "Nights that failed or are missing", "--color", "b60205", "--force")
        gh("issue", "create", "--title", TITLE, "--label", LABEL, "--body-file", "-", body=body)
    print(text)


def link() -> str:
    """The run this is part of; empty by hand."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    if not all(os.environ.get(name) for name in names):
        return ""
    server, repository, run = (os.environ[name] for name in names)
    return f"{server}/{repository}/actions/runs/{run}"


def verdict(results: list[str]) -> int:
    """Tell of the jobs that did not succeed; 1 when there are any. After a good night, close the issue."""
    bad = [one for one in results if one.partition("=")[2] != "success"]
    if bad:
        tell("The night failed: " + ", ".join(": ".join(one.split("=", 1)) for one in bad) + ".")
        return 1
    if number := issue():
        gh("issue", "close", number, "--comment", " ".join(filter(None, ["A night succeeded again.", link()])))
    print("a good night")
    return 0


def watch(hours: float) -> int:
    """Tell when no night of the branch has succeeded for so long; 1 then."""
    chosen = ["--workflow", WORKFLOW, "--branch", BRANCH, "--status", "success", "--limit", "1"]
    found = json.loads(gh("run", "list", *chosen, "--json", "createdAt"))
    if not found:
        tell("No night has succeeded yet, and none is known to have failed: is a runner with a GPU there?")
        return 1
    last = datetime.fromisoformat(found[0]["createdAt"])
    if datetime.now(UTC) - last > timedelta(hours=hours):
        tell(f"The last night that succeeded began at {last:%Y-%m-%d %H:%M} UTC, more than {hours:g} hours ago.")
        return 1
    print(f"the last good night began at {last:%Y-%m-%d %H:%M} UTC")
    return 0


def summary(file: Path) -> int:
    """Print what a relock said, and which locks it changed."""
    said = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    changed = subprocess.run(["git", "diff", "--stat"], capture_output=True, text=True, check=True).stdout
    print("## What `invoke lock --upgrade all` would change\n")
    # A fence longer than any that the text holds.
    for text in (said.strip()[-_LONGEST:] or "It did not run.", changed.rstrip() or "No lock changes."):
        fence = "`" * max(3, max(map(len, "".join(c if c == "`" else " " for c in text).split()), default=0) + 1)
        print(f"{fence}text\n{text}\n{fence}\n")
    return 0


def images(file: Path) -> int:
    """Print each image of a build receipt as the output of a step, which the next job is told by."""
    try:
        lines = [f"{one['role']}={one['name']}@{one['digest']}" for one in json.loads(file.read_text())["images"]]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise SystemExit(f"error: {file} is no build receipt: {type(problem).__name__}: {problem}") from None
    for line in lines:
        if not _IMAGE.fullmatch(line):
            raise SystemExit(f"error: {file} names an image that is none: {line!r}")
    print("\n".join(lines))
    return 0


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(dest="command", required=True)
    commands.add_parser("verdict").add_argument("results", nargs="+", metavar="NAME=RESULT")
    commands.add_parser("watch").add_argument("--hours", type=float, required=True)
    for name in ("images", "summary"):
        commands.add_parser(name).add_argument("file", type=Path)
    return made


def main(argv: list[str]) -> int:
    """Parse, do, return the exit code."""
    given = parser().parse_args(argv)
    match given.command:
        case "verdict":
            return verdict(given.results)
        case "watch":
            return watch(given.hours)
        case "images":
            return images(given.file)
        case _:
            return summary(given.file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
