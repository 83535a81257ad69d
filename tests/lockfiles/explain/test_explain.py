"""`lock --explain` of inputs that do not resolve: real resolutions by uv against an index on loopback."""

from __future__ import annotations

import datetime
import json
import re
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.version import Version

from common import paths
from common.errors import LockError, MissingEnvironmentError, UsageError
from lockfiles import explain, inputs
from lockfiles.explain import nearest, sentences
from lockfiles.explain.catalogue import Catalogue
from lockfiles.python import index, wheels
from tests.lockfiles.small_index import Index, serving

pytestmark = pytest.mark.slow

WORKED = paths.ROOT / "docs/explain"
Tell = Callable[..., str]


@pytest.fixture
def small(locks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An index that is the user's."""
    with serving() as one:
        monkeypatch.setenv("UV_DEFAULT_INDEX", one.address)
        # uv looks for an interpreter on PATH at each start, and asks shims of version managers anew each time.
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "uv"))
        yield one


@pytest.fixture
def tell(small: Index, locks: Path, capsys: pytest.CaptureFixture[str]) -> Tell:
    """Explain an input, given as TOML, that does not resolve; returns what was printed, one space for many."""

    def run(text: str, days: int = 0) -> str:
        file = locks.parent / "x.in"
        file.write_text(text)
        with pytest.raises(LockError, match=r"^x.in does not resolve: the lines above say why"):
            explain.explain(str(file), days)
        said = capsys.readouterr()
        return re.sub(r" +", " ", said.out + said.err)

    return run


def proposed(said: str) -> list[str]:
    """The proposed lines, in order."""
    lines = re.findall(r'^ (".+"), # was', said, re.MULTILINE)
    # As a user would paste them.
    return [str(line) for line in tomllib.loads(f"lines = [{', '.join(lines)}]")["lines"]]


def resolves(file: Path, lines: list[str]) -> dict[str, str]:
    """Put proposed lines in place of those of the same package, resolve, and return versions."""
    text = file.read_text()
    for line in lines:
        name = re.split(r"[\[=]", line)[0]
        text, count = re.subn(rf'"{name}(?=[\[=<>])(?:[^"\\]|\\.)*",', f"{json.dumps(line)},".replace("\\", r"\\"), text)
        assert count == 1
    changed = file.with_name("changed.in")
    changed.write_text(text)
    found = wheels.resolve(inputs.read_set_file(changed), "3.11.2", "2.36", {})
    return {name: package["version"] for name, package in found.items()}


def test_two_pins_that_exclude_each_other_on_a_third_package(small: Index, tell: Tell, locks: Path) -> None:
    small.add("alpha", "1.0", "third>=2,<4")
    small.add("beta", "1.0", "third<2")
    small.add("beta", "1.1", "third<2")
    small.add("beta", "1.2", "third")
    small.add("beta", "1.3", "third")
    for version in ("1.0", "2.0", "3.0"):
        small.add("third", version)
    said = tell('requires = [\n"alpha==1.0",\n"beta==1.0",\n]\n')
    assert "third: no version satisfies both\n alpha 1.0 needs >=2,<4\n beta 1.0 needs <2\n" in said
    assert '"beta==1.2", # was ==1.0, 2 releases up\n' in said
    assert proposed(said) == ["beta==1.2"]
    assert resolves(locks.parent / "x.in", ["beta==1.2"]) == {"alpha": "1.0", "beta": "1.2", "third": "3.0"}


def test_a_pin_against_anothers_requirement_is_moved_either_way_the_nearer_first(small: Index, tell: Tell) -> None:
    small.add("alpha", "2.0", "beta>=3")
    small.add("alpha", "1.0", "beta")
    for version in ("1.0", "2.0", "3.0", "4.0"):
        small.add("beta", version)
    said = tell('requires = ["beta==1.0", "alpha==2.0"]\n')
    assert "beta: no version satisfies both\n x.in needs ==1.0\n alpha 2.0 needs >=3\n" in said
    assert proposed(said) == ["alpha==1.0", "beta==3.0"]
    assert "1 release down" in said
    assert "2 releases up" in said


def test_a_version_that_does_not_exist(small: Index, tell: Tell) -> None:
    for version in ("1.0", "1.1", "2.0"):
        small.add("alpha", version)
    said = tell('requires = ["alpha==1.9"]\n')
    assert "alpha: no version can be used (your index has 1.0 to 2.0)\n x.in needs ==1.9\n" in said
    assert proposed(said) == ["alpha==2.0", "alpha==1.1"]


