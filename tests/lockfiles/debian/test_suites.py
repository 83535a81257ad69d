"""What base.in may say of Debian packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from common import paths
from common.apt import KEYRING
from common.errors import LockError, UsageError
from lockfiles import closure, inputs, lockfile
from lockfiles.debian.suites import Suite


def read(folder: Path, text: str) -> inputs.BaseInput:
    (folder / "base.in").write_text(text)
    return inputs.read_base()


def test_a_version_is_pinned_by_an_equals_sign(locks: Path) -> None:
    wanted = read(locks, 'packages = ["python3.11=3.11.2-6+deb12u9", "tmux=3.3a-3", "g++"]\n')
    assert wanted.packages == ("python3.11", "tmux", "g++")
    assert wanted.versions == (("python3.11", "3.11.2-6+deb12u9"), ("tmux", "3.3a-3"))


def test_a_lock_that_holds_another_version_than_the_pinned_one_is_refused(locks: Path) -> None:
    lock = lockfile.read_base()
    closure.check_base(read(locks, 'packages = ["python3.11=3.11.2-6+deb12u9"]\n'), lock)
    with pytest.raises(LockError, match=r"base.in pins python3.11=3.11.2-7, base.lock has 3.11.2-6\+deb12u9.*base.lock:\d+"):
        closure.check_base(read(locks, 'packages = ["python3.11=3.11.2-7"]\n'), lock)


def test_a_further_suite_names_its_packages_and_its_key(locks: Path) -> None:
    (paths.ROOT / "keys").mkdir()
    (paths.ROOT / "keys/acme.gpg").write_bytes(b"key")
    text = 'packages = ["curl"]\n[[suites]]\nsuite = "bookworm-backports"\npackages = ["git=1:2.45-1~bpo12+1"]\n'
    own = '[[suites]]\nsuite = "deb/"\npackages = ["tool"]\nkeyring = "keys/acme.gpg"\n'
    wanted = read(locks, text + own)
    assert wanted.packages == ("curl", "git", "tool")
    assert wanted.versions == (("git", "1:2.45-1~bpo12+1"),)
    assert wanted.suites == (
        Suite("bookworm-backports", "main", (("git", "1:2.45-1~bpo12+1"),), KEYRING),
        Suite("deb/", "", (("tool", ""),), paths.ROOT / "keys/acme.gpg"),
    )
    # Another key under the same name is another input.
    (paths.ROOT / "keys/acme.gpg").write_bytes(b"other key")
    assert inputs.read_base().digest != wanted.digest


@pytest.mark.parametrize(
    "text",
    [
        'packages = ["tmux = 3.3a"]',
        'packages = ["tmux="]',
        'packages = ["tmux>=3"]',
        'packages = ["tmux/bookworm"]',
        'packages = ["tmux:amd64"]',
        'packages = ["TMUX"]',
        'packages = ["-o=APT::x"]',
        'packages = ["tmux-*"]',
        'packages = ["tmux", "tmux=3.3a-3"]',
        'packages = ["tmux"]\nwithout = ["usrmerge=1"]',
        'packages = ["tmux"]\nsuites = "bookworm-backports"',
        'packages = ["tmux"]\nsuites = ["bookworm-backports"]',
        'packages = ["tmux"]\n[[suites]]\nsuite = "bookworm-backports"',
        'packages = ["tmux"]\n[[suites]]\nsuite = "bookworm-backports"\npackages = []',
        'packages = ["tmux"]\n[[suites]]\nsuite = "bookworm-backports"\npackages = ["tmux"]',
        'packages = ["tmux"]\n[[suites]]\nsuite = "a b"\npackages = ["git"]',
        'packages = ["tmux"]\n[[suites]]\nsuite = "a\\nTrusted: yes"\npackages = ["git"]',
        'packages = ["tmux"]\n[[suites]]\nsuite = "a"\ncomponent = ""\npackages = ["git"]',
        'packages = ["tmux"]\n[[suites]]\nsuite = "a/"\ncomponent = "main"\npackages = ["git"]',
        'packages = ["tmux"]\n[[suites]]\nsuite = "a"\npackages = ["git"]\nkeyring = "/etc/passwd"',
        'packages = ["tmux"]\n[[suites]]\nsuite = "a"\npackages = ["git"]\nkeyring = "../key.gpg"',
        'packages = ["tmux"]\n[[suites]]\nsuite = "a"\npackages = ["git"]\nkeyring = "none.gpg"',
        'packages = ["tmux"]\n[[suites]]\nsuite = "a"\npackages = ["git"]\ntrusted = true',
    ],
)
def test_what_apt_would_read_otherwise_is_refused(text: str, locks: Path) -> None:
    with pytest.raises(UsageError, match=r"base.in"):
        read(locks, f"{text}\n")
