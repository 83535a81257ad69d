"""Choosing wheels."""

from __future__ import annotations

import sys
from typing import Any

import packaging.tags
import pytest
from packaging.tags import parse_tag

from common.errors import LockError, MissingEnvironmentError
from common.run import Result
from lockfiles import inputs
from lockfiles.python import solver, wheels

TAGS = wheels.platform_tags("3.11.2", "2.36")


def package(*files: str) -> dict[str, Any]:
    entries = [{"url": f"https://x.example.com/{f}", "size": 1, "hashes": {"sha256": f[-70:]}} for f in files]
    return {"name": "one", "version": "1.0", "wheels": entries}


def test_the_tags_are_those_packaging_finds_on_such_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("packaging can only speak for the Python it runs on: not 3.11 here")
    monkeypatch.setattr(packaging.tags._manylinux, "_get_glibc_version", lambda: (2, 36))  # type: ignore[attr-defined]
    monkeypatch.setattr(packaging.tags._manylinux, "_is_compatible", lambda *_: True)  # type: ignore[attr-defined]
    monkeypatch.setattr("packaging.tags.sysconfig.get_platform", lambda: "linux-x86_64")
    monkeypatch.setattr(packaging.tags._musllinux, "_get_musl_version", lambda _: None)  # type: ignore[attr-defined]
    assert set(TAGS) == set(packaging.tags.sys_tags())


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["one-1.0-py3-none-any.whl", "one-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"], 1),
        (["one-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", "one-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"], 1),
        (["one-1.0-cp311-abi3-manylinux_2_28_x86_64.whl", "one-1.0-cp38-abi3-manylinux_2_28_x86_64.whl"], 0),
        (["one-1.0-cp311-cp311-musllinux_1_2_x86_64.whl", "one-1.0-py3-none-any.whl"], 1),
        (["one-1.0-cp311-cp311-manylinux_2_28_aarch64.whl", "one-1.0-py2.py3-none-any.whl"], 1),
        (["one-1.0-cp312-cp312-manylinux_2_28_x86_64.whl", "one-1.0-cp311-none-any.whl"], 1),
        (["one-1.0-1-py3-none-any.whl", "one-1.0-2-py3-none-any.whl"], 1),
        (["one-1.0-py3-none-any.whl", "one-1.0-1-py3-none-any.whl"], 1),
        (["one-1.0-2a-py3-none-any.whl", "one-1.0-2b-py3-none-any.whl"], 1),
    ],
)
def test_the_best_wheel_the_base_runs_is_chosen(files: list[str], chosen: int) -> None:
    assert wheels.choose(package(*files), TAGS, "x.in").file == files[chosen]
    assert wheels.choose(package(*reversed(files)), TAGS, "x.in").file == files[chosen]


@pytest.mark.parametrize(
    "files",
    [
        [],
        ["one-1.0-cp311-cp311-win_amd64.whl"],
        ["one-1.0-cp311-cp311-manylinux_2_39_x86_64.whl"],
        ["one-1.0-cp310-cp310-any.whl"],
    ],
)
def test_a_package_without_a_fitting_wheel_is_refused_with_the_remedy(files: list[str]) -> None:
    with pytest.raises(LockError, match=r"one 1.0 has no wheel that the base can run \(x.in\): name it under \[sdists.one\]"):
        wheels.choose(package(*files), TAGS, "x.in")


def test_a_glibc_newer_than_the_base_is_not_in_the_tags() -> None:
    assert parse_tag("cp311-cp311-manylinux_2_36_x86_64") <= set(TAGS)
    assert not parse_tag("cp311-cp311-manylinux_2_37_x86_64") & set(TAGS)


def test_the_resolvers_refusal_is_passed_on_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "  × No solution found when resolving dependencies:\n  ╰─▶ Because a==1 needs b<2\n      and you need b==2\n"
    monkeypatch.setattr(solver, "run", lambda *_, **__: Result(1, "", said))
    with pytest.raises(LockError, match=r"train.in does not resolve: Because a==1 needs b<2 and you need b==2"):
        wheels.resolve(inputs.read_set("train"), "3.11.2", "2.36", {})


def test_an_index_that_does_not_answer_is_no_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "run", lambda *_, **__: Result(2, "", "error: Request failed after 3 retries"))
    with pytest.raises(MissingEnvironmentError, match="uv failed: Request failed"):
        wheels.resolve(inputs.read_set("train"), "3.11.2", "2.36", {})


def test_the_hosts_pip_and_uv_settings_do_not_reach_the_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def fake(argv: list[object], env: dict[str, str | None], **_: object) -> Result:
        seen.update(env=env, argv=[str(a) for a in argv])
        return Result(1, "", "No solution found")

    monkeypatch.setenv("PIP_FIND_LINKS", "/somewhere")
    monkeypatch.setenv("UV_EXTRA_INDEX_URL", "https://other.example.com/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://user:secret@proxy.example.com/simple")
    monkeypatch.setattr(solver, "run", fake)
    with pytest.raises(LockError):
        wheels.resolve(inputs.read_set("train"), "3.11.2", "2.36", {})
    assert seen["env"]["PIP_FIND_LINKS"] is None
    assert seen["env"]["UV_EXTRA_INDEX_URL"] is None
    assert seen["env"]["UV_DEFAULT_INDEX"] == "https://user:secret@proxy.example.com/simple"
    assert not any("secret" in argument for argument in seen["argv"])
