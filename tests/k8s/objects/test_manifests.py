from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import MissingEnvironmentError, UsageError
from common.run import run
from k8s.objects import manifests, strict_yaml
from k8s.objects.findings import Finding
from k8s.objects.manifests import Manifest

POD = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n"


def objects(text: str) -> list[Manifest]:
    read = list(manifests.parse(text, "f.yaml"))
    assert all(isinstance(one, Manifest) for one in read), read
    return [one for one in read if isinstance(one, Manifest)]


def refusal(text: str) -> str:
    (finding,) = [one for one in manifests.parse(text, "f.yaml") if isinstance(one, Finding)]
    return finding.text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (POD + "spec: {a: 1, a: 2}\n", "f.yaml:5: the key a stands twice"),
        (POD + "kind: Job\n", "f.yaml:5: the key kind stands twice"),
        (POD + "x: yes\n", "f.yaml:5: yes means different things"),
        (POD + "x: Off\n", "Off means different things"),
        (POD + "x: y\n", "y means different things"),
        (POD + "x: 1_000\n", "1_000 means different things"),
        (POD + "x: 0o17\n", "0o17 means different things"),
        (POD + "x: .inf\n", ".inf means different things"),
        (POD + "x: &a 1\ny: *a\n", "f.yaml:6: an alias (*a) is used: write the value out"),
        (POD + "x: !!binary aGk=\n", "the YAML tag tag:yaml.org,2002:binary is used"),
        (POD + "x: !!python/name:os.system\n", "is used"),
        (POD + "1: x\n", "a key is not a string"),
        (POD + "x: [1\n", "not YAML"),
        (POD + "\tx: 1\n", "not YAML"),
        ("- a\n", "f.yaml:1: the document is not an object"),
        ("just text\n", "the document is not an object"),
        ("kind: Pod\n", "apiVersion missing"),
        ("{}\n", "apiVersion and kind missing"),
        ("apiVersion: v1\nkind: 5\n", "kind missing"),
        ("apiVersion: v1\nkind: PodList\nitems: {}\n", "it is no list"),
        ("apiVersion: v1\nkind: List\nitems: [{kind: Pod}]\n", "items[0]: an item without apiVersion and kind"),
        ("[" * 100_000, "not readable: RecursionError"),
        (POD + "x: a\0b\n", "not YAML: control characters are not allowed: mend the syntax"),
    ],
)
def test_refuses_yaml_that_hides_something(text: str, message: str) -> None:
    assert message in refusal(text)


def test_reads_scalars_as_kubectl_does() -> None:
    (one,) = objects(POD + 'spec: {a: 0444, b: "yes", c: 1:30, d: 2026-01-01, e: 1e3, f: ~, g: 0x1F, h: True, i: "5"}\n')
    assert one.body["spec"] == {
        "a": 0o444,
        "b": "yes",
        "c": "1:30",
        "d": "2026-01-01",
        "e": 1000.0,
        "f": None,
        "g": 31,
        "h": True,
        "i": "5",
    }


def test_passes_over_empty_documents_and_knows_each_line() -> None:
    first, second = objects("---\n# nothing\n---\n" + POD + "---\n" + POD + "spec:\n  containers:\n    - name: a\n")
    assert (first.line(), second.line()) == (4, 9)
    assert second.line(("spec", "containers", 0, "name")) == 15
    assert second.line(("spec", "containers", 0, "image")) == 15  # Absent: the nearest thing around it.


def test_takes_a_list_apart_and_keeps_its_paths() -> None:
    (one,) = objects("apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: Pod\n    metadata: {name: p}\n")
    assert one.title == "Pod p"
    assert one.finding(("spec",), "w", "f").path == "items[0].spec"


def test_paths_are_shown_as_jsonpath_writes_them() -> None:
    (one,) = objects(POD)
    shown = one.finding(("spec", "containers", 0, "resources", "limits", "nvidia.com/gpu"), "w", "f").path
    assert shown == "spec.containers[0].resources.limits['nvidia.com/gpu']"


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_place_without_manifests_is_a_usage_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=name):
        manifests.load([tmp_path / name])


