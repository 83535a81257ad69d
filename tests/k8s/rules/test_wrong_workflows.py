"""Each way to spoil a workflow is refused with file, object, path and fix."""

from __future__ import annotations

import pytest

from tests.k8s.conftest import API, Checkout
from tests.k8s.rules.flows import AROUND, FLOW, ORIGINAL, RUN, TRAIN, findings

AT = "WorkflowTemplate flows/flow: spec."
SECURE = "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}"
TIDY = f'command: [python, /x.py, "{{{{workflow.status}}}}"]\n        {SECURE}'
MAKE = "templates[1].container"
TOKEN = "env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: s, key: k, optional: true}}}]"
NEXT = "          ---\n          apiVersion: batch/v1\n          kind: Job\n"
JOB = "Job flows/job-{{workflow.name}}: spec.templates[5].resource.manifest[0]"
DAG = "templates[3].dag.tasks"

# Named after the defect: what is replaced by what, the path and what is wrong, and the fix.
SPOILED = {
    # The schema.
    "field_misspelt": (
        "      podSpecPatch: |",
        "      podSpecPath: |",
        f"{AT}templates[2].podSpecPath: unknown field of Template",
        "did you mean podSpecPatch?",
    ),
    "namespace_of_a_template": (
        "    - name: tidy\n",
        "    - name: tidy\n      metadata: {namespace: other}\n",
        f"{AT}templates[6].metadata.namespace: a template's namespace moves nothing",
        "put the workflow and all it mounts into one namespace",
    ),
    "name_generated": (
        "{name: flow, ",
        "{generateName: flow-, ",
        "generateName can be created but not applied",
        "give it a name",
    ),
    "quantity_wrong": ("memory: 2Gi", "memory: 2GB", f"{AT}{MAKE}.resources.limits.memory: '2GB' is not a", "16Gi"),
    # Images.
    "image_by_tag": (
        f"image: {TRAIN}\n        command: [bash",
        f"image: my/{TRAIN}:latest\n        command: [bash",
        f"{MAKE}.image",
        "write the bare name",
    ),
    "image_made_of_parts": (
        '"{{workflow.parameters.tool}}"',
        '"x/{{workflow.parameters.tool}}"',
        "templates[2].script.image: the image 'x/{{workflow.parameters.tool}}' cannot be followed",
        "write the image itself",
    ),
    "image_of_an_output": (
        '"{{workflow.parameters.tool}}"',
        '"{{steps.make.outputs.result}}"',
        "templates[2].script.image: the image '{{steps.make.outputs.result}}' cannot be followed",
        "whose values stand in this set",
    ),
    "image_of_a_loop": (
        'image: "{{inputs.parameters.image}}"',
        'image: "{{item}}"',
        "templates[4].container.image: the image '{{item}}' cannot be followed",
        "write the image itself",
    ),
    "image_of_a_parameter_that_nobody_gives": (
        f"        value: {TRAIN}\n",
        "",
        "templates[2].script.image: the image '{{workflow.parameters.tool}}' cannot be followed: nothing in this set gives it",
        "write the image itself",
    ),
    "image_of_a_parameter_from_a_config_map": (
        f"        value: {TRAIN}\n",
        "        valueFrom: {configMapKeyRef: {name: programs, key: run.py}}\n",
        f"{AT}arguments.parameters[1].valueFrom: an image comes from here",
        "whose values stand in this set",
    ),
    "image_of_a_parameter_by_tag": (
        f"        value: {TRAIN}\n",
        f"        value: {TRAIN}:v1\n",
        f"{AT}arguments.parameters[1].value: {TRAIN}:v1 is not pinned",
        f"write the bare name `{TRAIN}`",
    ),
    "image_of_a_choice_by_tag": (
        f"        value: {TRAIN}\n",
        f"        value: {TRAIN}\n        enum: [{TRAIN}, 'nginx:1']\n",
        f"{AT}arguments.parameters[1].enum[1]: nginx:1 is not pinned",
        "write it with its digest",
    ),
    "image_handed_over_by_tag": (
        f"[{{name: image, value: {API}}}",
        "[{name: image, value: 'nginx:1'}",
        f"{AT}{DAG}[1].arguments.parameters[0].value: nginx:1 is not pinned",
        "write it with its digest",
    ),
    "image_as_the_default_of_an_input": (
        "      - name: image\n",
        "      - name: image\n            default: nginx:1\n",
        "templates[4].inputs.parameters[0].default: nginx:1 is not pinned",
        "write it with its digest",
    ),
    "image_in_a_manifest_by_tag": (f"image: {API}\n", "image: nginx:1\n", "nginx:1 is not pinned", "write it with its digest"),
    "image_in_a_patch_by_tag": (
        "          - name: main\n",
        "          - name: main\n            image: nginx:1\n",
        f"{AT}templates[2].podSpecPatch.containers[0].image: nginx:1 is not pinned",
        "write it with its digest",
    ),
    "image_in_an_argument": (
        'value: "{{workflow.parameters.version}}"',
        "value: quay.io/x/y:1",
        "'quay.io/x/y:1' looks like an image",
        "name images only where Kubernetes",
    ),
    "image_in_a_script": (
        "          echo used\n",
        f"          echo used; docker run x/{API}:1\n",
        f"templates[2].script.source: 'x/{API}:1' looks like an image",
        "name images only",
    ),
    "manifest_from_an_artifact": (
        "        manifest: |\n          apiVersion: batch/v1\n",
        "        manifestFrom: {artifact: {name: x, raw: {data: z}}}\n        manifest: |\n          apiVersion: batch/v1\n",
        "resource.manifestFrom: a manifest from an artifact",
        "write it in `manifest`",
    ),
    "manifest_that_is_no_yaml": (
        '            name: "job-{{workflow.name}}"\n',
        "            name: {{workflow.parameters.version}}\n",
        f"{AT}templates[5].resource.manifest: the value of {{{{workflow.parameters.version}}}} is known only when it runs",
        "take a parameter whose values stand in this set",
    ),
    "manifest_of_an_unknown_kind": (
        "          apiVersion: batch/v1\n",
        "          apiVersion: batch/v7\n",
        "no schema for batch/v7 Job",
        "write apiVersion batch/v1",
    ),
    "manifest_with_a_misspelt_field": (
        "                restartPolicy: Never\n",
        "                restartPolice: Never\n",
        f"{JOB}.spec.template.spec.restartPolice: unknown field of PodSpec",
        "did you mean restartPolicy?",
    ),
    "manifest_of_what_the_set_has": (
        "          apiVersion: batch/v1\n          kind: Job\n",
        "          {apiVersion: v1, kind: ServiceAccount, metadata: {name: runner, namespace: flows}}\n" + NEXT,
        "the workflow sends ServiceAccount flows/runner, which flows/0.yaml:7 has as well",
        "keep it in the set",
    ),
    "manifest_with_a_secret": (
        "          apiVersion: batch/v1\n          kind: Job\n",
        "          {apiVersion: v1, kind: Secret, metadata: {name: s, namespace: flows}, stringData: {a: b}}\n" + NEXT,
        "manifest[0].stringData: a secret's value stands in a manifest",
        "make it outside of git",
    ),
    "manifest_with_an_absent_reference": (
        f"                    image: {API}\n",
        f"                    image: {API}\n                    envFrom: [{{secretRef: {{name: absent}}}}]\n",
        f"{JOB}.spec.template.spec.containers[0].envFrom[0].secretRef.name: no Secret flows/absent",
        "make it outside of git",
    ),
    "manifest_of_an_open_pod": (
        "{runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}\n",
        "{seccompProfile: {type: RuntimeDefault}}\n",
        f"{JOB}.spec.template.spec.containers[0].securityContext.runAsNonRoot",
        "write runAsNonRoot: true",
    ),
    "patch_that_is_no_mapping": (
        "      podSpecPatch: |\n        containers:\n          - name: main\n            resources: {limits: {memory: 4Gi}}\n",
        "      podSpecPatch: text\n",
        f"{AT}templates[2].podSpecPatch: cannot be read: it is no mapping",
        "mend the text",
    ),
    "patch_of_no_container": (
        "          - name: main\n            resources",
        "          - resources",
        "podSpecPatch.containers[0].name: required and missing",
        "write it",
    ),
    "patch_that_opens_the_node": (
        "        containers:\n          - name: main\n",
        "        hostNetwork: true\n        containers:\n          - name: main\n",
        f"{AT}templates[2].podSpecPatch.hostNetwork: hostNetwork is set",
        "remove it",
    ),
    "patch_of_all_pods": (
        "  onExit: tidy\n",
        "  onExit: tidy\n  podSpecPatch: 'hostPID: true'\n",
        f"{AT}podSpecPatch.hostPID: hostPID is set",
        "remove it",
    ),
    "patch_of_the_nodes": (
        "    - name: make\n      inputs",
        "    - name: make\n      podSpecPatch: 'nodeSelector: {a: b}'\n      inputs",
        f"{AT}templates[1].podSpecPatch.nodeSelector: a patch of nodeSelector would undo the choice of nodes",
        "write nodeSelector in the template",
    ),
    # What a run needs to end.
    "no_deadline": ("  activeDeadlineSeconds: 3600\n", "", f"{AT}activeDeadlineSeconds: no deadline", "write the seconds"),
    "no_ttl": (
        "  ttlStrategy: {secondsAfterCompletion: 86400}\n",
        "",
        f"{AT}ttlStrategy: finished runs are never removed",
        "secondsAfterFailure",
    ),
    "no_pod_gc": (
        "  podGC: {strategy: OnWorkflowSuccess}\n",
        "",
        f"{AT}podGC: the pods of finished runs are never removed",
        "OnWorkflowSuccess",
    ),
    "no_account": (
        "  serviceAccountName: runner\n",
        "",
        f"{AT}serviceAccountName: the pods run as the namespace's default",
        "write a ServiceAccount",
    ),
    # Templates and what calls them.
    "entrypoint_absent": (
        "entrypoint: main",
        "entrypoint: start",
        f"{AT}entrypoint: no template start",
        "templates are: graph, main, make, send, step, tidy, use",
    ),
    "exit_handler_absent": ("onExit: tidy", "onExit: clean", f"{AT}onExit: no template clean", "templates are: "),
    "template_absent": (
        "template: graph",
        "template: grap",
        f"{AT}templates[0].steps[1][1].template: no template grap",
        "templates are: ",
    ),
    "template_of_another_absent": (
        "            template: graph\n",
        "            templateRef: {name: other, template: x}\n",
        "steps[1][1].templateRef: no template other/x",
        "add it to the set",
    ),
    "template_named_twice": (
        "    - name: tidy\n",
        "    - name: graph\n",
        f"{AT}templates[6].name: the template graph stands twice",
        "another name",
    ),
    "template_that_is_nothing": (
        "    - name: tidy\n      container:\n",
        "    - name: tidy\n    - name: rest\n      container:\n",
        f"{AT}templates[6]: a template that is nothing",
        "write exactly one of container",
    ),
    "template_that_is_two_things": (
        "    - name: tidy\n",
        "    - name: tidy\n      suspend: {}\n",
        f"{AT}templates[6]: a template that is container and suspend",
        "write exactly one",
    ),
    "template_without_a_name": (
        "    - name: tidy\n",
        "    - name: tidy\n      suspend: {duration: '1'}\n    - \n",
        "a template without a name",
        "give it one",
    ),
    "step_that_calls_nothing": (
        "            template: graph\n",
        "",
        f"{AT}templates[0].steps[1][1]: calls nothing",
        "exactly one of template",
    ),
    "step_named_twice": (
        "- name: graph\n            template",
        "- name: use\n            template",
        f"{AT}templates[0].steps[1][1].name: the step use stands twice",
        "another name",
    ),
    "argument_that_nobody_takes": (
        "- name: what\n                  value",
        "- name: hwat\n                  value",
        "steps[0][0].arguments.parameters[0].name: hands over the parameter hwat, which the template make does not take",
        "its inputs are: what, size",
    ),
    "input_that_nobody_gives": (
        "      - name: size\n            default: small\n",
        "      - name: size\n",
        "templates[0].steps[0][0]: the template make takes the parameter size, and gets none",
        "hand it over: arguments: {parameters: [{name: size",
    ),
    "input_artifact_that_nobody_gives": (
        "    - name: make\n      inputs:\n",
        "    - name: make\n      inputs:\n        artifacts: [{name: data, path: /data}]\n",
        "the template make takes the artifact data, and gets none",
        "hand it over: arguments: {artifacts",
    ),
    "input_twice": (
        "          - name: size\n",
        "          - name: what\n",
        "templates[1].inputs.parameters[1].name: the input what stands twice",
        "another name",
    ),
    "dependency_absent": (
        "depends: first.Succeeded",
        "depends: fist.Succeeded",
        f"{AT}{DAG}[1].depends: depends on fist, which is no task here",
        "tasks are: first, second, third",
    ),
    "dependency_on_itself": (
        "          - name: first\n",
        "          - name: first\n            dependencies: [third]\n",
        f"{AT}{DAG}[0]: the task first waits for itself",
        "break the circle",
    ),
    "dependencies_in_two_ways": (
        "depends: first.Succeeded\n",
        "depends: first.Succeeded\n            dependencies: [first]\n",
        f"{AT}{DAG}[1].dependencies: both depends and dependencies",
        "keep depends",
    ),
    # {{…}}
    "parameter_of_the_workflow_absent": (
        "config-{{workflow.parameters.version}}",
        "config-{{workflow.parameters.verison}}",
        f"{AT}volumes[1].configMap.name: {{{{workflow.parameters.verison}}}} is no parameter of the workflow",
        "the workflow's are: version, tool",
    ),
    "input_absent": (
        "{{inputs.parameters.size}}",
        "{{inputs.parameters.sise}}",
        f"{MAKE}.args[0]: {{{{inputs.parameters.sise}}}} is no input of its template (sise)",
        "its inputs are: what, size",
    ),
    "input_absent_in_an_expression": (
        "sprig.lower(inputs.parameters.word)",
        "sprig.lower(inputs.parameters['wort'])",
        "is no input of its template (wort)",
        "its inputs are: image, word",
    ),
    "input_outside_of_a_template": (
        "config-{{workflow.parameters.version}}",
        "config-{{inputs.parameters.version}}",
        f"{AT}volumes[1].configMap.name: {{{{inputs.parameters.version}}}} stands outside of a template",
        "write workflow.parameters",
    ),
    "output_absent": (
        "steps.make.outputs.parameters.made",
        "steps.make.outputs.parameters.mad",
        "is no output of the step make (mad)",
        "its outputs are: made",
    ),
    "step_absent": (
        "steps.make.outputs",
        "steps.mak.outputs",
        "steps[1][0].arguments.parameters[0].value: {{steps.mak.outputs.parameters.made}} is no step of its template (mak)",
        "its steps are: make, use, graph, send",
    ),
    "step_that_comes_later": (
        "{{steps.make.outputs.parameters.made}}",
        "{{steps.send.status}}",
        "is not done by then: the step send does not come before this one",
        "write it as an earlier step",
    ),
    "task_that_is_not_waited_for": (
        'value: "{{item}}"',
        'value: "{{tasks.third.status}}"',
        "is not done by then: the task third",
        "write depends: third",
    ),
    "item_without_a_loop": (
        "            withItems: [a, b]\n",
        "",
        f"{AT}{DAG}[1].arguments.parameters[1].value: {{{{item}}}} stands in no step with a loop",
        "withItems",
    ),
    "variable_that_means_nothing": ("{{workflow.name}}", "{{wf.name}}", "{{wf.name}} means nothing", "write workflow.…"),
    "variable_of_the_run_that_means_nothing": (
        "{{workflow.name}}",
        "{{workflow.title}}",
        "{{workflow.title}} means nothing",
        "of a workflow there is: ",
    ),
    "variable_never_closed": ("{{workflow.name}}", "{{workflow.name", "{{workflow.name is never closed", "write }}"),
    "status_before_the_end": (
        "  onExit: tidy\n",
        "",
        "{{workflow.status}} is known only at the end",
        "use it in a template that onExit",
    ),
    # References within the namespace.
    "account_absent": (
        "serviceAccountName: runner",
        "serviceAccountName: argo-workflow-sa",
        f"{AT}serviceAccountName: no ServiceAccount flows/argo-workflow-sa",
        "add it to the set",
    ),
    "account_of_a_template_absent": (
        "    - name: tidy\n",
        "    - name: tidy\n      serviceAccountName: sa\n",
        f"{AT}templates[6].serviceAccountName: no ServiceAccount flows/sa",
        "add it to the set",
    ),
    "claim_absent": (
        "claimName: work",
        "claimName: wrok",
        f"{AT}volumes[0].persistentVolumeClaim.claimName: no PersistentVolumeClaim flows/wrok",
        "mend the name",
    ),
    "config_map_absent": (
        "config-{{workflow.parameters.version}}",
        "config",
        f"{AT}volumes[1].configMap.name: no ConfigMap flows/config",
        "mend the name",
    ),
    "mount_without_volume": (
        "- name: config\n            mountPath",
        "- name: conf\n            mountPath",
        f"{AT}{MAKE}.volumeMounts[1].name: mounts 'conf', which is no volume",
        "volumes are: config, work",
    ),
    # Pods.
    "root": (
        "    runAsNonRoot: true\n",
        "",
        f"{AT}templates[6].container.securityContext.runAsNonRoot: runAsNonRoot is not true, and the namespace flows enforces",
        "write runAsNonRoot: true",
    ),
    "root_by_the_template": (
        "    - name: tidy\n",
        "    - name: tidy\n      securityContext: {runAsUser: 0}\n",
        f"{AT}templates[6].container.securityContext.runAsUser: it runs as root",
        "10001",
    ),
    "sidecar_with_capabilities": (
        f"        - name: helper\n          image: {TRAIN}\n          {SECURE}",
        f"        - name: helper\n          image: {TRAIN}",
        f"{AT}templates[4].sidecars[0].securityContext.capabilities.drop: it keeps capabilities",
        "drop",
    ),
    "init_container_with_capabilities": (
        f"        - name: prepare\n          image: {TRAIN}\n          {SECURE}",
        f"        - name: prepare\n          image: {TRAIN}",
        f"{AT}templates[4].initContainers[0].securityContext.capabilities.drop",
        "drop",
    ),
    "directory_of_the_node": (
        "persistentVolumeClaim: {claimName: work}",
        "hostPath: {path: /}",
        f"{AT}volumes[0].hostPath: a hostPath volume, and the namespace flows enforces",
        "use a claim",
    ),
    "gpu_limit_is_not_request": (
        'limits: {nvidia.com/gpu: "1"',
        'limits: {nvidia.com/gpu: "2"',
        f"{AT}{MAKE}.resources.requests['nvidia.com/gpu']",
        "same number",
    ),
    "limit_below_request": ("memory: 2Gi", "memory: 512Mi", "memory: request 1Gi is more than limit 512Mi", "raise the limit"),
    "secret_in_argv": (
        TIDY,
        f"command: [python, /x.py, $(TOKEN)]\n        {TOKEN}\n        {SECURE}",
        f"{AT}templates[6].container.command[2]: the secret TOKEN would stand in the command line",
        "mount a file",
    ),
    # Scripts.
    "failure_hidden_by_what_comes_after": (
        TIDY,
        f'command: [bash, -c]\n        args: ["train /x; echo done"]\n        {SECURE}',
        f"{AT}templates[6].container.args[0]: the script hides a failure: `train /x` may fail, and what comes after it goes on",
        "begin with `set -eo pipefail`",
    ),
    "failure_hidden_by_a_pipe": (
        "            set -eo pipefail\n",
        "            set -e\n",
        "may fail before the pipe",
        "set -eo pipefail",
    ),
    "failure_hidden_by_true": (
        TIDY,
        f'command: [sh, -ec, "train || true"]\n        {SECURE}',
        "`train` may fail, and `true` hides it",
        "join the commands by &&",
    ),
    "failure_hidden_in_a_script": (
        "command: [bash, -e]",
        "command: [bash]",
        f"{AT}templates[2].script.source: the script hides a failure",
        "begin with",
    ),
    "curl_that_takes_error_pages": (
        "curl --fail --location",
        "curl --location",
        f"{AT}{MAKE}.args[0]: curl without --fail",
        "write curl --fail --location",
    ),
    "curl_without_a_shell": (
        TIDY,
        f'command: [curl, -Lo, /x, "https://example.com"]\n        {SECURE}',
        "curl without --fail",
        "write curl --fail",
    ),
    "secret_in_the_argv_of_a_script": (
        TIDY,
        f'command: [sh, -c, "exec curl -fu me:$TOKEN https://example.com"]\n        {TOKEN}\n        {SECURE}',
        f"{AT}templates[6].container.command[2]: the secret TOKEN stands in the command line of `curl`",
        "mount a file",
    ),
}


