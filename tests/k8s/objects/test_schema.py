from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8s.objects import argo_schema, manifests, schema
from k8s.objects.manifests import Manifest
from k8s.prepare import admission, argo_texts
from tests.k8s.conftest import REPO

Path = tuple[str | int, ...]


@functools.cache
def good() -> tuple[Manifest, ...]:
    objects, refused = manifests.load([REPO / "manifests"])
    assert not refused
    return objects


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def spoiled(body: Any, path: Path, value: Any) -> Any:
    body = copy.deepcopy(body)
    here = body
    for step in path[:-1]:
        here = here[step]
    if path:
        here[path[-1]] = value
    return body


@given(st.data())
@settings(deadline=None)
def test_never_milder_than_kubernetes_validate_strict(data: st.DataObject) -> None:
    """Every value anywhere in the good set is replaced; where the published validator refuses, so do we."""
    one = data.draw(st.sampled_from([one for one in good() if one.api_version != argo_schema.API_VERSION]))
    path = data.draw(st.sampled_from([path for path in places(one.body) if path[:1] not in {(), ("apiVersion",), ("kind",)}]))
    value = data.draw(st.sampled_from([None, 5, -1.5, True, "text", [], ["x"], {}, {"unknown": 1}, [None], [{"name": 3}]]))
    if (path, value) == (("roleRef", "apiGroup"), None):
        return  # Absent, which the server fills in: the validator's one false alarm, below.
    body = spoiled(one.body, path, value)
    found = schema.schema("1.32").walk(Manifest("f", body, {})).findings
    refused = ""
    try:
        kubernetes_validate.validate(body, "1.32", strict=True)
    except kubernetes_validate.ValidationError as problem:
        refused = problem.message
    if refused:
        assert found, f"{path} = {value!r}: {refused}"
    else:
        # What is null though required, or no quantity, slips through the published schema.
        extra = [finding for finding in found if "required" not in finding.what and "quantity" not in finding.what]
        assert [finding for finding in extra if "empty list item" not in finding.what] == []


@pytest.mark.parametrize("version", schema.versions())
def test_the_good_set_fits_every_version(version: str) -> None:
    kinds = schema.schema(version)
    # Admission policies come with Kubernetes 1.30; before, they are left out.
    for one in argo_texts.fill(admission.known(good(), kinds)).rounds[0]:
        assert kinds.walk(one).findings == []
    assert len(admission.known(good(), kinds)) == len(good()) - (4 if int(version.split(".")[1]) < 30 else 0)


@pytest.mark.parametrize("version", ["1.32", schema.versions()[-1]])
@pytest.mark.filterwarnings("error")
def test_the_published_validator_accepts_the_set_and_the_examples(version: str) -> None:
    examples, refused = manifests.load([REPO / "examples"])
    assert not refused
    for one in (*good(), *examples):
        if one.api_version == argo_schema.API_VERSION:
            continue  # It knows Kubernetes' own kinds.
        kubernetes_validate.validate(one.body, version, strict=True)


def test_a_role_binding_without_api_group_is_no_false_alarm() -> None:
    text = "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: a, namespace: b}\n"
    (one,) = manifests.parse(text + "roleRef: {kind: Role, name: r}\n", "f")
    assert isinstance(one, Manifest)
    assert schema.schema("1.32").walk(one).findings == []
    with pytest.raises(kubernetes_validate.ValidationError, match="apiGroup"):
        kubernetes_validate.validate(one.body, "1.32", strict=True)


def test_all_mistakes_are_reported_at_once() -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, nme: x}\nspec:\n  containers:\n    - {image: 5, imagePull: x}\n"
    (one,) = manifests.parse(text, "f.yaml")
    assert isinstance(one, Manifest)
    found = [finding.text() for finding in schema.schema("1.32").walk(one).findings]
    assert found == [
        "f.yaml:3: Pod p: metadata.nme: unknown field of ObjectMeta: did you mean name?",
        "f.yaml:6: Pod p: spec.containers[0].name: required and missing: write it",
        "f.yaml:6: Pod p: spec.containers[0].image: expected str, got int 5: put it in quotes",
        "f.yaml:6: Pod p: spec.containers[0].imagePull: unknown field of Container: did you mean imagePullPolicy?",
    ]


@pytest.mark.parametrize("version", schema.versions())
def test_short_definition_names_mean_one_type_where_rules_use_them(version: str) -> None:
    """Rules speak of `Container`; that must not be ambiguous, but for one type in several versions of its API."""
    from k8s.prepare.image_texts import FALSE_FRIENDS, IMAGE_FIELDS
    from k8s.rules import references

    used = (
        {owner for owner, _ in IMAGE_FIELDS | FALSE_FRIENDS}
        | set(references._REFERENCES)
        | {"PodSpec", "ObjectMeta"}
        | {"IngressServiceBackend", "IngressTLS"}
    )
    for short in used:
        full = [name for name in schema.schema(version).definitions if name.rsplit(".", 1)[1] == short]
        assert len({name.rsplit(".", 2)[0] for name in full}) <= 1, full
