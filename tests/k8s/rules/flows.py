"""A small set with a workflow of every sort that is right; tests spoil it."""

from __future__ import annotations

import dataclasses

from common import paths
from k8s.envs import environment
from k8s.envs.settings import Settings
from k8s.objects.findings import Finding
from k8s.prepare.checked import check, locked_images
from k8s.prepare.rendered import RenderedSet
from tests.k8s.conftest import API, Checkout

TRAIN = "llama-factory-train"

AROUND = """\
apiVersion: v1
kind: Namespace
metadata:
  name: flows
  labels: {pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: runner, namespace: flows}
automountServiceAccountToken: false
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: work, namespace: flows}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: programs, namespace: flows}
data: {run.py: "print(1)"}
"""

FLOW = f"""\
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {{name: flow, namespace: flows}}
spec:
  entrypoint: main
  onExit: tidy
  activeDeadlineSeconds: 3600
  ttlStrategy: {{secondsAfterCompletion: 86400}}
  podGC: {{strategy: OnWorkflowSuccess}}
  serviceAccountName: runner
  arguments:
    parameters:
      - name: version
      - name: tool
        value: {TRAIN}
  securityContext:
    runAsNonRoot: true
    seccompProfile: {{type: RuntimeDefault}}
  volumes:
    - name: work
      persistentVolumeClaim: {{claimName: work}}
    - name: config
      configMap: {{name: "config-{{{{workflow.parameters.version}}}}"}}
  templates:
    - name: main
      steps:
        - - name: make
            template: make
            arguments:
              parameters:
                - name: what
                  value: "{{{{workflow.parameters.version}}}}"
        - - name: use
            template: use
            arguments:
              parameters:
                - name: made
                  value: "{{{{steps.make.outputs.parameters.made}}}}"
          - name: graph
            template: graph
        - - name: send
            template: send
    - name: make
      inputs:
        parameters:
          - name: what
          - name: size
            default: small
      outputs:
        parameters:
          - name: made
            valueFrom: {{path: /tmp/made}}
      container:
        image: {TRAIN}
        command: [bash, -c]
        args:
          - |
            set -eo pipefail
            curl --fail --location https://example.com/{{{{inputs.parameters.what}}}} -o /work/x
            make "{{{{inputs.parameters.size}}}}" | tee /work/log
        resources:
          requests: {{nvidia.com/gpu: "1", memory: 1Gi}}
          limits: {{nvidia.com/gpu: "1", memory: 2Gi}}
        securityContext: &secure
          allowPrivilegeEscalation: false
          capabilities: {{drop: [ALL]}}
        volumeMounts:
          - name: work
            mountPath: /work
          - name: config
            mountPath: /config
    - name: use
      inputs:
        parameters:
          - name: made
      podSpecPatch: |
        containers:
          - name: main
            resources: {{limits: {{memory: 4Gi}}}}
      script:
        image: "{{{{workflow.parameters.tool}}}}"
        command: [bash, -e]
        source: |
          use "{{{{inputs.parameters.made}}}}"
          echo used
        securityContext: *secure
    - name: graph
      dag:
        tasks:
          - name: first
            template: step
            arguments: {{parameters: [{{name: image, value: {TRAIN}}}]}}
          - name: second
            template: step
            depends: first.Succeeded
            withItems: [a, b]
            arguments: {{parameters: [{{name: image, value: {API}}}, {{name: word, value: "{{{{item}}}}"}}]}}
          - name: third
            depends: first && second
            inline:
              container:
                image: {TRAIN}
                command: [python, /x.py]
                securityContext: *secure
    - name: step
      inputs:
        parameters:
          - name: image
          - name: word
            default: none
      sidecars:
        - name: helper
          image: {TRAIN}
          securityContext: *secure
      initContainers:
        - name: prepare
          image: {TRAIN}
          securityContext: *secure
      container:
        image: "{{{{inputs.parameters.image}}}}"
        command: [python, /x.py, "{{{{inputs.parameters.word}}}}", "{{{{=sprig.lower(inputs.parameters.word)}}}}"]
        securityContext: *secure
    - name: send
      resource:
        action: apply
        manifest: |
          apiVersion: batch/v1
          kind: Job
          metadata:
            name: "job-{{{{workflow.parameters.version}}}}"
            namespace: flows
          spec:
            template:
              spec:
                restartPolicy: Never
                securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
                containers:
                  - name: job
                    image: {API}
                    args: ["{{{{workflow.name}}}}"]
                    securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
    - name: tidy
      container:
        image: {TRAIN}
        command: [python, /x.py, "{{{{workflow.status}}}}"]
        securityContext: *secure
"""
# Aliases are refused in manifests; here they only keep the text short.
_SECURE = "{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}"
FLOW = FLOW.replace(
    "&secure\n          allowPrivilegeEscalation: false\n          capabilities: {drop: [ALL]}", _SECURE
).replace("*secure", _SECURE)

