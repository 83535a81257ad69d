"""Each way to spoil the good set is refused with file, object, path and fix."""

from __future__ import annotations

import pytest

from k8s.envs import environment
from k8s.prepare import checked
from tests.k8s.conftest import API, Checkout

DEPLOYMENT = "Deployment llm-inference/llama-factory-inference"
CONTAINER = "spec.template.spec.containers[0]"


# Named after the defect: file, what is replaced by what, and where and how it is refused.
SPOILED = {
    "selector_matches_other_labels": (
        "deployment.yaml",
        "    matchLabels:\n      app.kubernetes.io/name: llama-factory-inference",
        "    matchLabels:\n      app.kubernetes.io/name: llama-infer",
        f"{DEPLOYMENT}: spec.selector.matchLabels['app.kubernetes.io/name']: selects",
    ),
    "selector_empty": (
        "deployment.yaml",
        "    matchLabels:\n      app.kubernetes.io/name: llama-factory-inference",
        "    matchLabels: {}",
        "spec.selector: selects nothing",
    ),
    "mount_without_volume": (
        "deployment.yaml",
        "- name: models\n              mount",
        "- name: model\n              mount",
        "is no volume",
    ),
    "volume_twice": (
        "deployment.yaml",
        "- name: tmp\n          empty",
        "- name: shm\n          empty",
        "the volume shm stands twice",
    ),
    "volume_without_source": (
        "deployment.yaml",
        "        - name: tmp\n          emptyDir:\n            sizeLimit: 20Gi",
        "        - name: tmp",
        "the volume tmp has no source",
    ),
    "mount_path_twice": ("deployment.yaml", "mountPath: /dev/shm", "mountPath: /tmp", "/tmp is mounted twice"),
    "config_map_absent": (
        "configmap.yaml",
        "name: llama-factory-inference\n",
        "name: other\n",
        "no ConfigMap llm-inference/llama-fac",
    ),
    "config_map_elsewhere": (
        "configmap.yaml",
        "namespace: llm-inference",
        "namespace: llm-training",
        "one of this name is in llm-training, but a pod sees only its own namespace",
    ),
    "secret_absent": (
        "deployment.yaml",
        "name: inference-api-key",
        "name: hf-secret",
        f"{DEPLOYMENT}: {CONTAINER}.env[3].valueFrom.secretKeyRef.name: no Secret llm-inference/hf-secret: make it outside",
    ),
    "secret_key_absent": (
        "deployment.yaml",
        "key: API_KEY",
        "key: TOKEN",
        "Secret inference-api-key has no key 'TOKEN': it has: API_KEY",
    ),
    "account_absent": (
        "inference/serviceaccount.yaml",
        "name: llama-factory-inference\n",
        "name: sa\n",
        "no ServiceAccount llm-inference/llama-fac",
    ),
    "gpu_limit_is_not_request": (
        "deployment.yaml",
        'memory: 48Gi\n              nvidia.com/gpu: "1"',
        'memory: 48Gi\n              nvidia.com/gpu: "2"',
        f"{CONTAINER}.resources.requests['nvidia.com/gpu']: nvidia.com/gpu: request 1 and limit 2 differ",
    ),
    "gpu_without_limit": (
        "deployment.yaml",
        'memory: 48Gi\n              nvidia.com/gpu: "1"',
        "memory: 48Gi",
        "request 1 and limit None differ",
    ),
    "gpu_in_parts": (
        "deployment.yaml",
        'nvidia.com/gpu: "1"\n            limits:\n              memory: 48Gi\n              nvidia.com/gpu: "1"',
        'nvidia.com/gpu: "0.5"\n            limits:\n              memory: 48Gi\n              nvidia.com/gpu: "0.5"',
        "given out whole, not 0.5",
    ),
    "limit_below_request": ("deployment.yaml", "memory: 48Gi", "memory: 16Gi", "memory: request 24Gi is more than limit 16Gi"),
    "cpu_autoscaler_without_cpu_request": ("deployment.yaml", '              cpu: "2"\n', "", "no request for cpu, of which"),
    "replicas_with_an_autoscaler": (
        "deployment.yaml",
        "spec:\n  # No",
        "spec:\n  replicas: 1\n  # No",
        "spec.replicas: replicas is written",
    ),
    "autoscaler_min_above_max": ("hpa.yaml", "minReplicas: 1", "minReplicas: 5", "minReplicas 5 is more than maxReplicas 4"),
    "autoscaler_to_zero": ("hpa.yaml", "minReplicas: 1", "minReplicas: 0", "keeps at least one replica"),
    "autoscaler_of_nothing": (
        "hpa.yaml",
        "kind: Deployment\n    name: llama-factory-inference",
        "kind: Deployment\n    name: x",
        "no Deployment",
    ),
    "surge_on_full_gpus": ("deployment.yaml", "maxSurge: 0", "maxSurge: 1", "spec.strategy: a surge pod would wait"),
    "probe_without_handler": (
        "deployment.yaml",
        "          readinessProbe:\n            httpGet:\n              path: /openapi.json\n              port: http\n",
        "          readinessProbe:\n",
        f"{CONTAINER}.readinessProbe: a probe with no handler",
    ),
    "probe_with_two_handlers": (
        "deployment.yaml",
        "          livenessProbe:\n",
        "          livenessProbe:\n            tcpSocket: {port: http}\n",
        "a probe with httpGet and tcpSocket",
    ),
    "probe_of_unknown_port": ("deployment.yaml", "port: http\n", "port: web\n", "probes port web: the container's ports are: "),
    "liveness_success_threshold": (
        "deployment.yaml",
        "          livenessProbe:\n",
        "          livenessProbe:\n            successThreshold: 2\n",
        "must be 1 for this probe",
    ),
    "port_name_too_long": (
        "deployment.yaml",
        "- name: http\n",
        "- name: http-inference-api\n",
        "'http-inference-api' is no port name",
    ),
    "port_out_of_range": ("deployment.yaml", "containerPort: 8000", "containerPort: 80000", "80000 is no port"),
    "service_port_unnamed": ("service.yaml", "ports:\n", "ports:\n    - port: 9000\n", "port 9000 has no name"),
    "service_target_unknown": ("service.yaml", "targetPort: http", "targetPort: web", "targets port web of Deployment"),
    "service_selects_nothing": (
        "service.yaml",
        "  selector:\n    app.kubernetes.io/name: llama-factory-inference",
        "  selector:\n    app: llama-infer",
        "spec.selector: selects no pod of this set (app=llama-infer)",
    ),
    "name_with_capitals": (
        "disruptionbudget.yaml",
        "name: llama-factory-inference\n",
        "name: Model_Output\n",
        "'Model_Output' is no name",
    ),
    "name_generated": (
        "disruptionbudget.yaml",
        "name: llama-factory-inference\n",
        "generateName: model-\n",
        "generateName can be created but not applied",
    ),
    "label_value_too_long": ("service.yaml", "part-of: pinwheel", "part-of: " + "a" * 64, "is no label value"),
    "label_key_wrong": ("service.yaml", "app.kubernetes.io/part-of", "App_Kube/part/of", "is no label key"),
    "label_is_a_number": ("service.yaml", "part-of: pinwheel", "part-of: 5", "expected str, got int 5: put it in quotes"),
    "quantity_wrong": ("deployment.yaml", "memory: 24Gi", "memory: 24GB", "'24GB' is not a quantity"),
    "variable_is_a_number": (
        "deployment.yaml",
        'value: "8000"',
        "value: 8000",
        f"{CONTAINER}.env[1].value: expected str, got int 8000",
    ),
    "variable_twice": ("deployment.yaml", "- name: API_PORT", "- name: API_HOST", "the variable API_HOST stands twice"),
    "field_misspelt": (
        "deployment.yaml",
        "imagePullPolicy:",
        "imagePullPolice:",
        "unknown field of Container: did you mean imagePullPolicy?",
    ),
    "field_at_the_wrong_level": (
        "deployment.yaml",
        "      serviceAccountName:",
        "      image: x\n      serviceAccountName:",
        "unknown field of PodSpec",
    ),
    "container_without_image": (
        "deployment.yaml",
        f"          image: {API}\n",
        "",
        "spec.template.spec.initContainers[0].image: no image",
    ),
    "image_by_tag": ("deployment.yaml", f"image: {API}", f"image: my-registry/{API}:latest", "is not pinned"),
    "namespace_absent": ("service.yaml", "  namespace: llm-inference\n", "", "no namespace, so it would land wherever"),
    "namespace_on_a_namespace": (
        "inference/namespace.yaml",
        "  name: llm-inference\n",
        "  name: llm-inference\n  namespace: x\n",
        "a Namespace has no",
    ),
    "required_field_missing": ("hpa.yaml", "  maxReplicas: 4\n", "", "spec.maxReplicas: required and missing"),
    "key_twice": (
        "service.yaml",
        "  type: ClusterIP\n",
        "  type: ClusterIP\n  type: LoadBalancer\n",
        "the key type stands twice",
    ),
    "ambiguous_boolean": ("inference/serviceaccount.yaml", "Token: false", "Token: no", "no means different things"),
}