@pytest.mark.parametrize("defect", SPOILED)
def test_refuses(checkout: Checkout, defect: str) -> None:
    old, new, what, fix = SPOILED[defect]
    assert old in FLOW
    found = findings(checkout, AROUND, FLOW.replace(old, new, 1))
    assert any(what in text and fix in text for text in found), found
    assert all(text.startswith("flows/1.yaml:") for text in found), found


RUNS = {
    "value_missing": (
        ", value: run-1}",
        "}",
        "Workflow flows/run-1: spec.arguments.parameters[0]: the argument version has no value",
    ),
    "parameter_missing": (
        "      - {name: version, value: run-1}\n",
        "      - {name: tool, value: llama-factory-train}\n",
        "Workflow flows/run-1: spec.arguments: WorkflowTemplate flows/flow takes the parameter version, and gets none",
    ),
    "parameter_misspelt": (
        "name: version,",
        "name: verison,",
        "spec.arguments.parameters[0].name: hands over the parameter verison, which WorkflowTemplate flows/flow does not take",
    ),
    "image_by_tag": (
        "value: run-1}",
        "value: run-1}\n      - {name: tool, value: 'nginx:1'}",
        "spec.arguments.parameters[1].value: nginx:1 is not pinned",
    ),
}


@pytest.mark.parametrize("defect", RUNS)
def test_refuses_a_run_of_a_template(checkout: Checkout, defect: str) -> None:
    old, new, message = RUNS[defect]
    assert old in RUN
    found = findings(checkout, AROUND, FLOW, RUN.replace(old, new, 1))
    assert any(message in text for text in found), found