def test_a_package_that_does_not_exist(small: Index, tell: Tell) -> None:
    small.add("alpha", "1.0")
    said = tell('requires = ["alpha==1.0", "nothing"]\n')
    assert "nothing: no version can be used (your index has no such project)\n x.in needs any version\n" in said
    assert "no other version of what `requires` names would help" in said
    assert proposed(said) == []


def test_a_version_whose_wheels_are_for_another_python_or_machine(small: Index, tell: Tell) -> None:
    small.add("alpha", "1.0", tag="cp311-cp311-manylinux_2_28_x86_64")
    small.add("alpha", "2.0", tag="cp312-cp312-manylinux_2_28_x86_64")
    small.add("alpha", "2.0", tag="cp311-cp311-win_amd64")
    small.add("alpha", "3.0", python=">=3.12")
    said = tell('requires = ["alpha==2.0"]\n')
    assert "(2.0 has no wheel for Python 3.11 on x86-64 Linux with glibc 2.36)" in said
    assert proposed(said) == ["alpha==1.0"]
    assert "alpha: no version can be used (3.0 needs Python >=3.12)" in tell('requires = ["alpha==3.0"]\n')


def test_two_requirements_must_move_when_one_is_not_enough(small: Index, tell: Tell, locks: Path) -> None:
    # As torch and torchvision: each version of the one fits one of the other.
    for version in ("1.0", "2.0", "3.0"):
        small.add("torchy", version, f"nccl=={version}")
        small.add("nccl", version)
        small.add("vision", version, f"torchy=={version}")
    small.add("server", "1.0", "torchy==1.0")
    said = tell('requires = [\n"torchy==3.0",\n"vision==3.0",\n"server==1.0",\n]\n')
    assert "torchy: no version satisfies all of\n x.in needs ==3.0\n server 1.0 needs ==1.0\n vision 3.0 needs ==3.0\n" in said
    # It follows from the conflict on torchy and would bury it.
    assert "nccl:" not in said
    # Metadata proves that moving torchy or vision alone is in vain: only server is tried, up and down.
    assert "resolving with 1 of 3 requirements moved, 2 resolutions" in said
    assert proposed(said) == ["torchy==1.0", "vision==1.0"]
    found = resolves(locks.parent / "x.in", proposed(said))
    assert found == {"torchy": "1.0", "vision": "1.0", "server": "1.0", "nccl": "1.0"}


def test_three_demands_of_which_any_two_agree(small: Index, tell: Tell) -> None:
    for version in ("1.0", "2.0", "3.0"):
        small.add("third", version)
    small.add("alpha", "1.0", "third!=1.0")
    small.add("beta", "1.0", "third!=2.0")
    small.add("gamma", "1.0", "third!=3.0")
    small.add("gamma", "0.9")
    small.add("other", "1.0", "third>=1")
    said = tell('requires = ["alpha==1.0", "beta==1.0", "gamma==1.0", "other==1.0"]\n')
    assert (
        "third: no version satisfies all of\n alpha 1.0 needs !=1.0\n beta 1.0 needs !=2.0\n gamma 1.0 needs !=3.0\n nearest"
        in re.sub(r"\n ([…✓]).*", "", said)
    )
    assert proposed(said) == ["gamma==0.9"]


def test_a_deep_conflict_is_told_in_the_resolvers_words(small: Index, tell: Tell) -> None:
    # No version of middle is meant, so metadata of one version proves nothing: all of them exclude the pin.
    small.add("alpha", "1.0", "middle")
    for version in ("1.0", "2.0"):
        small.add("middle", version, "third<2")
    for version in ("1.0", "1.5", "2.0", "3.0"):
        small.add("third", version)
    said = tell('requires = ["alpha==1.0", "third==2.0"]\n')
    assert (
        "x.in does not resolve:\n the resolver says:\n"
        " all versions of middle depend on third<2 and all versions of alpha depend on middle\n"
        " so all versions of alpha depend on third<2\n"
        " you require alpha==1.0 and third==2.0\n"
        " so your requirements are unsatisfiable\n"
    ) in said
    assert "127.0.0.1" not in said
    assert proposed(said) == ["third==1.5"]