@pytest.mark.parametrize("defect", SPOILED)
def test_refuses(checkout: Checkout, defect: str) -> None:
    file, old, new, message = SPOILED[defect]
    checkout.edit(file, old, new)
    found = checkout.findings()
    assert any(message in text for text in found), found
    assert all(text.startswith("k8s/manifests/inference/") for text in found), found


CLAIM = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: claim, namespace: %s}\n"
CLAIM += "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n---\n"
CLAIMING = (
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: ns}\nspec:\n  selector: {matchLabels: {a: b}}\n"
)
CLAIMING += "  template:\n    metadata: {labels: {a: b}}\n    spec:\n"
CLAIMING += f"      containers: [{{name: c, image: {API}, resources: {{requests: {{cpu: '1'}}}}}}]\n"
CLAIMING += "      volumes: [{name: v, persistentVolumeClaim: {claimName: claim}}]\n---\n"
SCALER = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: h, namespace: ns}\n"
SCALER += "spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}, maxReplicas: 4}\n"

ADDED = {
    "claim_absent": (
        CLAIMING,
        "Deployment ns/d: spec.template.spec.volumes[0].persistentVolumeClaim.claimName: no PersistentVol",
    ),
    "claim_elsewhere": (CLAIM % "other" + CLAIMING, "one of this name is in other"),
    "claim_read_write_once_with_four_pods": (
        CLAIM % "ns" + CLAIMING + SCALER,
        "claim is ReadWriteOnce, HorizontalPodAutoscaler",
    ),
    "object_twice": (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: llm-inference}\n",
        "stands twice, first in k8s/manifests/added.yaml:1",
    ),
    "role_absent": (
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: b, namespace: ns}\n"
        "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}\n",
        "roleRef.name: no Role ns/r",
    ),
    "subject_elsewhere": (
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: b}\n"
        "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: r}\n"
        "subjects: [{kind: ServiceAccount, name: llama-factory-inference, namespace: llm-training}]\n",
        "subjects[0]: no ServiceAccount llm-training/llama-factory-inference",
    ),
    "pod_without_container": (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: ns}\nspec: {containers: []}\n",
        "spec.containers: no container",
    ),
    "pull_secret_absent": (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: ns}\n"
        f"spec: {{imagePullSecrets: [{{name: pull}}], containers: [{{name: c, image: {API}}}]}}\n",
        "spec.imagePullSecrets[0]: no Secret ns/pull",
    ),
    "projected_key_absent": (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: llm-inference}\n"
        f"spec:\n  containers: [{{name: c, image: {API}}}]\n  volumes:\n    - name: v\n      projected:\n        sources:\n"
        "          - configMap: {name: llama-factory-inference, items: [{key: train.yaml, path: x}]}\n",
        "configMap.items[0].key: ConfigMap llama-factory-inference has no key 'train.yaml': it has: inference.yaml",
    ),
}


