"""For each rule a set that is wrong by one change, and what that change is made to: the nearest set that is right.

A rule of one object has more of both in corpus.py, with the server's verdict. Here are the rules between objects, and those of
workflows, which a server takes in any form.
"""

# One pair, one place.
# ruff: noqa: E501
from __future__ import annotations

from typing import NamedTuple

IMAGE = "quay.io/acme/a@sha256:" + "a" * 64
SPACE = "pairs"


class Pair(NamedTuple):
    """A right set, and how it becomes wrong: `old` is replaced by `new`, once."""

    right: str
    old: str
    new: str

    @property
    def wrong(self) -> str:
        """The set after the change."""
        assert self.right.count(self.old) >= 1, self.old
        return self.right.replace(self.old, self.new, 1)


def _one(api: str, kind: str, fields: str, name: str = "one", space: str = SPACE, meta: str = "") -> str:
    where = f", namespace: {space}" if space else ""
    return f"---\napiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}{where}{meta}}}\n{fields}\n"


CONTAINER = f"{{name: c, image: '{IMAGE}', ports: [{{name: http, containerPort: 8080}}], resources: {{limits: {{memory: 64Mi, nvidia.com/gpu: 1}}}}}}"
POD = f"containers: [{CONTAINER}]"


def _deployment(fields: str = "", pod: str = POD, name: str = "one") -> str:
    template = f"{{metadata: {{labels: {{app: one}}}}, spec: {{{pod}}}}}"
    strategy = "strategy: {type: Recreate}, "
    return _one(
        "apps/v1",
        "Deployment",
        f"spec: {{selector: {{matchLabels: {{app: one}}}}, {strategy}{fields}template: {template}}}",
        name,
    )


CORE, NET, RBAC = "v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1"
DEPLOYMENT = _deployment()
SERVICE = _one(CORE, "Service", "spec: {selector: {app: one}, ports: [{name: http, port: 80, targetPort: http}]}")
CLAIM = _one(
    CORE, "PersistentVolumeClaim", "spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}", "data"
)
NAMESPACE = _one(CORE, "Namespace", "", SPACE, "")
INGRESS = _one(
    NET,
    "Ingress",
    "spec: {tls: [{hosts: [a.example.com]}], rules: [{host: a.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: one, port: {name: http}}}}]}}]}",
)
POLICY = _one(
    NET,
    "NetworkPolicy",
    "spec: {podSelector: {matchLabels: {app: one}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: one}}}], ports: [{port: http}]}]}",
)
EGRESS = _one(
    NET,
    "NetworkPolicy",
    "spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 443}]}]}",
    meta=", annotations: {pinwheel.io/ports: api-server}",
)
# Its registry's port is 443 in the environment that the pairs are judged in.
SPEAKS = _deployment(pod=f"{POD}, volumes: [{{name: r, configMap: {{name: pinwheel-registry, optional: true}}}}]")
AUTOSCALER = _one(
    "autoscaling/v2",
    "HorizontalPodAutoscaler",
    "spec: {minReplicas: 1, maxReplicas: 2, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: one}}",
)
BUDGET = _one("policy/v1", "PodDisruptionBudget", "spec: {maxUnavailable: 1, selector: {matchLabels: {app: one}}}")
BINDING = _one(
    RBAC,
    "RoleBinding",
    "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}\nsubjects: [{kind: ServiceAccount, name: default, namespace: pairs}]",
)
HOOK = _one(
    "admissionregistration.k8s.io/v1",
    "ValidatingWebhookConfiguration",
    "webhooks: [{name: a.b.example.com, admissionReviewVersions: [v1], sideEffects: None, clientConfig: {url: 'https://b.example.com/x'}, rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}]",
    space="",
)
RESTRICTED = NAMESPACE.replace(f"name: {SPACE}", f"name: {SPACE}, labels: {{pod-security.kubernetes.io/enforce: restricted}}")
SECURE = _deployment(
    pod="securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, "
    + POD.replace("ports:", "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}, ports:")
)

