"""The set's own admission policies: what they cover by the schema, and what the environment writes into them.

What the real server makes of them is in tests/k8s/single_node/test_admission.py.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from k8s.envs import environment
from k8s.envs.environment import Environment
from k8s.envs.network import Network
from k8s.objects import schema
from k8s.objects.manifests import Manifest
from k8s.pipeline import model_annotation, promote
from k8s.prepare import admission
from tests.k8s.conftest import API, Checkout
from tests.k8s.shipped.test_boundaries import NAMESPACES, good, of, spec
from tests.k8s.single_node import admission as attempted

OTHER = f"quay.io/acme/door@sha256:{'e' * 64}"
VERSIONS = [one for one in schema.versions() if int(one.split(".")[1]) >= 30]


def policy(name: str) -> Any:
    (found,) = [one for one in of("ValidatingAdmissionPolicy") if one.name == name]
    return spec(found)


def variables(objects: tuple[Manifest, ...], name: str) -> dict[str, str]:
    (found,) = [one for one in objects if admission.is_policy(one) and one.name == name]
    return {one["name"]: one["expression"] for one in found.body["spec"]["variables"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_policies_fit_the_schema(version: str) -> None:
    kinds = schema.schema(version)
    admitted = [one for one in good() if one.kind.startswith("ValidatingAdmissionPolicy")]
    assert len(admitted) == 4
    assert [finding.text() for one in admitted for finding in kinds.walk(one).findings] == []


def test_every_policy_is_bound_denies_and_fails_closed() -> None:
    names = {one.name for one in of("ValidatingAdmissionPolicy")}
    assert names == {"pinwheel-images", "pinwheel-model-deployer"}
    assert all(policy(name)["failurePolicy"] == "Fail" for name in names)
    assert {spec(one)["policyName"] for one in of("ValidatingAdmissionPolicyBinding")} == names
    assert all(spec(one)["validationActions"] == ["Deny"] for one in of("ValidatingAdmissionPolicyBinding"))


def test_images_are_judged_where_our_pods_run() -> None:
    (binding,) = [one for one in of("ValidatingAdmissionPolicyBinding") if one.name == "pinwheel-images"]
    (rule,) = spec(binding)["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert (rule["key"], rule["operator"]) == ("kubernetes.io/metadata.name", "In")
    # The controller of Argo is its publisher's release.
    assert set(rule["values"]) == set(NAMESPACES) - {"llm-argo"}


def test_everything_that_makes_pods_is_judged() -> None:
    rules = policy("pinwheel-images")["matchConstraints"]["resourceRules"]
    judged = {(group, resource) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"]}
    makes = {
        (api.rpartition("/")[0], f"{kind.lower()}s")
        for (api, kind), name in schema.schema(VERSIONS[-1]).kinds.items()
        if "PodTemplateSpec" in _below(name, VERSIONS[-1]) and not kind.endswith("List")
    }
    assert judged == {*makes, ("", "pods"), ("", "pods/ephemeralcontainers")}


def _below(name: str, version: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """The short names of the definitions below one."""
    if name in seen:
        return set()
    text = json.dumps(schema.schema(version).definitions[name].get("properties", {}))
    found = set(re.findall(r"#/\$defs/([\w.-]+)", text))
    inner = {short for one in found for short in _below(one, version, seen | {name})}
    return {one.rsplit(".", 1)[1] for one in found} | inner


def test_every_place_of_a_pod_with_an_image_is_judged() -> None:
    expression = next(one["expression"] for one in policy("pinwheel-images")["variables"] if one["name"] == "images")
    for place in ("containers", "initContainers", "ephemeralContainers", "volumes"):
        assert f"has(variables.pod.{place})" in expression


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_of_a_deployment_is_compared_or_let_change_on_purpose(version: str) -> None:
    rules = " ".join(one["expression"] for one in policy("pinwheel-model-deployer")["validations"])
    fields = schema.schema(version).definitions["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]
    assert {name for name in fields if f"object.spec.{name}" not in rules} == {"template"}
    pod = schema.schema(version).definitions["io.k8s.api.core.v1.PodTemplateSpec"]["properties"]
    assert set(pod) == {"metadata", "spec"}
    assert "variables.podNow == variables.podBefore" in rules


def test_the_policy_lets_change_what_the_deploy_step_changes() -> None:
    rules = " ".join(one["expression"] for one in policy("pinwheel-model-deployer")["validations"])
    assert f'k == "{model_annotation.ANNOTATION}"' in rules
    assert f'k == "{promote.BEFORE}"' in rules
    (condition,) = policy("pinwheel-model-deployer")["matchConditions"]
    assert "system:serviceaccount:llm-training:model-deployer" in condition["expression"]
    assert any((one.namespace, one.name) == ("llm-training", "model-deployer") for one in of("ServiceAccount"))


def test_as_they_stand_they_let_nothing_in() -> None:
    assert variables(good(), "pinwheel-images")["registry"] == '"nothing.invalid/"'
    assert variables(good(), "pinwheel-model-deployer")["registry"] == '"nothing.invalid/"'


@pytest.fixture
def staging(checkout: Checkout) -> Environment:
    return environment.load("staging")


def test_the_environment_stands_in_the_policies_that_are_sent(checkout: Checkout, staging: Environment) -> None:
    rendered, found = checkout.check(staging)
    assert found == ()
    for name in ("pinwheel-images", "pinwheel-model-deployer"):
        assert variables(rendered.objects, name)["registry"] == '"registry.example.com/llm/"'
    assert variables(rendered.objects, "pinwheel-images")["others"] == '[""].filter(i, false)'
    assert variables(rendered.objects, "pinwheel-images")["local"] == '[""].filter(i, false)'


def test_allowed_images_stand_in_the_policy_and_so_do_those_of_the_set(checkout: Checkout, staging: Environment) -> None:
    entry = f"other-images: [{{reference: {OTHER}, reason: r, until: 2999-01-01}}]\n"
    file = checkout.root / "k8s/envs/staging.yaml"
    file.write_text(file.read_text() + entry)
    used = f"quay.io/acme/used:v1@sha256:{'d' * 64}"
    checkout.edit("deployment.yaml", f"image: {API}\n", f"image: {used}\n")
    rendered, _ = checkout.check("staging")
    assert json.loads(variables(rendered.objects, "pinwheel-images")["others"]) == [OTHER, used]


def test_only_on_this_machine_is_an_image_taken_that_no_registry_has(checkout: Checkout) -> None:
    local = environment.load("local")
    # Its authority is made with the cluster, which need not be up.
    env = dataclasses.replace(local, settings=environment.load("staging").settings, network=Network(local.registry))
    rendered, found = checkout.check(env)
    assert [one.text() for one in found] == []
    assert variables(rendered.objects, "pinwheel-images")["local"] == '["localhost/pinwheel/"]'


def test_an_address_in_the_environment_cannot_write_a_rule(checkout: Checkout, staging: Environment) -> None:
    made = admission.fill(good(), (), dataclasses.replace(staging, registry='r.example/" + "x'))
    assert json.loads(variables(made, "pinwheel-images")["registry"]) == 'r.example/" + "x/'


def test_a_policy_names_no_image_that_is_pinned_or_asked_for(checkout: Checkout) -> None:
    rendered, _ = checkout.check("staging")
    assert not [pin for pin in rendered.pins if "Admission" in pin.title]


def test_what_the_real_server_is_sent_is_right_but_for_its_images() -> None:
    """So that it refuses nothing for another reason."""
    kinds = schema.schema(VERSIONS[-1])
    attempts = [*attempted.images(), *attempted.promotions(attempted.deployment())]
    assert {one.allowed for one in attempts} == {True, False}
    wrong = [finding.text() for one in attempts for finding in kinds.walk(Manifest("f", one.body, {})).findings]
    assert wrong == []