def test_a_candidate_that_only_the_resolver_refutes_is_passed_over(small: Index, tell: Tell) -> None:
    small.add("alpha", "1.0", "third==1.0")
    small.add("alpha", "1.1", "middle")
    small.add("alpha", "1.2", "middle")
    small.add("alpha", "1.3")
    small.add("alpha", "1.4")
    small.add("middle", "1.0", "third==1.0")
    small.add("middle", "2.0", "third==1.0")
    for version in ("1.0", "2.0"):
        small.add("third", version)
    said = tell('requires = ["alpha==1.0", "third==2.0"]\noverrides = []\n')
    assert proposed(said) == ["third==1.0", "alpha==1.3"]
    assert '"alpha==1.3", # was ==1.0, 3 releases up' in said


def test_a_chain_of_pins_is_followed(small: Index, tell: Tell) -> None:
    small.add("alpha", "1.0", "middle==1.0")
    small.add("alpha", "0.9")
    small.add("middle", "1.0", "third==1.0")
    for version in ("1.0", "2.0"):
        small.add("third", version)
    said = tell('requires = ["alpha==1.0", "third==2.0"]\n')
    assert "third: no version satisfies both\n x.in needs ==2.0\n middle 1.0 (for alpha) needs ==1.0\n" in said
    assert set(proposed(said)) == {"alpha==0.9", "third==1.0"}


def test_what_extras_bring_and_markers_rule_out(small: Index, tell: Tell) -> None:
    small.add("alpha", "1.0", "third<2; extra == 'more'", "third<1; sys_platform == 'win32'", extras=["more"])
    small.add("third", "1.0")
    small.add("third", "2.0")
    said = tell('requires = ["alpha[more]==1.0", "third==2.0"]\n')
    assert "third: no version satisfies both\n x.in needs ==2.0\n alpha 1.0 needs <2\n" in said
    assert "win32" not in said
    assert proposed(said) == ["third==1.0"]


def test_an_extra_that_another_package_asks_for_is_followed(small: Index, tell: Tell) -> None:
    small.add("alpha", "1.0", "middle[more]")
    small.add("middle", "1.0", "third<2; extra == 'more'", extras=["more"])
    small.add("middle", "1.1", extras=["more"])
    small.add("third", "1.0")
    small.add("third", "2.0")
    said = tell('requires = ["middle==1.0", "alpha==1.0", "third==2.0"]\n')
    assert "third: no version satisfies both\n x.in needs ==2.0\n middle 1.0 needs <2\n" in said
    assert proposed(said) == ["middle==1.1", "third==1.0"]