FLOW = f"""---
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {{name: flow, namespace: {SPACE}}}
spec:
  entrypoint: main
  serviceAccountName: default
  activeDeadlineSeconds: 3600
  ttlStrategy: {{secondsAfterCompletion: 600}}
  podGC: {{strategy: OnPodSuccess}}
  arguments: {{parameters: [{{name: word, value: a}}]}}
  templates:
    - name: main
      dag:
        tasks:
          - {{name: first, template: step, arguments: {{parameters: [{{name: word, value: "{{{{workflow.parameters.word}}}}"}}]}}}}
          - {{name: second, template: send, depends: first}}
    - name: step
      inputs: {{parameters: [{{name: word}}]}}
      script:
        image: {IMAGE}
        command: [bash]
        env: [{{name: TOKEN, valueFrom: {{secretKeyRef: {{name: login, key: token, optional: true}}}}}}]
        source: |
          set -eo pipefail
          say "{{{{inputs.parameters.word}}}}" | tee /tmp/said
    - name: send
      resource:
        action: create
        flags: ["--server-side"]
        manifest: |
          apiVersion: v1
          kind: ConfigMap
          metadata: {{name: sent, namespace: {SPACE}}}
          data: {{a: b}}
"""
RUN = _one(
    "argoproj.io/v1alpha1",
    "Workflow",
    "spec: {workflowTemplateRef: {name: flow}, arguments: {parameters: [{name: word, value: b}]}}",
    "run",
)
NOTES = _one(CORE, "ConfigMap", "data: {a: b}", "notes")
QUOTA = _one(CORE, "ResourceQuota", "spec: {hard: {requests.nvidia.com/gpu: 2}}")
LIMITS = _one(CORE, "LimitRange", "spec: {limits: [{type: Container, max: {memory: 64Mi}}]}")