def test_a_run_may_name_another_entrypoint_of_its_template(checkout: Checkout) -> None:
    assert findings(checkout, AROUND, FLOW, f"{RUN}  entrypoint: graph\n") == []
    (found,) = findings(checkout, AROUND, FLOW, f"{RUN}  entrypoint: grap\n")
    assert "spec.entrypoint: no template grap" in found


def test_a_run_of_a_template_that_is_deployed_elsewhere_is_refused_and_judged_as_far_as_it_can_be(checkout: Checkout) -> None:
    (found,) = findings(checkout, AROUND, RUN)
    assert "spec.workflowTemplateRef: no WorkflowTemplate flow in this set: nobody checked it" in found
    found = "\n".join(findings(checkout, AROUND, RUN.replace("value: run-1", "value: 'quay.io/x/y:1'")))
    assert "looks like an image" in found


def test_a_workflow_needs_an_entrypoint(checkout: Checkout) -> None:
    text = FLOW.replace("kind: WorkflowTemplate", "kind: Workflow").replace("  entrypoint: main\n", "")
    assert any("spec.entrypoint: no entrypoint" in one for one in findings(checkout, AROUND, text))


def test_the_workflow_of_the_original_specification_is_refused_for_each_of_its_defects(checkout: Checkout) -> None:
    """Its §3.2, word for word."""
    text = "\n".join(findings(checkout, ORIGINAL))
    for defect in (
        "generateName can be created but not applied",
        "no ServiceAccount llm-argo/argo-workflow-sa",
        "templates[1].metadata.namespace: a template's namespace moves nothing",
        "templates[2].metadata.namespace: a template's namespace moves nothing",
        "templates[0].steps[0][0]: the template download-base-model takes the parameter base-model-url, and gets none",
        "templates[0].steps[2][0]: the template deploy-inference takes the parameter target-model-name, and gets none",
        "templates[1].container.args[0]: curl without --fail",
        "the secret ARTIFACTORY_PASSWORD stands in the command line of `curl`",
        "templates[1].container.args[0]: the script hides a failure: `mkdir -p /models/base-model` may fail",
        "templates[2].container.args[0]: the script hides a failure",
        "spec.activeDeadlineSeconds: no deadline",
        "spec.ttlStrategy: finished runs are never removed",
        "spec.podGC: the pods of finished runs are never removed",
        "curlimages/curl:8.6.0 is not pinned",
        "my-registry/llama-factory-train:latest is not pinned",
        "my-registry/llama-factory-api:latest is not pinned",
        "no Secret llm-argo/artifactory-secret",
        "no Secret llm-argo/hf-secret",
        "no Secret llm-inference/hf-secret",
        "no PersistentVolumeClaim llm-argo/model-output-pvc",
        "no PersistentVolumeClaim llm-inference/model-output-pvc",
        "no ConfigMap llm-argo/llama-train-config",
        "a surge pod would wait for the GPU",
        "runAsNonRoot is not true, and the namespace llm-argo enforces",
    ):
        assert defect in text, f"{defect} is not among:\n{text}"