@pytest.mark.parametrize("defect", ADDED)
def test_refuses_an_added(checkout: Checkout, defect: str) -> None:
    text, message = ADDED[defect]
    checkout.add(text)
    found = checkout.findings()
    assert any(message in line for line in found), found


def test_the_original_specification_is_refused_for_each_of_its_defects(checkout: Checkout) -> None:
    """The Deployment, Service and HPA as the user first wrote them."""
    (checkout.root / "original").mkdir()
    (checkout.root / "original" / "inference.yaml").write_text(ORIGINAL)
    env = environment.load("production")
    _, found = checked.check([checkout.root / "original"], env, checked.locked_images(required=True))
    text = "\n".join(finding.text() for finding in found)
    for defect in (
        "my-registry/llama-factory-api:latest is not pinned",
        "no Secret llm-inference/hf-secret",
        "no PersistentVolumeClaim llm-inference/model-output-pvc",
        "no request for cpu, of which",
        "a surge pod would wait for the GPU",
        "replicas is written",
    ):
        assert defect in text


ORIGINAL = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: llama-factory-inference
  namespace: llm-inference
spec:
  replicas: 1
  selector:
    matchLabels:
      app: llama-infer
  template:
    metadata:
      labels:
        app: llama-infer
    spec:
      containers:
        - name: inference
          image: my-registry/llama-factory-api:latest
          ports:
            - containerPort: 8000
          env:
            - name: HF_TOKEN
              valueFrom:
                secretKeyRef:
                  name: hf-secret
                  key: HF_TOKEN
            - name: MODEL_PATH
              value: "/models/ft-llama3-8b-v1"
          resources:
            limits:
              nvidia.com/gpu: 1
            requests:
              nvidia.com/gpu: 1
          volumeMounts:
            - name: model-storage
              mountPath: /models
      volumes:
        - name: model-storage
          persistentVolumeClaim:
            claimName: model-output-pvc
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: llama-inference-hpa
  namespace: llm-inference
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: llama-factory-inference
  minReplicas: 1
  maxReplicas: 4
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: 60
"""
