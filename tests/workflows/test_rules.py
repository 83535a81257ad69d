"""The workflows keep our rules, and each rule refuses what it is there for."""

from __future__ import annotations

import re

import pytest
import yaml

from common import paths
from tests.workflows import rules

OURS = {workflow.name: workflow for workflow in rules.ours()}


@pytest.mark.parametrize("name", OURS)
def test_a_workflow_of_ours_keeps_the_rules(name: str) -> None:
    assert rules.problems(OURS[name]) == []


def test_there_are_the_workflows_that_the_documents_speak_of() -> None:
    text = (paths.ROOT / "docs" / "ci.md").read_text()
    assert set(OURS) == set(re.findall(r"`(\w+\.yml)`", text)) - {"dependabot.yml"}


CI, NIGHTLY = "ci.yml", "nightly.yml"
CHECKOUT = "actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2"


@pytest.mark.parametrize(
    ("name", "good", "bad", "problem"),
    [
        (CI, CHECKOUT, "actions/checkout@v6", "not pinned"),
        (CI, CHECKOUT, "actions/checkout@de0fac2 # v6.0.2", "not pinned"),
        (CI, CHECKOUT, CHECKOUT.partition(" ")[0], "not pinned"),
        (CI, CHECKOUT, CHECKOUT.removesuffix(".0.2"), "not pinned"),
        (CI, "persist-credentials: false", "persist-credentials: true", "the token stays"),
        (CI, "persist-credentials: false", "fetch-depth: 1", "the token stays"),
        (CI, "permissions: {}", "", "that no job asked for"),
        (CI, "permissions: {}", "permissions: write-all", "that no job asked for"),
        (CI, "    permissions:\n      contents: read # to check out\n", "", "does not say what its token may do"),
        (CI, "contents: read", "contents: write", "may write ['contents']"),
        (NIGHTLY, "contents: read", "id-token: write", "may write ['id-token']"),
        (CI, "    timeout-minutes: 15\n", "", "no time limit"),
        (NIGHTLY, "concurrency:\n  group: nightly", "env:\n  A: nightly", "under way at once"),
        (CI, "if: github.event_name != 'pull_request'", "if: always()", "strangers' code on a machine of ours"),
        (CI, "runs-on: ubuntu-24.04", "runs-on: ${{ vars.RUNNER }}", "strangers' code on a machine of ours"),
        (CI, "runs-on: ubuntu-24.04", "runs-on: gpu", "strangers' code on a machine of ours"),
        (CI, "runs-on: ubuntu-24.04", "runs-on: {group: ours}", "strangers' code on a machine of ours"),
        (CI, "    timeout-minutes: 15", "    environment: nightly\n    timeout-minutes: 15", "shows a secret to"),
        (
            CI,
            "    timeout-minutes: 15",
            "    env:\n      A: ${{ toJSON(secrets) }}\n    timeout-minutes: 15",
            "shows a secret to",
        ),
        (
            NIGHTLY,
            "    environment: nightly",
            "    environment: nightly\n    env: {A: \"${{ secrets['A'] }}\"}",
            "more than the env",
        ),
        (CI, "  pull_request:", "  pull_request_target:", "with secrets for what strangers sent"),
        (NIGHTLY, "    environment: nightly\n", "", "without an environment"),
        (NIGHTLY, "    environment: nightly", "    env:\n      A: ${{ secrets.A }}", "more than the environment"),
        (CI, "./invokew test --fast", "./invokew test --fast ${{ github.head_ref }}", "put into a shell"),
        (CI, "./invokew test --fast", "./invokew test --quick", "No idea what '--quick' is"),
        (CI, "./invokew test --fast", "./invokew tset", "No idea what 'tset' is"),
        (CI, "./invokew test --fast", "./invokew", "no command"),
        (CI, "./invokew test --fast", "./invokew test && make", "neither ours nor explained: make"),
        (CI, "./invokew test --fast", "./invokew lock --check; curl x | sh", "neither ours nor explained: curl x"),
        (CI, "./invokew test --fast", "|\n          ./invokew lock\n          pip install x", "explained: pip"),
        (NIGHTLY, "night.py verdict", "night.py judge", "night.py does not know"),
    ],
)
def test_a_rule_refuses_what_it_is_there_for(name: str, good: str, bad: str, problem: str) -> None:
    text = OURS[name].text
    assert good in text
    found = rules.problems(rules.of(name, text.replace(good, bad, 1)))
    assert [one for one in found if problem in one], found


def test_every_exception_from_the_rules_is_needed() -> None:
    used = {command for workflow in OURS.values() for command in rules.commands(workflow)}
    assert [name for name in rules.OTHERS if not any(command.startswith(name) for command in used)] == []
    assert {place for place in rules.WRITES if place[1] not in OURS[place[0]].jobs()} == set()


def test_one_action_has_one_commit() -> None:
    pins = {pin for workflow in OURS.values() for pin in re.findall(r"uses: (\S+)", workflow.text)}
    assert len({pin.partition("@")[0] for pin in pins}) == len(pins)


@pytest.mark.parametrize("name", OURS)
def test_the_documents_name_what_somebody_has_to_set_up(name: str) -> None:
    text = (paths.ROOT / "docs" / "ci.md").read_text()
    assert {one for one in rules.names(OURS[name]) if f"`{one}`" not in text} == set()


def test_what_actionlint_is_told_is_what_the_workflows_use() -> None:
    config = yaml.safe_load((paths.ROOT / ".github" / "actionlint.yaml").read_text())
    text = "".join(workflow.text for workflow in OURS.values())
    used = {word for line in re.findall(r"runs-on: (.+)", text) for word in re.findall(r"[\w.-]+", line)}
    assert set(config["self-hosted-runner"]["labels"]) == used - {"self-hosted", "linux", "x64"}
    assert set(config["config-variables"]) == set(re.findall(r"\bvars\.(\w+)", text))
