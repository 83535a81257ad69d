"""What every server takes and does what its author wants is taken; beside each, what is close to it and wrong."""

from __future__ import annotations

import pytest

from tests.k8s.rules.judged import IMAGE, pod, told

SERVICE = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: "
JOB = (
    "apiVersion: batch/v1\nkind: Job\nmetadata: {name: ddp, namespace: shop}\nspec:\n  completions: 2\n  parallelism: 2\n"
    f"  template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: '{IMAGE}'}}]}}}}\n"
)
CRON = (
    "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: nn, namespace: shop}\nspec:\n  schedule: '0 3 * * *'\n"
    f"  jobTemplate: {{spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: '{IMAGE}'}}]}}}}}}}}\n"
)
STATEFUL = pod(kind="StatefulSet")
ACCOUNT = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: metrics}\n---\n"
BINDING = (
    "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: b, namespace: NS}\n"
    "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: ROLE}\n"
    "subjects: [{kind: ServiceAccount, name: a, namespace: metrics}]\n"
)
FLOW = """apiVersion: v1
kind: ServiceAccount
metadata: {name: runner, namespace: shop}
---
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: w, namespace: shop}
spec:
  entrypoint: main
  serviceAccountName: runner
  activeDeadlineSeconds: 3600
  ttlStrategy: {secondsAfterCompletion: 600}
  podGC: {strategy: OnPodSuccess}
"""
MAIN = f"  templates: [{{name: main, container: {{image: '{IMAGE}', command: [train]}}}}]\n"
LOOP = """  templates:
    - name: main
      steps: [[{name: e, template: one, arguments: {parameters: [{name: image, value: "VALUE"}]}, withItems: ITEMS}]]
    - {name: one, inputs: {parameters: [{name: image}]}, container: {image: "{{inputs.parameters.image}}", command: [x]}}
"""

TAKEN = {
    "service_port_that_no_container_declares": pod()
    + SERVICE
    + "{selector: {app: web}, ports: [{name: a, port: 80, targetPort: 8080}]}",
    "service_with_one_port_without_name": pod() + SERVICE + "{selector: {app: web}, ports: [{port: 80}]}",
    "probe_of_a_port_that_is_not_declared": pod(
        container="ports: [{name: web, containerPort: 80}], livenessProbe: {httpGet: {path: /, port: 8081}}, "
        "readinessProbe: {grpc: {port: 9000}}"
    ),
    "port_name_in_two_containers": pod(
        f"initContainers: [{{name: i, image: '{IMAGE}', ports: [{{name: metrics, containerPort: 1}}]}}]",
        "ports: [{name: metrics, containerPort: 2}]",
    ),
    "network_policy_for_a_port_that_is_not_declared": pod()
    + "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: nn, namespace: shop}\n"
    "spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{ports: [{port: 9000}]}]}",
    "service_of_an_indexed_job": JOB + SERVICE + "{clusterIP: None, selector: {batch.kubernetes.io/job-name: ddp}}",
    "service_of_an_indexed_job_old_label": JOB + SERVICE + "{clusterIP: None, selector: {job-name: ddp}}",
    "service_of_the_first_pod_of_a_job": JOB
    + SERVICE
    + "{clusterIP: None, selector: {job-name: ddp, batch.kubernetes.io/job-completion-index: '0'}}",
    "service_of_the_jobs_of_a_cron_job": CRON + SERVICE + "{clusterIP: None, selector: {job-name: nn-28000000}}",
    "service_of_one_pod_of_a_stateful_set": STATEFUL
    + SERVICE
    + "{selector: {statefulset.kubernetes.io/pod-name: web-0}, ports: [{port: 80}]}",
    "budget_of_the_first_pod": STATEFUL
    + "---\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: b, namespace: shop}\nspec: {maxUnavailable: 1, "
    "selector: {matchExpressions: [{key: apps.kubernetes.io/pod-index, operator: In, values: ['0']}]}}",
    "stateful_set_without_service_name": STATEFUL,
    "role_that_the_api_server_makes": ACCOUNT
    + BINDING.replace("NS", "kube-system").replace("ROLE", "extension-apiserver-authentication-reader"),
    "root_certificate_and_default_account": pod(
        "serviceAccountName: default, volumes: [{name: ca, configMap: {name: kube-root-ca.crt}}]"
    ),
    "priority_that_every_cluster_has": pod("priorityClassName: system-cluster-critical"),
    "one_replica_that_surges_on_purpose": pod(container="resources: {limits: {nvidia.com/gpu: '1'}}").replace(
        "  selector", "  replicas: 1\n  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}\n  selector"
    ),
    "metrics_of_a_workflow": FLOW
    + "  metrics: {prometheus: [{name: s, help: h, labels: [{key: k, value: '{{workflow.status}}'}], "
    "when: '{{workflow.status}} == Failed', "
    "gauge: {realtime: false, value: '{{workflow.duration}}'}}]}\n" + MAIN,
    "artifact_of_a_workflow": FLOW
    + "  arguments: {artifacts: [{name: corpus, http: {url: 'https://data.example.com/c'}}]}\n"
    + MAIN.replace("name: main,", "name: main, inputs: {artifacts: [{name: corpus, path: /c}]},"),
    "loop_over_images_by_key": FLOW
    + LOOP.replace("VALUE", "{{item.image}}").replace("ITEMS", f"[{{image: '{IMAGE}'}}, {{image: '{IMAGE}'}}]"),
    "loop_over_images": FLOW + LOOP.replace("VALUE", "{{item}}").replace("ITEMS", f"['{IMAGE}']"),
    "config_map_list": "apiVersion: v1\nkind: ConfigMapList\nitems: [{metadata: {name: a, namespace: shop}, data: {k: v}}]",
    "deployment_list": "apiVersion: apps/v1\nkind: DeploymentList\nitems: [{metadata: {name: a, namespace: shop}, spec: {"
    "selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, "
    f"spec: {{containers: [{{name: c, image: '{IMAGE}'}}]}}}}}}}}]",
    "status_that_says_nothing": pod() + "status: {conditions: [], replicas: null}\n",
    "definition_with_the_status_of_a_generator": "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
    "metadata: {name: pools.acme.example.com}\n"
    "spec: {group: acme.example.com, scope: Namespaced, names: {kind: Pool, plural: pools}, "
    "versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}\n"
    "status: {acceptedNames: {kind: '', plural: ''}, conditions: [], storedVersions: []}",
}

