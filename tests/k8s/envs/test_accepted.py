"""One finding is accepted, by rule and object, with a reason, until a day; and what others made is named once."""

from __future__ import annotations

import datetime
import json

import pytest

from common.errors import PolicyError, UsageError
from k8s import check
from k8s.envs import accepted, environment
from k8s.envs.accepted import Accepted
from k8s.objects.findings import Finding
from tests.k8s.conftest import Checkout
from tests.k8s.rules.judged import found, pod, told

GPU = pod(container="resources: {limits: {nvidia.com/gpu: '1'}}")
TITLE = "Deployment shop/web"
TODAY = datetime.date(2026, 6, 1)


def entry(until: str = "2026-06-01", rule: str = "gpu-surge", title: str = TITLE) -> Accepted:
    return Accepted(rule, title, "the pool scales", datetime.date.fromisoformat(until))


def test_a_finding_is_accepted_to_its_last_day() -> None:
    wrong = found(GPU)
    result = accepted.apply(wrong, [entry()], TODAY)
    assert (result.refused, result.ended, result.idle) == ((), (), ())
    assert [(one.rule, because.reason) for one, because in result.accepted] == [("gpu-surge", "the pool scales")]
    late = accepted.apply(wrong, [entry()], TODAY + datetime.timedelta(1))
    assert (late.refused, late.accepted, late.ended) == (tuple(wrong), (), (entry(),))


@pytest.mark.parametrize("other", [entry(rule="probe"), entry(title="Deployment shop/other")])
def test_an_entry_accepts_its_own_rule_and_object_only(other: Accepted) -> None:
    result = accepted.apply(found(GPU), [other], TODAY)
    assert len(result.refused) == 1
    assert result.idle == (other,)


def environment_text(checkout: Checkout, added: str) -> None:
    file = checkout.root / "k8s" / "envs" / "staging.yaml"
    file.write_text(file.read_text() + added)


ACCEPT = "accept:\n  - {{rule: {rule}, object: Deployment shop/web, reason: the pool scales, until: '{until}'}}\n"


def test_what_is_accepted_is_printed_each_time(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout.root / "gpu.yaml").write_text(GPU)
    environment_text(checkout, ACCEPT.format(rule="gpu-surge", until="2999-01-01"))
    check.run_check([str(checkout.root / "gpu.yaml")], "staging")
    assert "accepted until 2999-01-01 (the pool scales): gpu.yaml:" in capsys.readouterr().err


def test_an_entry_that_is_over_or_matches_nothing_is_said(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout.root / "gpu.yaml").write_text(GPU)
    environment_text(
        checkout, ACCEPT.format(rule="gpu-surge", until="2020-01-01") + ACCEPT.format(rule="probe", until="2999-01-01")[8:]
    )
    with pytest.raises(PolicyError):
        check.run_check([str(checkout.root / "gpu.yaml")], "staging")
    said = capsys.readouterr().err
    assert "accepts nothing since 2020-01-01: gpu-surge, Deployment shop/web" in said
    assert "accepts what was not found: probe, Deployment shop/web: remove it from k8s/envs/staging.yaml" in said
    assert "[gpu-surge]" in said


@pytest.mark.parametrize("rule", accepted.NEVER)
def test_what_the_gate_must_refuse_is_never_accepted(checkout: Checkout, rule: str) -> None:
    environment_text(checkout, ACCEPT.format(rule=rule, until="2999-01-01"))
    with pytest.raises(UsageError, match="is never accepted"):
        environment.load("staging")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ACCEPT.format(rule="probe", until="soon"), "'soon' is no day"),
        ("accept:\n  - {rule: probe, object: Pod a/b, until: '2999-01-01'}\n", "reason: missing"),
        ("accept:\n  - {rule: probe, object: Pod a/b, reason: x, until: '2999-01-01', path: spec}\n", "path: unknown key"),
        ("accept: gpu-surge\n", "expected a list"),
        ("claims: [corpus]\n", "write namespace/name"),
        ("claims: {data/corpus: [a]}\n", "expected a list"),
        ("config-maps: {data/ca: ca.crt}\n", "write the list of the keys"),
    ],
)
def test_an_entry_that_says_something_else_is_refused(checkout: Checkout, text: str, message: str) -> None:
    environment_text(checkout, text)
    with pytest.raises(UsageError, match=message):
        environment.load("staging")


MADE = pod(
    "serviceAccountName: reader, priorityClassName: high, volumes: [{name: a, persistentVolumeClaim: {claimName: corpus}}, "
    "{name: b, configMap: {name: ca, items: [{key: ca.crt, path: x}]}}]"
)
LINES = [
    "`claims: [shop/corpus]`",
    "`config-maps: {shop/ca: [ca.crt]}`",
    "`priority-classes: [high]`",
    "`service-accounts: [shop/reader]`",
]


def test_what_others_made_is_refused_once_with_the_line_to_add() -> None:
    other = MADE.replace("name: web, namespace", "name: other, namespace")
    fixes = [one.fix for one in found(f"{MADE}---\n{other}") if one.rule == "reference"]
    assert sorted(line for line in LINES for fix in fixes if line in fix) == LINES
    assert len(fixes) == len(LINES)


def test_the_lines_are_enough(checkout: Checkout) -> None:
    environment_text(checkout, "".join(line.strip("`") + "\n" for line in LINES))
    (checkout.root / "made.yaml").write_text(MADE)
    check.run_check([str(checkout.root / "made.yaml")], "staging")


def test_a_key_that_a_config_map_of_others_has_not_is_refused() -> None:
    there = {("ConfigMap", "shop", "ca"): frozenset({"tls.crt"})}
    assert any("ConfigMap ca has no key 'ca.crt'" in one for one in told(MADE, elsewhere=there))


def test_findings_are_told_to_programs(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout.root / "gpu.yaml").write_text(GPU + "---\n" + MADE.replace("name: web, namespace", "name: other, namespace"))
    environment_text(checkout, ACCEPT.format(rule="gpu-surge", until="2999-01-01"))
    outputs = []
    for form in (check.JSON, check.SARIF, check.SARIF):
        with pytest.raises(PolicyError):
            check.run_check([str(checkout.root / "gpu.yaml")], "staging", form)
        outputs.append(capsys.readouterr().out)
    body = json.loads(outputs[0])
    assert body["clean"] is False
    assert [one["rule"] for one in body["findings"]] == ["reference"] * 4
    assert all(one["file"] == "gpu.yaml" and one["line"] > 1 and one["what"] and one["fix"] for one in body["findings"])
    assert [(one["rule"], one["until"]) for one in body["accepted"]] == [("gpu-surge", "2999-01-01")]
    assert outputs[1] == outputs[2]
    log = json.loads(outputs[1])
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    ids = [one["id"] for one in run["tool"]["driver"]["rules"]]
    assert ids == sorted(set(ids)) == ["gpu-surge", "reference"]
    for one in run["results"]:
        assert ids[one["ruleIndex"]] == one["ruleId"]
        place = one["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "gpu.yaml"
        assert place["region"]["startLine"] > 1
    assert [one.get("suppressions", [{}])[0].get("justification", "") for one in run["results"]].count("") == 4


def test_a_finding_sorts_by_file_and_line() -> None:
    assert Finding("a", 2, "", "", "", "") < Finding("a", 10, "", "", "", "") < Finding("b", 1, "", "", "", "")