def test_a_file_that_is_no_text_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    objects_, (finding,) = manifests.load([tmp_path])
    assert not objects_
    assert "a manifest is UTF-8 text" in finding.text()


NASTY = [
    "",
    "yes",
    "y",
    "on",
    "1",
    "1.0",
    "0x1",
    "017",
    "1e3",
    "1_0",
    "null",
    "~",
    "12:30:45",
    "2026-01-01",
    " a",
    "a: b",
    "#",
    "- x",
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(NASTY)
)
KEYS = st.text(min_size=1) | st.sampled_from(NASTY)
VALUES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3), max_leaves=8
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
@settings(deadline=None)
def test_what_is_written_is_read_back_by_us_and_by_any_yaml_parser(body: dict[str, Any]) -> None:
    whole = {"apiVersion": "v1", "kind": "Pod", "x": body}
    text = strict_yaml.dump([whole])
    (one,) = objects(text)
    assert one.body == whole
    assert yaml.safe_load(text) == whole
    assert strict_yaml.dump([one.body]) == text


@pytest.mark.host
def test_kubectls_own_parser_reads_what_we_write(tmp_path: Path) -> None:
    data = {f"k{number}": value for number, value in enumerate([*NASTY, "a\nb\n", "a\n\n", " x\n y", "\u2028", "a\tb", "ż: ó"])}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}
    (tmp_path / "c.yaml").write_text(strict_yaml.dump([body]))
    (tmp_path / "kustomization.yaml").write_text("resources: [c.yaml]\n")
    said = run(["kubectl", "kustomize", tmp_path], error=MissingEnvironmentError)
    assert yaml.safe_load(said.stdout) == body


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
@settings(deadline=None)
def test_any_text_gives_manifests_or_findings_never_a_crash(text: str) -> None:
    for one in manifests.parse(text, "f.yaml"):
        assert isinstance(one, Manifest) or one.text()


@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=12),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
            max_leaves=8,
        ),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["\n", " ", "", "\r\n\n"]),
    st.booleans(),
    st.sampled_from([None, 2]),
)
@settings(deadline=None)
def test_a_stream_of_json_reads_as_json(values: list[Any], between: str, ascii_only: bool, indent: int | None) -> None:
    """With every escape that a writer of JSON makes: two halves of one character, control characters, slashes."""
    bodies = [{"apiVersion": "v1", "kind": "ConfigMap", "data": value} for value in values]
    text = between.join(json.dumps(one, ensure_ascii=ascii_only, indent=indent).replace("/", "\\/") for one in bodies)
    assert [one.body for one in objects(text)] == bodies


def test_each_json_document_of_a_stream_has_its_own_lines() -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}, indent=1)
    first, second = objects(f"{text}\n{text}\n")
    assert (first.line(), second.line()) == (1, text.count("\n") + 2)
    assert second.line(("metadata", "name")) == first.line(("metadata", "name")) + text.count("\n") + 1


def test_a_byte_order_mark_may_begin_each_document() -> None:
    first, second = objects(f"\ufeff{POD}---\n\ufeff{POD}")
    assert first.body == second.body
    assert second.line(("kind",)) == 7


def test_a_key_that_stands_twice_in_json_is_refused() -> None:
    assert "the key kind stands twice" in refusal('{"apiVersion": "v1", "kind": "Pod", "kind": "Job"}')


@pytest.mark.parametrize(
    ("text", "fix"),
    [("0o440", "write 0440, or 288"), ("1_000", "write 1000, or put it in quotes"), ("yes", "put it in quotes")],
)
def test_says_how_an_ambiguous_value_is_written(text: str, fix: str) -> None:
    assert refusal(POD + f"x: {text}\n").endswith(f": {fix}")


def test_the_items_of_a_list_of_one_kind_need_not_say_what_they_are() -> None:
    (one,) = objects("apiVersion: apps/v1\nkind: DeploymentList\nitems: [{metadata: {name: a, namespace: b}}]\n")
    assert (one.api_version, one.title) == ("apps/v1", "Deployment b/a")


def test_standard_input_is_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(POD.encode())))
    (one,), refused = manifests.load([Path("-")])
    assert (one.file, one.title, refused) == ("standard-input", "Pod p", ())