def test_an_extra_that_does_not_exist_is_noted_whether_the_input_resolves_or_not(
    small: Index, tell: Tell, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small.add("alpha", "1.0", "third<2", extras=["more"])
    small.add("alpha", "2.0", "third")
    small.add("third", "2.0")
    small.add("third", "1.0")
    good = locks.parent / "good.in"
    good.write_text('requires = ["Alpha[More]==2.0"]\n')
    assert explain.explain(str(good)) == "good: resolves"
    assert "alpha 2.0 has no extra 'more': the resolver ignores it" in capsys.readouterr().err
    said = tell('requires = ["alpha[more]==1.0", "third==2.0"]\n')
    assert "alpha 1.0 has no extra" not in said
    assert '"alpha[more]==2.0"' in said
    assert "alpha 2.0 has no extra 'more'" in said


def test_an_override_heals_and_is_respected_by_proposals(
    small: Index, tell: Tell, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small.add("alpha", "1.0", "third==1.0")
    small.add("beta", "1.0", "other==1.0")
    small.add("beta", "1.1")
    for version in ("1.0", "2.0"):
        small.add("third", version)
        small.add("other", version)
    good = locks.parent / "good.in"
    good.write_text('requires = ["alpha==1.0", "third==2.0"]\noverrides = ["third==2.0"]\n')
    assert explain.explain(str(good)) == "good: resolves"
    assert "resolving good.in, 2 packages," in capsys.readouterr().out
    said = tell('requires = ["alpha==1.0", "third==2.0", "beta==1.0", "other==2.0"]\noverrides = ["third==2.0"]\n')
    assert "third:" not in said
    assert "1 of 3 requirements moved" in said
    assert set(proposed(said)) == {"beta==1.1", "other==1.0"}


def test_an_override_that_nothing_satisfies_is_named(small: Index, tell: Tell) -> None:
    small.add("alpha", "1.0", "third")
    small.add("third", "1.0")
    said = tell('requires = ["alpha==1.0"]\noverrides = ["third==9"]\n')
    assert "third: no version can be used (your index has only 1.0)\n x.in, overrides needs ==9\n" in said
    assert "no other version of what `requires` names would help" in said


def test_a_version_that_is_source_only_is_named_though_others_have_wheels(small: Index, tell: Tell, locks: Path) -> None:
    small.add("source", "2.0")
    small.add_sdist("source", "1.5")
    said = tell('requires = [\n  "source==1.5",\n]\n')
    assert "[sdists.source]" in said
    assert 'version = "1.5"' in said


def test_a_line_whose_marker_does_not_hold_is_left_alone(small: Index, tell: Tell, locks: Path) -> None:
    small.add("alpha", "1.0")
    said = tell("requires = [\n  \"alpha==0.1 ; python_version < '3'\",\n  \"alpha==9 ; python_version > '3'\",\n]\n")
    assert [line.partition(" ;")[0] for line in proposed(said)] == ["alpha==1.0"]


def test_what_is_published_as_source_only_must_be_named(small: Index, tell: Tell, locks: Path) -> None:
    small.add("alpha", "1.0", "source")
    small.add_sdist("source", "1.5")
    said = tell('requires = ["alpha==1.0"]\n')
    assert "source: no version can be used (1.5 is published as source only)" in said
    stanza = re.search(r"^ (\[sdists.source\])\n (version = .*)\n (requires = .*)$", said, re.MULTILINE)
    assert stanza
    assert tomllib.loads("\n".join(stanza.groups())) == {"sdists": {"source": {"version": "1.5", "requires": []}}}
    assert "✓ resolving with that, 2 packages" in said
    good = locks.parent / "good.in"
    good.write_text('requires = ["alpha==1.0"]\n' + "\n".join(stanza.groups()))
    assert explain.explain(str(good)) == "good: resolves"


def test_nothing_goes_together(small: Index, tell: Tell) -> None:
    for version in ("1.0", "2.0"):
        small.add("alpha", version, "middle")
        small.add("beta", version, "third==2.0")
        small.add("third", version)
        small.add("middle", version, "third==1.0")
    assert "no versions of these packages go together on your index" in tell('requires = ["alpha==1.0", "beta==1.0"]\n')


def test_withdrawn_and_early_releases_are_not_proposed(small: Index, tell: Tell) -> None:
    small.add("alpha", "1.0", "third<2")
    small.add("alpha", "1.1", yanked=True)
    small.add("alpha", "1.2rc1")
    small.add("alpha", "1.3")
    small.add("third", "2.0")
    small.add("third", "2.1")
    assert proposed(tell('requires = ["alpha==1.0", "third==2.0"]\n')) == ["alpha==1.3"]


def test_a_release_in_its_cooldown_is_not_proposed(small: Index, tell: Tell) -> None:
    old, young = "2020-01-01T00:00:00Z", datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT00:00:00Z")
    small.add("alpha", "1.0", "third<2", uploaded=old)
    small.add("alpha", "1.1", uploaded=young)
    small.add("alpha", "0.8", uploaded=old)
    small.add("third", "1.0", uploaded=old)
    small.add("third", "2.0", uploaded=old)
    text = 'requires = ["alpha==1.0", "third==2.0"]\n'
    assert "alpha==1.1" in proposed(tell(text))
    assert set(proposed(tell(text, days=7))) == {"alpha==0.8", "third==1.0"}


def test_a_range_moves_as_a_pin_does(small: Index, tell: Tell) -> None:
    for version in ("1.0", "2.0", "3.0", "4.0"):
        small.add("beta", version)
    small.add("alpha", "1.0", "beta>=4")
    said = tell("""requires = ["alpha==1.0", "beta>=1,<3; python_version > '3'"]\n""")
    assert "x.in needs >=1,<3" in said
    assert proposed(said) == ['beta==4.0 ; python_version > "3"']
    assert "# was >=1,<3, 2 releases up" in said


def test_an_index_that_serves_wheels_whole_only_leaves_the_resolvers_words(small: Index, tell: Tell) -> None:
    small.ranges = False
    small.add("alpha", "1.0", "third<2")
    small.add("beta", "1.0")
    small.add("third", "2.0")
    small.add("third", "1.0")
    said = tell('requires = ["alpha==1.0", "beta==1.0", "third==2.0"]\n')
    assert said.count("your index does not serve parts of files") == 1
    assert "the resolver says:\n all versions of alpha depend on third<2 and you require alpha==1.0\n" in said
    assert proposed(said) == ["third==1.0"]


def test_the_indexs_own_copy_of_metadata_is_read_where_there_is_one(small: Index) -> None:
    small.metadata = True
    small.add("alpha", "1.0", "third<2")
    with index.session() as http:
        (asked,) = Catalogue(http, "3.11.2", "2.36").asks("alpha", Version("1.0")).requires
    assert str(asked) == "third<2"
    assert [path for path, _ in small.asked] == ["simple/alpha/", "files/alpha-1.0-py3-none-any.whl.metadata"]


def test_every_set_is_tried_and_those_that_do_not_resolve_are_named(
    small: Index, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small.add("one", "1.0")
    small.add("two", "1.0", "one<1")
    small.add("one", "0.5")
    assert explain.explain() == "small: resolves"
    assert explain.explain("small") == explain.explain("small.in") == "small: resolves"
    (locks / "more.in").write_text('requires = ["two==1.0"]\n')
    assert explain.explain() == "more, small: all resolve"
    (locks / "worse.in").write_text('requires = ["one==1.0", "two==1.0"]\n')
    with pytest.raises(LockError, match=r"^lockfiles/worse.in does not resolve"):
        explain.explain()
    assert "one: no version satisfies both" in capsys.readouterr().out


def test_the_search_stops_in_time_and_says_so(small: Index, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "SECONDS", 0.0)
    small.add("alpha", "1.0")
    small.add("alpha", "2.0")
    said = tell('requires = ["alpha==1.5"]\n')
    assert "stopped for time before the nearest was found" in said
    assert proposed(said) == []


def test_more_moves_than_are_tried_one_by_one_still_get_an_answer(
    small: Index, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "_MOST_MOVES", 2)
    for version in ("1.0", "2.0"):
        small.add("core", version)
        for name in ("alpha", "beta"):
            small.add(name, version, f"core=={version}")
    small.add("server", "1.0", "core==2.0")
    said = tell('requires = ["core==1.0", "alpha==1.0", "beta==1.0", "server==1.0"]\n')
    assert "no change of up to 2 requirements resolves" in said
    assert proposed(said) == ["core==2.0", "alpha==2.0", "beta==2.0"]


def test_an_index_that_is_gone_is_no_conflict(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as gone:
        monkeypatch.setenv("UV_DEFAULT_INDEX", gone.address)

    def refuse(*_: object) -> None:
        raise LockError("No solution found")

    # The resolver's own failure is wheels.py's; it takes its time for retries.
    monkeypatch.setattr(wheels, "resolve", refuse)
    with pytest.raises(MissingEnvironmentError, match="your index does not answer for one: ConnectionError"):
        explain.explain("small")


def test_a_file_that_is_not_there_is_refused(locks: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file: nowhere/x.in: name a .in file"):
        explain.explain("nowhere/x.in")


def test_a_derivation_is_told_step_by_step_without_addresses() -> None:
    said = "x.in does not resolve: Because a was not found at http://u:p@host/simple and you require a, we can conclude that b."
    assert list(sentences(said + " And because c, d. hint: e")) == [
        "a was not found at your index and you require a",
        "so b",
        "c, d",
        "hint: e",
    ]


@pytest.mark.host
@pytest.mark.parametrize(
    ("name", "because"),
    [
        (
            "original-train",
            [r"tokenizers: no version .*\n +llamafactory 0.9.3 +needs >=0.19.0,.*\n +transformers 4.37.0 .*<0.19\n"],
        ),
        (
            "original-api",
            [
                r"transformers: no .*\n +original-api.in +needs ==4.37.0\n(.*\n)? +vllm 0.4.0 +needs >=4.39.1\n",
                r"torch: no .*\n +original-api.in +needs ==2.2.0\n(.*\n)? +vllm 0.4.0 +needs ==2.1.2\n",
            ],
        ),
    ],
)
def test_the_original_pins_are_explained_and_the_proposal_resolves(
    name: str, because: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    started = time.monotonic()
    with pytest.raises(LockError, match=f"{name}.in does not resolve"):
        explain.explain(str(WORKED / f"{name}.in"))
    assert time.monotonic() - started < explain.SECONDS
    said = capsys.readouterr()
    for pattern in because:
        assert re.search(pattern, said.out), said.out
    # What the worked example beside the input says of the published packages is what is printed today. How many releases lie
    # between, and how big the whole is, moves with the index.
    assert conflicts_of(said.out) == conflicts_of((WORKED / f"{name}.txt").read_text())
    own = re.sub(r" +", " ", said.out)
    copy = tmp_path / f"{name}.in"
    copy.write_text((WORKED / f"{name}.in").read_text())
    assert len(resolves(copy, proposed(own))) > 100


def conflicts_of(said: str) -> str:
    return said.partition("does not resolve:\n")[2].partition("  … resolving")[0]