PAIRS: dict[str, Pair] = {
    "autoscaler": Pair(DEPLOYMENT + AUTOSCALER, "kind: Deployment, name: one", "kind: Deployment, name: two"),
    "autoscaler-bounds": Pair(DEPLOYMENT + AUTOSCALER, "minReplicas: 1", "minReplicas: 3"),
    "containers": Pair(
        _deployment(
            pod=f"containers: [{CONTAINER}, {CONTAINER.replace('name: c', 'name: d').replace('8080', '8081').replace('name: http', 'name: other')}]"
        ),
        "name: d",
        "name: c",
    ),
    "disruption-budget": Pair(DEPLOYMENT + BUDGET, "maxUnavailable: 1", "maxUnavailable: 0"),
    "egress": Pair(NAMESPACE + SPEAKS + EGRESS, "port: 443", "port: 8443"),
    "egress-mark": Pair(NAMESPACE + EGRESS, "pinwheel.io/ports: api-server", "pinwheel.io/ports: apiserver"),
    "enumeration": Pair(DEPLOYMENT, "name: c,", "name: c, imagePullPolicy: always,"),
    "env": Pair(
        DEPLOYMENT.replace("name: c,", "name: c, env: [{name: A, value: x}, {name: B, value: z}],"), "name: B", "name: A"
    ),
    "exclusive": Pair(
        DEPLOYMENT.replace("strategy: {type: Recreate}", "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}"),
        "maxUnavailable: 1",
        "maxUnavailable: 0",
    ),
    "gpu-surge": Pair(DEPLOYMENT.replace("template:", "replicas: 2, template:", 1), "strategy: {type: Recreate}, ", ""),
    "image-missing": Pair(DEPLOYMENT, f", image: '{IMAGE}'", ""),
    "ingress": Pair(DEPLOYMENT + SERVICE + INGRESS, "tls: [{hosts: [a.example.com]}], ", ""),
    "ingress-backend": Pair(DEPLOYMENT + SERVICE + INGRESS, "port: {name: http}", "port: {name: web}"),
    "labels": Pair(DEPLOYMENT.replace("app: one}}, spec", "app: one, b: c}}, spec"), "b: c", "b: c/d"),
    "limit-range": Pair(DEPLOYMENT + LIMITS, "max: {memory: 64Mi}", "max: {memory: 63Mi}"),
    "mutator": Pair(HOOK, "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"),
    "name": Pair(DEPLOYMENT, "{name: one,", "{name: One,"),
    "namespace": Pair(DEPLOYMENT, f", namespace: {SPACE}", ""),
    "network-policy": Pair(DEPLOYMENT + POLICY, "policyTypes: [Ingress]", "policyTypes: [Egress]"),
    "network-policy-peer": Pair(
        DEPLOYMENT
        + POLICY.replace("podSelector: {matchLabels: {app: one}}}]", "ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]"),
        "10.1.0.0/16",
        "11.1.0.0/16",
    ),
    "network-policy-ports": Pair(DEPLOYMENT + POLICY, "ports: [{port: http}]", "ports: [{port: web}]"),
    "pod-security": Pair(RESTRICTED + SECURE, "allowPrivilegeEscalation: false, ", ""),
    "pod-security-level": Pair(RESTRICTED, "enforce: restricted", "enforce: strict"),
    "probe": Pair(
        DEPLOYMENT.replace("name: c,", "name: c, livenessProbe: {tcpSocket: {port: http}},"), "{port: http}}", "{port: web}}"
    ),
    "public-service": Pair(
        DEPLOYMENT + SERVICE, "{selector: {app: one}, ports", "{type: LoadBalancer, selector: {app: one}, ports"
    ),
    "quota": Pair(DEPLOYMENT.replace("template:", "replicas: 2, template:", 1) + QUOTA, "replicas: 2", "replicas: 3"),
    "range": Pair(SERVICE + DEPLOYMENT, "port: 80,", "port: 80000,"),
    "reference": Pair(
        DEPLOYMENT.replace("containers:", "serviceAccountName: default, containers:"),
        "serviceAccountName: default",
        "serviceAccountName: other",
    ),
    "resources": Pair(DEPLOYMENT, "limits: {memory: 64Mi,", "requests: {memory: 65Mi}, limits: {memory: 64Mi,"),
    "role-binding": Pair(BINDING, "name: default", "name: nobody"),
    "script": Pair(FLOW, "set -eo pipefail", "set -e"),
    "secret-in-command-line": Pair(FLOW, 'say "{{inputs.parameters.word}}"', 'say --token "$TOKEN"'),
    "secret-value": Pair(NOTES, "a: b", "DB_PASSWORD: Xk29fqPz17"),
    "selector": Pair(DEPLOYMENT, "matchLabels: {app: one}", "matchLabels: {app: two}"),
    "sent-and-applied": Pair(FLOW + NOTES, "name: notes", "name: sent"),
    "service-ports": Pair(
        DEPLOYMENT + SERVICE.replace("targetPort: http}]", "targetPort: http}, {name: more, port: 81, targetPort: 9000}]"),
        "name: more, ",
        "",
    ),
    "service-selector": Pair(DEPLOYMENT + SERVICE, "selector: {app: one}, ports", "selector: {app: two}, ports"),
    "shared-claim": Pair(
        CLAIM
        + AUTOSCALER
        + _deployment(
            pod=POD.replace("name: c,", "name: c, volumeMounts: [{name: d, mountPath: /d}],")
            + ", volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]"
        ),
        "ReadWriteMany",
        "ReadWriteOnce",
    ),
    "twice": Pair(DEPLOYMENT + _deployment(name="two").replace("app: one", "app: two"), "{name: two,", "{name: one,"),
    "volumes": Pair(
        DEPLOYMENT.replace("name: c,", "name: c, volumeMounts: [{name: d, mountPath: /d}],").replace(
            "spec: {containers", "spec: {volumes: [{name: d, emptyDir: {}}], containers"
        ),
        "{name: d, emptyDir",
        "{name: e, emptyDir",
    ),
    "workflow-arguments": Pair(FLOW + RUN, "parameters: [{name: word, value: b}]", "parameters: [{name: words, value: b}]"),
    "workflow-call": Pair(FLOW, "name: second, template: send", "name: second, template: sent"),
    "workflow-dag": Pair(FLOW, "depends: first", "depends: frist"),
    "workflow-sent": Pair(FLOW, '"--server-side"', '"--filename=https://example.com/a.yaml"'),
    "workflow-settings": Pair(FLOW, "  activeDeadlineSeconds: 3600\n", ""),
    "workflow-template": Pair(FLOW, "- name: send\n", "- name: step\n"),
    "workflow-twice": Pair(FLOW, "name: second, template", "name: first, template"),
    "workflow-value": Pair(FLOW, "{{workflow.parameters.word}}", "{{workflow.parameters.words}}"),
}
