"""A `gh` with one repository, kept in the JSON file of GH_DOUBLE: what night.py asks for, no flag that `gh` does not have."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Parse as `gh` does, and do it."""
    parser = argparse.ArgumentParser(prog="gh", allow_abbrev=False)
    groups = parser.add_subparsers(dest="group", required=True)
    issue = groups.add_parser("issue").add_subparsers(dest="command", required=True)
    shown = issue.add_parser("list", allow_abbrev=False)
    for flag in ("--label", "--json", "--limit"):
        shown.add_argument(flag)
    shown.add_argument("--state", choices=["open", "closed", "all"], default="open")
    create = issue.add_parser("create", allow_abbrev=False)
    for flag in ("--title", "--label", "--body-file"):
        create.add_argument(flag, required=True)
    comment = issue.add_parser("comment", allow_abbrev=False)
    comment.add_argument("number", type=int)
    comment.add_argument("--body-file", required=True)
    close = issue.add_parser("close", allow_abbrev=False)
    close.add_argument("number", type=int)
    close.add_argument("--comment", default="")
    label = groups.add_parser("label").add_subparsers(dest="command", required=True).add_parser("create", allow_abbrev=False)
    label.add_argument("name")
    for flag in ("--description", "--color"):
        label.add_argument(flag)
    label.add_argument("--force", action="store_true")
    runs = groups.add_parser("run").add_subparsers(dest="command", required=True).add_parser("list", allow_abbrev=False)
    for flag in ("--workflow", "--branch", "--status", "--limit", "--json"):
        runs.add_argument(flag)
    given = parser.parse_args()
    path = Path(os.environ["GH_DOUBLE"])
    state = json.loads(path.read_text())
    if state.get("down"):
        sys.stderr.write("HTTP 502: Bad Gateway\n")
        return 1
    code = do(given, state)
    path.write_text(json.dumps(state))
    return code


def do(given: argparse.Namespace, state: dict[str, Any]) -> int:
    """One command."""
    issues = {one["number"]: one for one in state["issues"]}
    match given.group, given.command:
        case "issue", "list":
            wanted = [one for one in issues.values() if one["state"] == given.state and given.label in one["labels"]]
            # The newest first, as `gh` has them.
            print(json.dumps([{name: one[name] for name in given.json.split(",")} for one in wanted[::-1]]))
        case "issue", "create":
            if given.label not in state["labels"]:
                sys.stderr.write(f"could not add label: '{given.label}' not found\n")
                return 1
            body = [sys.stdin.read()]
            one = {"number": len(issues) + 1, "state": "open", "title": given.title, "labels": [given.label], "said": body}
            state["issues"].append(one)
        case "issue", "comment":
            issues[given.number]["said"].append(sys.stdin.read())
        case "issue", "close":
            issues[given.number]["said"].append(given.comment)
            issues[given.number]["state"] = "closed"
        case "label", "create":
            if given.name in state["labels"] and not given.force:
                return 1
            state["labels"] = sorted({*state["labels"], given.name})
        case "run", "list":
            asked = {"workflow": given.workflow, "branch": given.branch, "conclusion": given.status}
            found = [one for one in state["runs"] if asked.items() <= one.items()]
            found = sorted(found, key=lambda one: str(one["createdAt"]), reverse=True)[: int(given.limit)]
            print(json.dumps([{name: one[name] for name in given.json.split(",")} for one in found]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
