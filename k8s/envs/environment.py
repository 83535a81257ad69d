"""The environments, `k8s/envs/<name>.yaml`: where manifests go and what differs there. Unknown keys are refused.

Keys:
    target: `directory: {path: …}` (below `dist/` unless absolute) or `cluster: {context: …, kubeconfig: …, namespace: …}`. The
        kubeconfig, optional, is a file (`~` is your home; below Pinwheel's state folder unless absolute, where
        `single-node/kubeconfig` is the cluster of this machine); without it kubectl finds yours. The namespace, optional, holds
        the release record and the lease (release.py, lease.py in k8s/rollouts/); without it that is the first namespace of the
        set by name, and a set that gets another first one starts a record anew.
    registry: where the target pulls images from, host[:port] and optional path. Or a mapping: `host`, that address; `ca`,
        optional, a file with the registry's certificate authority in PEM (below the repository unless absolute; that of this
        machine's cluster is known), which reaches every pod that speaks to it; `plain-http`, optional, `true` for a registry
        without TLS, refused by `production`.
    ports: optional; on which ports `hub` (default [443]) and `api-server` ([443, 6443]) answer, and `registry`, where that is
        not the port of its address alone. What NetworkPolicies let out follows them (k8s/prepare/policy_ports.py).
    kubernetes: minor version of the target, as a string; manifests are checked against its schema.
    secrets, config-maps: optional; `namespace/name: [key, …]` for each Secret or ConfigMap made outside of this repository.
    claims, service-accounts, priority-classes: optional; the same for PersistentVolumeClaims and ServiceAccounts
        (`[namespace/name, …]`) and PriorityClasses (`[name, …]`).
    accept: optional; findings of `invoke check` that are right here and shall not refuse a set: k8s/envs/accepted.py.
    accelerator: optional; `nvidia` (default), or `none`: for a cluster without a GPU. Then nothing asks for one, models are
        served by the CPU build of the api image, and experiments train on the CPU (k8s/prepare/accelerator.py). `production`
        refuses it.
    proof: `none`, or what an image must carry to be deployed: `key`, the public key's file (below the repository unless
        absolute); `policy`, optional, the mapping of registry/policy.py; `refuse`, optional, `false` to warn only. The
        environment `production` always asks and refuses.
    deploy-keys: the public keys (k8s/envs/trusted_signers.py) whose release records count; optional: without any, that of the
        checkout's own pair (k8s/rollouts/deploy_key.py). `production` names them.
    other-images: optional; other people's images that are allowed without proof of ours, one by one
        (k8s/envs/other_images.py).
    mutators: optional; `Kind/name` of each MutatingWebhookConfiguration, MutatingAdmissionPolicy, its binding, or
        CustomResourceDefinition with a conversion webhook of the set: they change objects after they were checked, so that
        others are refused.
    without-proof: optional; who may deploy without proof, and for how long (k8s/envs/without_proof.py).
    gpu-labels: optional; `nvidia` (default): GPU nodes carry the labels of NVIDIA's GPU feature discovery, and pods with a GPU
        are bound to nodes that can run their images. `none`: they do not, and pods go wherever the manifests say.
    model: optional; `reference`, the model that is served, by digest and in the environment's registry, as `invoke train` says
        it; `key`, the public key's file (as under proof) with which its signature is verified before anything is sent. Without
        a model, what serves one has no pods (k8s/prepare/served_model.py). `production` never leaves the key out.
    models: optional; `namespace/name: {reference: …, key: …}` of each workload that serves a model of its own; `model` is for
        the others.
    storage-class: optional; of every claim that names none itself. Default: the cluster's own default class.
    sizes: optional; `namespace/name: quantity` of a PersistentVolumeClaim, `namespace/workload/claim: quantity` of a claim in a
        pod template (an ephemeral volume) or in `volumeClaimTemplates`, and
        `namespace/workload/container: {requests: {…}, limits: {…}}` of a container, in place of what its manifest says; in a
        workflow the container of a step goes by the name of its template.
    replicas: optional; `namespace/name: [least, most]` of a HorizontalPodAutoscaler, or `namespace/name: n` of a Deployment or
        StatefulSet that has none.
    hosts: optional; `namespace/name: host` of an Ingress.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common import paths, single_node
from common.errors import UsageError
from common.reader import Keys
from k8s.envs import accepted, existing_objects, network, other_images, proof, settings, trusted_signers, without_proof
from k8s.envs.accepted import Accepted
from k8s.envs.existing_objects import Elsewhere
from k8s.envs.network import Network
from k8s.envs.other_images import OtherImage
from k8s.envs.proof import Gate, Model
from k8s.envs.settings import Settings
from k8s.envs.trusted_signers import TrustedKey
from k8s.envs.without_proof import WithoutProof
from k8s.objects import schema, strict_yaml
from k8s.objects.findings import Finding

# The environment that is never deployed to without proof.
_STRICT = "production"
# The image that has one build for GPUs and one for CPUs.
_SERVES = "llama-factory-api"
_FIX = "see the keys in k8s/envs/environment.py"


@dataclass(frozen=True, slots=True)
class DirectoryTarget:
    """Manifests are rendered into a directory, for people and for GitOps."""

    path: Path


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """Manifests are applied to the cluster of a kubeconfig context.

    Attributes:
        context: of the kubeconfig.
        namespace: where the release record and the lease lie; empty: the first of the set.
        kubeconfig: the file; empty: where kubectl itself finds one.
    """

    context: str
    namespace: str = ""
    kubeconfig: str = ""

    @property
    def of_this_machine(self) -> bool:
        """Whether it is the cluster that `invoke cluster` starts: for trying, and nobody else's."""
        return self.kubeconfig == str(single_node.kubeconfig())


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment.

    Attributes:
        name: its file's name.
        file: for messages.
        target: where manifests go.
        registry: where the target pulls images from.
        kubernetes: the target's minor version.
        proof: what images must carry; None: nothing.
        deploy_keys: whose release records count; none: that of the checkout.
        secrets: keys of each Secret made elsewhere, by (namespace, name).
        elsewhere: what else is made outside of this repository, and the keys it holds.
        accepted: the findings that shall not refuse a set.
        gpu: whether it has GPUs.
        gpu_labels: whether GPU nodes say by labels what they have.
        model: what is served; None: whatever is served already, or nothing.
        models: what single workloads serve, by `namespace/name`; the others serve `model`.
        settings: what it sets in the manifests.
        network: how the registry is reached, and the ports that pods go to.
        other_images: other people's images that are allowed.
        without_proof: who may deploy without proof; None: nobody.
        mutators: kind and name of the objects of the set that may change others when they are made.
    """

    name: str
    file: str
    target: DirectoryTarget | ClusterTarget
    registry: str
    kubernetes: str
    proof: Gate | None
    secrets: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    gpu: bool = True
    gpu_labels: bool = True
    model: Model | None = None
    settings: Settings = field(default_factory=Settings)
    network: Network = field(default_factory=Network)
    elsewhere: Elsewhere = field(default_factory=dict)
    accepted: tuple[Accepted, ...] = ()
    deploy_keys: tuple[TrustedKey, ...] = ()
    other_images: tuple[OtherImage, ...] = ()
    mutators: frozenset[str] = frozenset()
    models: Mapping[str, Model] = field(default_factory=dict)
    without_proof: WithoutProof | None = None

    @property
    def where(self) -> str:
        """The target for people."""
        match self.target:
            case DirectoryTarget(path):
                return f"directory {paths.shown(path)}"
            case ClusterTarget(context):
                return "the cluster of this machine" if self.target.of_this_machine else f"cluster of context {context}"

    def model_of(self, namespace: str, name: str) -> Model | None:
        """What a workload serves here; None: whatever it serves already, or nothing."""
        return self.models.get(f"{namespace}/{name}", self.model)

    def image_for(self, name: str) -> str:
        """The image of ours that runs here where a manifest names `name`: what serves on a CPU is another build."""
        return f"{name}-cpu" if not self.gpu and name == _SERVES else name


def folder() -> Path:
    """Where the environments lie."""
    return paths.K8S / "envs"


def names() -> tuple[str, ...]:
    """The names of all environments, sorted."""
    return tuple(sorted(file.stem for file in folder().glob("*.yaml")))


def load(name: str) -> Environment:
    """Read an environment.

    Raises:
        UsageError: there is none of this name, or its file holds something else than the keys above.
    """
    if name not in names():
        raise UsageError(f"no environment {name!r}", where=paths.shown(folder()), fix=f"there are: {', '.join(names())}")
    file = folder() / f"{name}.yaml"
    return parse(file.read_text(errors="replace"), name, paths.shown(file))


def parse(text: str, name: str, file: str) -> Environment:
    """Read an environment from its file's text.

    Raises:
        UsageError: it holds something else than the keys above.
    """
    documents = []
    for document in strict_yaml.documents(text, file):
        if isinstance(document, Finding):
            raise UsageError(document.what, where=f"{file}:{document.line}", fix=document.fix)
        documents.append(document)
    if len(documents) != 1:
        raise UsageError(f"{len(documents)} YAML documents, not one", where=file, fix=_FIX)
    body, lines = documents[0]
    top = Keys(body, file, fix=_FIX)
    target = _target(top.below("target"))
    registry, reached = network.parse(top, strict=name == _STRICT)
    kubernetes = top.text("kubernetes")
    if kubernetes not in schema.versions():
        raise top.refused("kubernetes", f"no schema for version {kubernetes!r}, there are {', '.join(schema.versions())}")
    asked = proof.gate(top)
    if name == _STRICT and not (asked and asked.refuse):
        raise top.refused("proof", f"{_STRICT} always asks for proof and refuses what has none")
    deploy_keys = trusted_signers.parse(top, "deploy-keys") if "deploy-keys" in top else ()
    secrets, made = existing_objects.parse(top)
    accepts = accepted.parse(top)
    accelerator = top.choice("accelerator", ("nvidia", "none"))
    if name == _STRICT and accelerator == "none":
        raise top.refused("accelerator", f"{_STRICT} serves on GPUs: nobody proves the CPU build of vLLM for it")
    labels = top.choice("gpu-labels", ("nvidia", "none"))
    model = proof.model(top.below("model"), registry, strict=name == _STRICT) if "model" in top else None
    models = proof.models(top.below("models", optional=True), registry, strict=name == _STRICT)
    sets = settings.parse(top)
    others = other_images.parse(top, lines, registry)
    excused = without_proof.parse(top, strict=name == _STRICT)
    mutators = frozenset(top.texts("mutators", ()))
    top.end()
    if name == _STRICT and isinstance(target, ClusterTarget) and not deploy_keys:
        raise top.refused("deploy-keys", f"missing: {_STRICT} goes back to no release that just any checkout signed")
    return Environment(
        name=name,
        file=file,
        target=target,
        registry=registry,
        kubernetes=kubernetes,
        proof=asked,
        secrets=secrets,
        gpu=accelerator == "nvidia",
        gpu_labels=labels == "nvidia",
        model=model,
        settings=sets,
        network=reached,
        elsewhere=made,
        accepted=accepts,
        deploy_keys=deploy_keys,
        other_images=others,
        mutators=mutators,
        models=models,
        without_proof=excused,
    )


def _target(keys: Keys) -> DirectoryTarget | ClusterTarget:
    if len(keys.body) != 1:
        raise keys.refused("", "name exactly one of directory, cluster")
    if "directory" in keys:
        directory = keys.below("directory")
        path = Path(directory.text("path"))
        directory.end()
        return DirectoryTarget(paths.dist() / path)
    if "cluster" in keys:
        cluster = keys.below("cluster")
        context = cluster.text("context")
        namespace = cluster.text("namespace") if "namespace" in cluster else ""
        file = cluster.text("kubeconfig") if "kubeconfig" in cluster else ""
        cluster.end()
        return ClusterTarget(context, namespace, str(paths.state() / Path(file).expanduser()) if file else "")
    keys.end()
    raise AssertionError