RUN = """\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: run-1, namespace: flows}
spec:
  workflowTemplateRef: {name: flow}
  arguments:
    parameters:
      - {name: version, value: run-1}
"""

# The workflow of the specification that the project started from, and its namespace as every one is here.
ORIGINAL = r"""
apiVersion: v1
kind: Namespace
metadata:
  name: llm-argo
  labels: {pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata:
  generateName: llama-ft-
  namespace: llm-argo
spec:
  entrypoint: fine-tune-and-deploy
  serviceAccountName: argo-workflow-sa   # musi mieć uprawnienia do llm-training i llm-inference

  arguments:
    parameters:
      - name: base-model-url
        value: "https://artifactory.example.com/hf-proxy/meta-llama/Meta-Llama-3-8B"
      - name: target-model-name
        value: "meta-llama3-8b-ft-v1"

  templates:
  - name: fine-tune-and-deploy
    steps:
      - - name: download-base-model
          template: download-base-model
      - - name: train-model
          template: train-model
      - - name: deploy-inference
          template: deploy-inference

  # Krok 1: pobranie modelu bazowego na PV
  - name: download-base-model
    inputs:
      parameters:
        - name: base-model-url
    container:
      image: curlimages/curl:8.6.0
      command: ["/bin/sh", "-c"]
      args:
        - |
          echo "Downloading base model from Artifactory: {{inputs.parameters.base-model-url}}";
          mkdir -p /models/base-model;
          curl -u $ARTIFACTORY_USER:$ARTIFACTORY_PASSWORD -L \
               "{{inputs.parameters.base-model-url}}/model.bin" -o /models/base-model/pytorch_model.bin;
          curl -u $ARTIFACTORY_USER:$ARTIFACTORY_PASSWORD -L \
               "{{inputs.parameters.base-model-url}}/config.json" -o /models/base-model/config.json;
          curl -u $ARTIFACTORY_USER:$ARTIFACTORY_PASSWORD -L \
               "{{inputs.parameters.base-model-url}}/tokenizer.json" -o /models/base-model/tokenizer.json;
      env:
        - name: ARTIFACTORY_USER
          valueFrom:
            secretKeyRef:
              name: artifactory-secret
              key: ARTIFACTORY_USER
        - name: ARTIFACTORY_PASSWORD
          valueFrom:
            secretKeyRef:
              name: artifactory-secret
              key: ARTIFACTORY_PASSWORD
      volumeMounts:
        - name: model-storage
          mountPath: /models
    volumes:
      - name: model-storage
        persistentVolumeClaim:
          claimName: model-output-pvc
    # Krok działa w llm-training:
    metadata:
      namespace: llm-training

  # Krok 2: trening LLaMA-Factory
  - name: train-model
    container:
      image: my-registry/llama-factory-train:latest
      command: ["/bin/bash", "-c"]
      args:
        - |
          echo "Starting fine-tune...";
          cp /config/train_config.yaml /app/train_config.yaml;
          HF_ENDPOINT="$HF_ENDPOINT" HF_TOKEN="$HF_TOKEN" \
          llamafactory-cli train /app/train_config.yaml;
          echo "Fine-tune finished.";
      env:
        - name: HF_TOKEN
          valueFrom:
            secretKeyRef:
              name: hf-secret
              key: HF_TOKEN
        # Jeśli używasz HF proxy przez Artifactory:
        - name: HF_ENDPOINT
          valueFrom:
            secretKeyRef:
              name: artifactory-secret
              key: ARTIFACTORY_URL
      volumeMounts:
        - name: model-storage
          mountPath: /models
        - name: output-storage
          mountPath: /output
        - name: train-config
          mountPath: /config
      resources:
        limits:
          nvidia.com/gpu: 1
        requests:
          nvidia.com/gpu: 1
    volumes:
      - name: model-storage
        persistentVolumeClaim:
          claimName: model-output-pvc
      - name: output-storage
        persistentVolumeClaim:
          claimName: model-output-pvc
      - name: train-config
        configMap:
          name: llama-train-config
    metadata:
      namespace: llm-training

  # Krok 3: Deployment inferencji w namespace llm-inference
  - name: deploy-inference
    inputs:
      parameters:
        - name: target-model-name
    resource:
      action: apply
      manifest: |
        apiVersion: apps/v1
        kind: Deployment
        metadata:
          name: llama-factory-inference
          namespace: llm-inference
          labels:
            app: llama-infer
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
                imagePullPolicy: IfNotPresent
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
"""


def checked(checkout: Checkout, *texts: str) -> tuple[RenderedSet, tuple[Finding, ...]]:
    """Check these manifests alone, each a file of its own."""
    folder = paths.ROOT / "flows"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text)
    env = dataclasses.replace(environment.load("staging"), settings=Settings())  # They are about the project's own set.
    return check([folder], env, locked_images(required=False))


def findings(checkout: Checkout, *texts: str) -> list[str]:
    """What is wrong with them."""
    return [finding.text() for finding in checked(checkout, *texts)[1]]
