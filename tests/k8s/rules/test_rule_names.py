"""Each finding carries the name of its rule, and each name is in the documentation."""

from __future__ import annotations

import re

from common import paths
from k8s.envs.accepted import NEVER

NAMES = {
    *(name for file in (paths.K8S / "rules").glob("*.py") for name in re.findall(r'@rule\("([^"]+)"\)', file.read_text())),
    *re.findall(r'named\("([^"]+)"', (paths.K8S / "prepare" / "checked.py").read_text()),
    *re.findall(r'named\("([^"]+)"', (paths.K8S / "objects" / "schema.py").read_text()),
    *re.findall(r'named\("([^"]+)"', (paths.K8S / "rollouts" / "asked.py").read_text()),
}


def test_the_documentation_lists_every_rule_and_no_other() -> None:
    text = (paths.ROOT / "docs" / "check.md").read_text()
    table = text[text.index("## Rules") :]
    listed = {
        name for row in table.splitlines() if row.startswith("| `") for name in re.findall(r"`([^`]+)`", row.split("|")[1])
    }
    assert listed == NAMES
    assert len(NAMES) > 40


def test_what_is_never_accepted_are_rules() -> None:
    assert set(NEVER) <= NAMES


def test_every_rule_of_the_rules_room_has_a_name() -> None:
    """A function that makes findings stands under a name, or only hands on those of others."""
    for file in sorted((paths.K8S / "rules").glob("*.py")):
        for block in file.read_text().split("\n\n\n"):
            if re.search(r"yield \w+(?:\.\w+)*\.finding\(", block):
                assert block.startswith("@rule("), (file.name, block.splitlines()[0])
