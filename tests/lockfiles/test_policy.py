"""What the policy refuses, and how a policy is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from common import paths
from common.errors import LockError, UsageError
from lockfiles import inputs, lockfile, policy
from lockfiles.licences import spdx
from lockfiles.model import Deb, Wheel
from lockfiles.policy import Policy
from tests.lockfiles.conftest import artifact

SHIPPED = policy.read()


def _wheel(licence: str, *, name: str = "one", shim: bool = False) -> Wheel:
    return Wheel(name, "1.0", artifact(f"{name}-1.0-py3-none-any.whl"), licence=licence, shim=shim)


PASS = {
    "permissive": "MIT",
    "copyleft": "GPL-3.0-or-later AND LGPL-2.1-only",
    "a_permitted_alternative": "AGPL-3.0-only OR MIT",
    "a_permitted_alternative_inside": "MIT AND (SSPL-1.0 OR Apache-2.0)",
    "a_vendors_own": "LicenseRef-NVIDIA-CUDA-EULA",
    "looks_alike": "CC-BY-4.0",
}
REFUSED = {
    "plain": "AGPL-3.0-only",
    "in_an_and": "MIT AND AGPL-3.0-or-later",
    "with_an_exception": "AGPL-3.0-only WITH GCC-exception-3.1",
    "every_alternative": "SSPL-1.0 OR BUSL-1.1",
    "nested": "MIT AND (AGPL-3.0-only OR (Apache-2.0 AND SSPL-1.0))",
    "another_case": "agpl-3.0-or-later",
}


@pytest.mark.parametrize("name", PASS)
def test_the_shipped_policy_lets_pass(name: str) -> None:
    policy.check_licences(SHIPPED, "train", [_wheel(PASS[name])])


@pytest.mark.parametrize("name", REFUSED)
def test_the_shipped_policy_refuses(name: str) -> None:
    with pytest.raises(LockError, match="which the policy forbids"):
        policy.check_licences(SHIPPED, "train", [_wheel(REFUSED[name])])


def test_a_refusal_names_package_version_licence_lock_and_what_to_do() -> None:
    # The one that tells nothing comes first, as by its name it might.
    packages = [_wheel("", name="mute"), _wheel("MIT"), _wheel("AGPL-3.0-only", name="bad"), _wheel("SSPL-1.0", name="worse")]
    with pytest.raises(LockError) as refused:
        policy.check_licences(SHIPPED, "api", packages)
    assert refused.value.line() == (
        "bad 1.0 is under AGPL-3.0-only, worse 1.0 is under SSPL-1.0, which the policy forbids; "
        "mute 1.0 does not tell its licence, which the policy asks for "
        "(api.lock, lockfiles/policy.toml): do without it, pin a version under another licence, "
        "or name it with a reason under [licences.allowed_for]"
    )


@pytest.mark.parametrize("licence", ["", spdx.UNKNOWN, "MIT AND LicenseRef-unknown", "no expression"])
def test_an_untold_licence_is_refused_or_not_as_the_policy_says(licence: str) -> None:
    packages = [Deb("one", "1.0", "all", artifact("one"), licence=licence)]
    with pytest.raises(LockError, match=r"one 1\.0 does not tell its licence, which the policy asks for \(base\.lock"):
        policy.check_licences(SHIPPED, "base", packages)
    policy.check_licences(Policy((), True, (), 7), "base", packages)


def test_a_package_is_excused_by_name_and_no_other() -> None:
    rules = Policy(("GPL-*",), False, (("one", "why"),), 7)
    policy.check_licences(rules, "train", [_wheel("GPL-2.0-only")])
    with pytest.raises(LockError, match="two 1.0"):
        policy.check_licences(rules, "train", [_wheel("GPL-2.0-only"), _wheel("GPL-2.0-only", name="two")])


def test_a_shim_holds_nothing_to_license_but_is_bound_by_what_it_states() -> None:
    policy.check_licences(SHIPPED, "api-cpu", [_wheel("", shim=True)])
    with pytest.raises(LockError, match="forbids"):
        policy.check_licences(SHIPPED, "api-cpu", [_wheel("AGPL-3.0-only", shim=True)])


def test_own_names_can_be_forbidden() -> None:
    rules = Policy(("LicenseRef-NVIDIA-*",), False, (), 7)
    with pytest.raises(LockError, match="LicenseRef-NVIDIA-SDK-EULA"):
        policy.check_licences(rules, "train", [_wheel("LicenseRef-NVIDIA-SDK-EULA")])


def _real() -> dict[str, tuple[Deb | Wheel, ...]]:
    return {"base": lockfile.read_base().debs, **{name: lockfile.read_set(name).wheels for name in inputs.set_names()}}


def test_the_real_locks_pass_and_state_valid_licences() -> None:
    for name, packages in _real().items():
        policy.check_licences(SHIPPED, name, packages)
        for one in packages:
            assert one.licence == spdx.canonical(one.licence), f"{name}: {one.name}"


def test_every_exception_of_the_shipped_policy_is_needed() -> None:
    strict = Policy(SHIPPED.forbidden, SHIPPED.unknown, (), SHIPPED.cooldown_days)
    packages = [one for held in _real().values() for one in held]
    for name, _ in SHIPPED.allowed_for:
        with pytest.raises(LockError):
            policy.check_licences(strict, "any", [one for one in packages if one.name == name])


# Each edit is made to the shipped policy; what it must be refused with.
EDITS = {
    "no_toml": ("[licences]", "[licences", "not TOML"),
    "section_misspelt": ("[licences]", "[licenses]", "licences.forbidden: missing"),
    "key_misspelt": ("forbidden =", "forbiden =", "licences.forbidden: missing"),
    "key_missing": ('unknown = "refuse"', "", "licences.unknown: missing"),
    "unknown_word": (
        'unknown = "refuse"',
        'unknown = "ignore"',
        'licences.unknown: expected "allow" or "refuse", got \'ignore\'',
    ),
    "pattern_of_an_exception": (
        '"AGPL-*"',
        '"Classpath-exception-2.0"',
        "licences.forbidden: no SPDX licence is called Classpath-exception-2.0",
    ),
    "pattern_misspelt": ('"AGPL-*"', '"APGL-*"', "licences.forbidden: no SPDX licence is called APGL-*"),
    "pattern_in_lower_case": ('"AGPL-*"', '"agpl-*"', "licences.forbidden: no SPDX licence is called agpl-*"),
    "pattern_an_expression": ('"AGPL-*"', '"MIT OR AGPL-*"', "licences.forbidden: not a licence or a pattern: 'MIT OR AGPL-*'"),
    "patterns_no_list": ("forbidden = [", "forbidden = 1\nx = [", "licences.forbidden: expected a list of strings, got 1"),
    "pattern_no_string": ('"AGPL-*"', "1", "licences.forbidden: expected a list of strings"),
    "key_unknown": ("forbidden = [", "x = 1\nforbidden = [", "licences.x: unknown key"),
    "no_reason": ('cuda-toolkit = "names', 'other = " "\ncuda-toolkit = "names', "licences.allowed_for.other: gives no reason"),
    "reason_no_string": (
        'cuda-toolkit = "names',
        'other = true\ncuda-toolkit = "names',
        "licences.allowed_for.other: expected a string, got True",
    ),
    "days_negative": ("days = 7", "days = -1", "cooldown.days: expected a number from 0 to 3650, got -1"),
    "days_a_boolean": ("days = 7", "days = true", "cooldown.days: expected a number from 0 to 3650, got True"),
    "days_a_word": ("days = 7", 'days = "7"', "cooldown.days: expected a number from 0 to 3650, got '7'"),
    "days_missing": ("days = 7", "", "cooldown.days: missing"),
    "cooldown_no_table": ("[cooldown]\n", "[[cooldown]]\n", "cooldown: expected a mapping"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_wrong_policy_is_refused_with_its_file(own_folders: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    old, new, message = EDITS[name]
    text = policy.path().read_text()
    assert old in text
    monkeypatch.setattr(paths, "LOCKFILES", own_folders)
    policy.path().write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError) as refused:
        policy.read()
    assert refused.value.what.startswith(message)
    assert "policy.toml" in refused.value.where


def test_no_policy_is_refused(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "LOCKFILES", own_folders)
    with pytest.raises(UsageError, match="cannot be read: No such file .*policy.toml.*: mend it, or restore it from git"):
        policy.read()
