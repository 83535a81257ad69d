from __future__ import annotations

from typing import Any

import pytest

from k8s.rollouts import diff
from k8s.rollouts.diff import Owner


def shown(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [line for one in diff.between(before, after) for line in one.lines()]


def containers(*items: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": list(items)}}


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 → 2"]),
        ({}, {"a": {"b": True}}, ['a: (none) → {"b": true}']),
        ({"data": {"x.yaml": "a"}}, {"data": {"x.yaml": "b"}}, ["data['x.yaml']: a → b"]),
        ({"d": {"f": "a: 1\nb: 2\n"}}, {"d": {"f": "a: 1\nb: 3\n"}}, ["d.f:", "  - b: 2", "  + b: 3"]),
        (containers({"name": "x", "image": "i"}), containers({"name": "x", "image": "j"}), ["spec.containers[x].image: i → j"]),
        (
            containers({"name": "x"}),
            containers({"name": "new"}, {"name": "x"}),
            ['spec.containers[new]: (none) → {"name": "new"}'],
        ),
        (
            containers({"name": "x"}, {"name": "y"}),
            containers({"name": "y"}, {"name": "x"}),
            ['spec.containers (order): ["x", "y"] → ["y", "x"]'],
        ),
        ({"args": ["a", "b"]}, {"args": ["a", "c", "d"]}, ["args[1]: b → c", "args[2]: (none) → d"]),
        ({"args": ["a"]}, {"args": []}, ['args: ["a"] → []']),
        ({"a": "x" * 500}, {"a": 1}, ["a: " + "x" * 159 + "… → 1"]),
    ],
)
def test_fields_are_named_as_people_name_them(before: dict[str, Any], after: dict[str, Any], lines: list[str]) -> None:
    assert shown(before, after) == lines


def test_what_the_server_writes_is_no_difference() -> None:
    before = {"metadata": {"name": "x", "resourceVersion": "1", "uid": "u", "generation": 1}, "status": {"a": 1}}
    assert shown(before, {"metadata": {"name": "x", "resourceVersion": "2", "managedFields": []}}) == []


def test_a_secret_shows_no_value() -> None:
    (one,) = diff.between({"data": {"KEY": "b2xk"}}, {"data": {"KEY": "bmV3"}})
    assert one.lines(hidden=True) == ["data.KEY: (hidden) → (hidden)"]


LIVE: dict[str, Any] = {
    "metadata": {
        "managedFields": [
            {
                "manager": "pinwheel",
                "fieldsV1": {"f:spec": {"f:containers": {'k:{"name":"x"}': {".": {}, "f:name": {}, "f:args": {}}}}},
            },
            {"manager": "kubectl-edit", "time": "T", "fieldsV1": {"f:spec": {"f:replicas": {}, "f:items": {'v:"a"': {}}}}},
        ]
    },
    "spec": {"containers": [{"name": "y"}, {"name": "x", "args": ["1"], "image": "i"}], "replicas": 3, "items": ["a"]},
}


@pytest.mark.parametrize(
    ("path", "owners"),
    [
        (("spec", "replicas"), [Owner("kubectl-edit", "T")]),
        (("spec", "containers", 1, "args", 0), [Owner("pinwheel", "")]),
        (("spec", "containers", 1, "image"), []),
        (("spec", "containers", 0, "args"), []),
        (("spec", "items", 0), [Owner("kubectl-edit", "T")]),
        (("spec", "containers", None), []),
        (("metadata", "labels"), []),
    ],
)
def test_owners_are_read_from_the_servers_book(path: tuple[Any, ...], owners: list[Owner]) -> None:
    assert diff.owners(LIVE, path) == owners


def test_the_fields_of_a_manager_are_listed() -> None:
    assert list(diff.fields(LIVE["metadata"]["managedFields"][0])) == [
        ("spec", "containers", "x", "args"),
        ("spec", "containers", "x", "name"),
    ]
