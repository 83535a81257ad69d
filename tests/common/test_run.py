"""Starting programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import BuildError, MissingEnvironmentError
from common.run import run


def test_a_missing_program_is_named_with_its_remedy() -> None:
    with pytest.raises(MissingEnvironmentError, match=r"^no-such-program is not installed: get it$"):
        run(["no-such-program"], missing="get it")


def test_a_failure_carries_the_code_and_the_last_line() -> None:
    with pytest.raises(BuildError, match=r"^laying failed with code 3 \(bad\): try again$"):
        run(["sh", "-c", "echo first >&2; echo bad >&2; exit 3"], error=BuildError, what="laying", fix="try again")


def test_a_program_that_does_not_answer_is_ended() -> None:
    assert run(["sleep", "5"], timeout=0.1).code == 124


def test_the_environment_can_be_added_to_and_taken_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD", "1")
    said = run(["sh", "-c", 'echo "${OLD-gone} $NEW"'], env={"OLD": None, "NEW": "2"})
    assert said.stdout == "gone 2\n"


SECRETS = ("API_KEY", "HF_TOKEN", "COSIGN_PRIVATE_KEY", "COSIGN_PASSWORD", "PINWHEEL_KEY", "DOCKER_AUTH_CONFIG", "CI_JOB_TOKEN")


@pytest.fixture
def printer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that print their variables, in front of all others."""
    for name in ("kubectl", "cosign", "skopeo", "git", "apt-get", "uv", "docker", "tar", "dockerd"):
        (tmp_path / name).write_text("#!/bin/sh\nenv\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in SECRETS:
        monkeypatch.setenv(name, "SENTINEL")
    return tmp_path


@pytest.mark.parametrize("program", ["kubectl", "cosign", "skopeo", "git", "apt-get", "uv", "docker", "tar", "dockerd"])
def test_no_secret_of_the_environment_reaches_a_program(printer: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    said = run([program]).stdout
    assert "SENTINEL" not in said
    assert f"PATH={printer}" in said
    assert "LC_TIME=C.UTF-8" in said


def test_a_program_gets_what_it_is_there_for(printer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "AWS_PROFILE", "HTTPS_PROXY", "MINE_1", "MINE_2", "VAULT_ADDR"):
        monkeypatch.setenv(name, f"value of {name}")
    assert "KUBECONFIG=" in (said := run(["kubectl"]).stdout)
    assert "AWS_PROFILE=" in said
    assert "HTTPS_PROXY=" in said
    assert "VAULT_ADDR=" not in said
    # A proxy's address may hold a password, and tar asks no network.
    assert "HTTPS_PROXY=" not in run(["tar"]).stdout
    assert "MINE_" not in said
    assert "MINE_1=" in run(["kubectl"], passes=["MINE_1"]).stdout
    monkeypatch.setenv("PINWHEEL_PASS", "MINE_* *")
    assert "MINE_2=" in (said := run(["kubectl"]).stdout)
    assert "SENTINEL" not in said


def test_nothing_goes_along_where_the_caller_says_all(printer: Path) -> None:
    assert run(["env"], env={"ONE": "1"}, inherit=False).stdout == "ONE=1\n"