REFUSED = {
    "service_port_by_a_name_that_no_container_has": (
        pod() + SERVICE + "{selector: {app: web}, ports: [{port: 80, targetPort: http}]}",
        "service-selector: spec.ports[0].targetPort: targets port http",
    ),
    "one_of_two_service_ports_without_name": (
        pod() + SERVICE + "{selector: {app: web}, ports: [{name: a, port: 80}, {port: 81}]}",
        "service-ports: spec.ports[1]: port 81 has no name",
    ),
    "probe_by_a_name_that_the_container_has_not": (
        pod(container="lifecycle: {preStop: {httpGet: {port: http}}}"),
        "probe: spec.template.spec.containers[0].lifecycle.preStop.httpGet.port",
    ),
    "service_of_another_job": (JOB + SERVICE + "{clusterIP: None, selector: {job-name: dpd}}", "selects no pod of this set"),
    "labels_of_a_stateful_set_on_a_deployment": (
        pod() + SERVICE + "{selector: {statefulset.kubernetes.io/pod-name: web-0}, ports: [{port: 80}]}",
        "selects no pod of this set",
    ),
    "role_of_nobody": (
        ACCOUNT + BINDING.replace("NS", "shop").replace("ROLE", "reader"),
        "role-binding: roleRef.name: no Role",
    ),
    "surge_that_nobody_wrote": (
        pod(container="resources: {limits: {nvidia.com/gpu: '1'}}"),
        "gpu-surge: spec.strategy: a surge pod would wait",
    ),
    "surge_of_slices": (
        pod(container="resources: {limits: {nvidia.com/mig-1g.10gb: '1'}}").replace("  selector", "  replicas: 2\n  selector"),
        "gpu-surge: spec.strategy: a surge pod would wait",
    ),
    "surge_on_purpose_of_more_than_one": (
        pod(container="resources: {limits: {nvidia.com/gpu: '1'}}").replace(
            "  selector", "  replicas: 3\n  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}\n  selector"
        ),
        "gpu-surge",
    ),
    "status_of_a_workflow_in_a_step": (
        FLOW + MAIN.replace("[train]", "[train, '{{workflow.status}}']"),
        "is known only at the end",
    ),
    "loop_over_an_image_without_digest": (
        FLOW + LOOP.replace("VALUE", "{{item}}").replace("ITEMS", "['quay.io/acme/a:1']"),
        "image: spec.templates[0].steps[0][0].withItems[0]: quay.io/acme/a:1 is not pinned",
    ),
    "loop_over_what_a_step_says": (
        FLOW + LOOP.replace("VALUE", "{{item}}").replace("withItems: ITEMS", "withParam: '[]'"),
        "cannot be followed",
    ),
    "status_that_says_something": (pod() + "status: {replicas: 3}\n", "image: status: a status is written"),
    "ports_with_one_number": (
        pod(container="ports: [{name: http, containerPort: 80}, {name: metrics, containerPort: 80, protocol: TCP}]"),
        "schema: spec.template.spec.containers[0].ports[1]: 80, TCP stands twice",
    ),
    "service_ports_with_one_number": (
        pod() + SERVICE + "{selector: {app: web}, ports: [{name: a, port: 80}, {name: b, port: 80}]}",
        "80, TCP stands twice",
    ),
    "ports_with_one_name": (
        pod(container="ports: [{name: http, containerPort: 80}, {name: http, containerPort: 81}]"),
        "the port name http stands twice",
    ),
    "variable_twice": (pod(container="env: [{name: A, value: '1'}, {name: A, value: '2'}]"), "stands twice"),
    "finalizer_twice": (pod().replace("namespace: shop}", "namespace: shop, finalizers: [a/b, a/b]}"), "a/b stands twice"),
}


@pytest.mark.parametrize("case", TAKEN)
def test_takes(case: str) -> None:
    assert told(TAKEN[case]) == []


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str) -> None:
    text, message = REFUSED[case]
    assert any(message in one for one in told(text)), told(text)


def test_ports_with_one_number_and_two_protocols_are_two() -> None:
    both = "ports: [{name: dns, containerPort: 53, protocol: UDP}, {name: dns-tcp, containerPort: 53}]"
    assert told(pod(container=both)) == []
