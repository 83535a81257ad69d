"""`invoke train`: check an experiment, name its run by content, bring it where the environment says, and follow it there.

Nothing is sent before all of it is known to fit: the experiment against the locked LLaMA-Factory, the objects against their
schemas, the images against the proof that the environment asks for, the cluster against what this checkout would deploy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from common import console, git, paths
from common.errors import MissingEnvironmentError, PinwheelError, PolicyError, UsageError
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget, DirectoryTarget, Environment
from k8s.objects import strict_yaml
from k8s.objects.manifests import Manifest
from k8s.prepare import accelerator, checked, directory, gate, pin
from k8s.rollouts import question
from k8s.rollouts.kubectl import Kubectl, Patience, refusal
from k8s.training import artifact, base_model, experiment, keys, lengths, parser, receipt, runs, watch, workflow
from k8s.training.artifact import FileArtifact
from k8s.training.names import NAMESPACE, WORKFLOWS
from k8s.training.receipt import TrainingReceipt
from k8s.training.runs import Run
from k8s.training.workflow import Objects
from lockfiles.models.lockfile import PinnedModel
from oci.reference import ImageRef

# Seconds until an ended workflow and its pods are gone.
_GONE = 300.0
_DEPLOY = "`invoke deploy --env {}` first: a run uses what the cluster holds"


def train(
    path: str,
    env_name: str,
    *,
    follow: bool = False,
    deploy: bool = True,
    dry_run: bool = False,
    again: bool = False,
    patience: Patience | None = None,
) -> TrainingReceipt:
    """Check an experiment and start its run, or say where it stands.

    Args:
        path: `experiments/<team>/<model>/<run>.yaml`.
        env_name: one of `k8s/envs/`.
        follow: wait for its end, and say what happens meanwhile.
        deploy: whether the model is served when it is registered.
        dry_run: say what would happen and change nothing.
        again: run a failed run, or one whose model is there already, once more.
        patience: how long to wait for a cluster.

    Returns:
        What was done, as written to `dist/training-<env_name>.json` (a dry run writes nothing).

    Raises:
        UsageError: the environment is unknown or wrong, or something is wrong with the experiment, also in the eyes of
            LLaMA-Factory's own parser; nothing was sent.
        LockError: a lock is missing or was edited, or nothing was pushed yet.
        PolicyError: an object does not fit, an image lacks proof, or the cluster does not hold what the run needs; nothing was
            sent.
        RegistryError: the registry refuses, fails, or holds other bytes than were sent.
        MissingEnvironmentError: no kubectl, no such context, no answer from the cluster.
        TrainingError: it was followed, and failed.
    """
    env = environment.load(env_name)
    if isinstance(env.target, DirectoryTarget) and (follow or again):
        fix = "leave --watch and --again out: runs are followed where the directory is applied"
        raise UsageError(f"{env.name} is rendered into a directory: nothing runs there", where=env.file, fix=fix)
    made = experiment.read(path, keys.known())
    if made.gpus and not env.gpu:
        fix = f"leave `{experiment.GPUS}` out to train on the CPU, or name an environment that has GPUs"
        raise UsageError(f"it asks for {made.gpus} GPUs, and {env.name} has none ({env.file})", where=made.file, fix=fix)
    config = accelerator.experiment(made.config, env)
    differing = sorted(key for key, value in config.items() if made.config.get(key) != value)
    made = replace(made, config=config)
    locked = checked.locked_images(required=True)
    train_image = workflow.pinned(workflow.TRAIN_IMAGE, env, locked)
    # A model that is not served needs nothing that serves.
    images = [train_image, workflow.pinned(workflow.API_IMAGE, env, locked)] if deploy else [train_image]
    data = artifact.of_dataset(made.dataset, made.name, env.registry)
    source = git.revision()
    run = runs.of_experiment(made, data, env.registry, train_image, source)
    console.info(f"environment  {env.name}: {env.where}")
    console.info(f"experiment   {run.experiment}: {len(made.config)} keys, {len(made.dataset.files)} files of data")
    origin = f"{made.base.repo} at " if made.base.repo else ""
    console.info(f"base model   {made.base.name}: {origin}{made.base.at}, {console.size(made.base.size)}")
    if differing:
        shown = ", ".join(f"{key}: {str(config[key]).lower()}" for key in differing)
        console.info(f"accelerator  none ({env.file}): {shown}")
    if env.gpu:
        each = ", a process of torchrun for each, and per_device_train_batch_size on each" if run.gpus > 1 else ""
        console.info(f"GPUs         {run.gpus}{each}")
    console.info(f"version      {run.version}")
    objects = workflow.checked(run, env, locked, deploy=deploy)
    lengths.tell(made.base, config, objects.serves)
    proof = gate.check(images, env)
    result = TrainingReceipt(
        environment=env.name,
        target=env.where,
        result="planned",
        version=run.version,
        experiment=run.experiment,
        source=source,
        base=f"{made.base.called}@{made.base.commit}",
        dataset=run.dataset,
        images=tuple(map(str, images)),
        proof=proof,
        deploy=deploy,
    )
    match env.target:
        case DirectoryTarget():
            parser.ask(run, train_image)
            result = _to_directory(result, env, env.target, objects, data, made.base, dry_run=dry_run)
        case ClusterTarget() as target:
            kubectl = Kubectl(target, patience or Patience())
            cluster = _Cluster(kubectl, env, run, objects, data, made.base)
            asked = made.dataset.question if deploy and follow else ""
            result = cluster.submit(result, dry_run=dry_run, again=again)
            if not dry_run:
                # Whatever becomes of it from here on: that it was submitted is written down.
                receipt.write(result)
                result = cluster.follow(result, path, wait=follow)
                if asked and result.model:
                    cluster.ask(asked)
    if not dry_run:
        console.info(f"receipt      {paths.shown(receipt.write(result))}")
    return result


def _to_directory(
    result: TrainingReceipt,
    env: Environment,
    target: DirectoryTarget,
    objects: Objects,
    data: FileArtifact,
    base: PinnedModel,
    *,
    dry_run: bool,
) -> TrainingReceipt:
    """Write the run's objects beside the rendered manifests: `<directory>-runs/<version>/`, whole or not at all.

    Beside and not among them: the next deploy makes the directory hold its own set and nothing else.
    """
    place = target.path.with_name(f"{target.path.name}-runs") / result.version
    head = f"{directory.HEAD} for environment {env.name}: {result.experiment}. Do not edit.\n"
    content = {name: (head + strict_yaml.dump([body])).encode() for name, body in objects.files().items()}
    before = directory.current(place)
    if dry_run:
        console.done(f"dry run: {paths.shown(place)} was left as it is, and nothing was pushed")
        return result
    artifact.push(data, reached=env.network.access())
    base_model.ensure(base, env)
    if before != content:
        directory.write(place, content)
    console.done(f"written      {len(content)} files in {paths.shown(place)}; nothing was submitted")
    return replace(result, result="written", target=f"directory {paths.shown(place)}")


class _Cluster:
    """One run and the cluster it goes to."""

    def __init__(
        self, kubectl: Kubectl, env: Environment, run: Run, objects: Objects, data: FileArtifact, base: PinnedModel
    ) -> None:
        self.kubectl, self.env, self.run, self.objects, self.data, self.base = kubectl, env, run, objects, data, base

    def submit(self, result: TrainingReceipt, *, dry_run: bool, again: bool) -> TrainingReceipt:
        """Bring the run into the cluster, if it is not there."""
        self.kubectl.preflight(self.env.kubernetes)
        self._same(self.objects.template)
        self._secrets()
        there = self.kubectl.get(WORKFLOWS, NAMESPACE, self.run.version)
        if there is not None and not (again and watch.phase(there) in watch.ENDED):
            return self._stands(result, there)
        name, reached = self.run.model.removeprefix(f"{self.env.registry}/models/"), self.env.network.access()
        model = ""
        # The cluster of this machine comes and goes, with its keys and what it serves, while the registry keeps its models: one
        # that is new trains anew.
        if there is None and not again and not self.kubectl.target.of_this_machine:
            model = artifact.model_reference(self.env.registry, name, self.run.version, reached=reached)
        if model:
            console.done(f"there        the model of this version is in the registry: {model}")
            console.info("to train it once more all the same, add --again")
            return replace(result, result="there", model=model)
        parser.ask(self.run, ImageRef.parse(self.run.train_image))
        if dry_run:
            console.done("dry run: nothing was pushed, nothing was submitted")
            return result
        artifact.push(self.data, reached=reached)
        base_model.ensure(self.base, self.env)
        if there is not None:
            self._remove(there)
        self._send()
        console.done(f"submitted    Workflow {NAMESPACE}/{self.run.version}")
        return replace(result, result="submitted")

    def follow(self, result: TrainingReceipt, path: str, *, wait: bool) -> TrainingReceipt:
        """Wait for the workflow's end, if that is wanted; say what is to be done with the model."""
        if result.model:
            self._served(result.model)
            return result
        look = f"invoke train --experiment {path} --env {self.env.name} --watch"
        if not wait:
            console.info(f"follow it    {look}")
            return result
        try:
            model = watch.follow(self.kubectl, self.run.version)
        except KeyboardInterrupt:
            console.warn(f"the workflow {self.run.version} goes on in the cluster; to follow it again: {look}")
            raise
        if model:
            self._served(model)
        return replace(result, result="succeeded", model=model)

    def ask(self, asked: str) -> None:
        """Show what the served model answers to a question of its data set; that it cannot be asked is no failed training."""
        console.info(f"question     {asked}")
        try:
            console.info(f"answer       {''.join(question.answer(self.kubectl, asked))}")
        except PinwheelError as problem:
            console.warn(problem.line())
        console.info(f'ask it       invoke ask --env {self.env.name} "…"')

    def _served(self, model: str) -> None:
        console.done(f"model        {model}")
        if isinstance(self.env.target, ClusterTarget) and self.env.target.of_this_machine:
            return  # What it serves goes with it.
        console.info(f"write into   {self.env.file}, so that the next deploy keeps it:")
        console.info(f"             model: {{reference: {model}, key: …}}")

    def _stands(self, result: TrainingReceipt, there: Mapping[str, Any]) -> TrainingReceipt:
        state = watch.phase(there)
        console.done(f"there        Workflow {NAMESPACE}/{self.run.version}: {state}; nothing was submitted")
        if state in watch.FAILED:
            console.warn(f"it failed: {watch.message(there) or 'no reason is given'}")
            console.info("to run it again from its last checkpoint, add --again")
        return replace(result, result="there", model=watch.model(there) if state == "Succeeded" else "")

    def _remove(self, there: Mapping[str, Any]) -> None:
        name = self.run.version
        console.warn(
            f"deleting     Workflow {NAMESPACE}/{name}, which ended {watch.phase(there)}; its files on the volume stay"
        )
        # Its pods first: those of the new one have the same names.
        args = ["delete", WORKFLOWS, name, "-n", NAMESPACE, "--ignore-not-found", "--cascade=foreground"]
        answer = self.kubectl.call([*args, f"--timeout={_GONE:.0f}s"], timeout=_GONE + self.kubectl.patience.request)
        if answer.code:
            fix = f"let your account `delete` workflows in {NAMESPACE}; the one that ended is still there"
            raise refusal(answer, f"the cluster does not delete the workflow {name}", fix)

    def _send(self) -> None:
        answer = self.kubectl.apply(strict_yaml.dump([self.objects.config]))
        if answer.code:
            raise refusal(answer, "the cluster refuses the run's ConfigMap", "see its words; no workflow was submitted")
        answer = self.kubectl.create(self.objects.workflow)
        # Two at once, or an answer that was lost on the way: it is there, and of this very content.
        if answer.code and "AlreadyExists" not in answer.stderr and "already exists" not in answer.stderr:
            raise refusal(answer, "the cluster refuses the workflow", "see its words; its ConfigMap is there, and does nothing")

    def _same(self, wanted: Manifest) -> None:
        """See that the cluster holds the WorkflowTemplate as this checkout would deploy it: its images, then all of it."""
        answer = self.kubectl.request(
            ["get", "workflowtemplates.argoproj.io", wanted.name, "-n", NAMESPACE, "--ignore-not-found", "-o", "json"]
        )
        if answer.code and "the server doesn't have a resource type" in answer.stderr:
            fix = "install Argo Workflows: docs/cluster.md says which release and how"
            raise MissingEnvironmentError("the cluster knows no workflows", where=self.kubectl.context, fix=fix)
        first = _DEPLOY.format(self.env.name)
        if answer.code:
            raise refusal(answer, f"the cluster does not show the {wanted.title}", f"see its words, or {first}")
        body = next(iter(directory.objects_in({"live.json": answer.stdout.encode()})), None)
        if body is None:
            raise PolicyError(f"the cluster has no {wanted.title}", where=self.kubectl.context, fix=first)
        live = {path: image for (_, path), image in pin.images([body], self.env.kubernetes).items()}
        for path, image in sorted(self.objects.images.items(), key=str):
            if live.get(path) != image:
                what = f"{wanted.title} runs {live.get(path, 'no image')} where this checkout has {image}"
                raise PolicyError(what, where=self.kubectl.context, fix=first)
        if body.body.get("spec") != wanted.body.get("spec"):
            raise PolicyError(
                f"{wanted.title} is another in the cluster than in this checkout", where=self.kubectl.context, fix=first
            )

    def _secrets(self) -> None:
        """See that the Secrets of the environment in this namespace are there; no value leaves kubectl."""
        missing = []
        for (namespace, name), needed in sorted(self.env.secrets.items()):
            if namespace != NAMESPACE:
                continue
            there = self.kubectl.secret_keys(namespace, name)
            missing += [f"{namespace}/{name}: {key}" for key in sorted(needed - there)]
        if missing:
            fix = f"`invoke secrets --env {self.env.name}` makes them; nothing was sent"
            raise PolicyError("Secrets that the run needs are missing", where="; ".join(missing), fix=fix)
