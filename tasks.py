"""The Invoke face of Pinwheel: parse, call one stage, print. No logic lives here.

Each task imports its own stage: a command starts as fast as what it does.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import shlex
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from common import console, offline, paths, positional_lists
from common.errors import ExitCode, MissingEnvironmentError, PinwheelError, UsageError
from common.files import FULL
from common.signals import TerminatedError, terminable
from common.summary import Summary

positional_lists.take_lists()
# What we write, the cache above all, is never for others to write, whatever the user's own mask says.
os.umask(os.umask(0o022) | 0o022)
summary = Summary()
atexit.register(summary.show)


def stage(**options: Any) -> Callable[[Callable[..., str]], Any]:
    """Make a task of a function that returns its outcome; errors become one line and an exit code, here and nowhere else."""

    def decorate(body: Callable[..., str]) -> Any:
        called = str(options.get("name", body.__name__))

        @functools.wraps(body)
        def guarded(*args: Any, **kwargs: Any) -> None:
            if kwargs.get("json") or kwargs.get("sarif"):
                console.aside()
            try:
                with terminable(), summary.stage(called) as outcome, offline.forced(wanted=kwargs.pop("offline", False)):
                    outcome.append(body(*args, **kwargs))
            except PinwheelError as problem:
                console.error(problem.line())
                raise Exit(code=problem.exit_code) from None
            except OSError as problem:
                # Disk full, no permission, a file where a folder should be: the machine's, not a bug to show a traceback of.
                console.debug(traceback.format_exc())
                fix = "free some space, or lift the limit" if problem.errno in FULL else ""
                where = str(problem.filename or called)
                refused = MissingEnvironmentError(problem.strerror or str(problem), where=where, fix=fix)
                console.error(refused.line())
                raise Exit(code=refused.exit_code) from None
            except TerminatedError:
                console.error("told to end")
                raise Exit(code=ExitCode.TERMINATED) from None
            except KeyboardInterrupt:
                console.error("interrupted")
                raise Exit(code=ExitCode.INTERRUPTED) from None

        # Every task has --offline: the flag is added to what Invoke sees of the signature.
        own = inspect.signature(body)
        flag = inspect.Parameter("offline", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False)
        guarded.__signature__ = own.replace(parameters=[*own.parameters.values(), flag])  # type: ignore[attr-defined]
        options["help"] = {**options.get("help", {}), "offline": "fetch nothing: only the store and PINWHEEL_MIRROR"}
        return task(guarded, **options)

    return decorate


@stage(help={"install": "install and start what is missing, from Debian's own packages (needs root)"})
def engine(_: Context, install: bool = False) -> str:  # noqa: FBT001
    """Report the tools, the Docker Engine and the registry of this machine."""
    from common import host

    if install:
        host.install()
    return host.report()


@stage(
    optional=["explain"],
    help={
        "check": "change nothing, ask no network; fail when a lock is stale or was edited",
        "explain": "a locked package: who needs it, why that version, what it costs; alone or with a .in file: why that "
        "does not resolve, and what would",
        "upgrade": "a package or model that may move to its newest version, `debian` for all Debian packages, "
        "`vulnerable` for what has known defects, or `all`; without it locked versions stay",
    },
)
def lock(_: Context, check: bool = False, explain: str | None = None, upgrade: str | None = None) -> str:  # noqa: FBT001
    """Resolve the inputs lockfiles/*.in and write the locks; say what changed and what it costs."""
    if check + (explain is not None) + (upgrade is not None) > 1:
        raise UsageError("--check, --explain and --upgrade exclude each other", fix="give one of them")
    if "" in (explain, upgrade):
        raise UsageError("an empty name was given", fix="name a package; an unset variable of your shell reads like this")
    if check:
        from lockfiles.check import check as check_locks

        return check_locks()
    if explain is not None:
        from lockfiles import policy
        from lockfiles.explain import explain as explain_set

        # Invoke gives True for the flag alone.
        return explain_set(explain if isinstance(explain, str) else "", policy.read().cooldown_days)
    from images.forecast import impact
    from lockfiles import changes
    from lockfiles.audit import moved
    from lockfiles.lock import write_all

    before, after = write_all(upgrade or "")
    outcome = changes.show(before, after)
    impact.show(before, after)
    moved.show(before, after)
    return outcome


@stage(
    help={
        "to": "a folder: write an air-gap mirror of everything there",
        "set": "only this one of the sets",
        "advisories": "only the advisory data that `invoke audit` reads, as it is today",
    }
)
def fetch(_: Context, to: str = "", set: str = "", advisories: bool = False) -> str:  # noqa: A002, FBT001
    """Bring every locked byte into the local store, verified; with --to into a mirror for machines without a network."""
    from lockfiles import fetching, inputs, models
    from lockfiles.audit import data

    if advisories:
        if set:
            raise UsageError("--advisories are about everything, --set about a set", fix="give one of them")
        fetched = data.fetch()
        return f"{fetched}; {data.write_mirror(Path(to))} files written to {to}" if to else fetched
    names = inputs.chosen(set)
    if not set:
        models.fetch()
    if to:
        added, size = fetching.write_mirror(names, Path(to), () if set else models.artifacts())
        data.write_mirror(Path(to))
        return f"{to} holds everything; {added} files added, {console.size(size)}"
    fetching.fetch(names)
    return f"the store holds everything: {paths.cache() / 'store'}"


@stage(
    help={
        "ref": "images in a registry: what they hold, by the SBOMs that are attached to them",
        "set": "only this one of the sets, with its base",
        "env": "what runs in this environment",
        "key": "public key by which an image's SBOM is verified; default: that of the checkout's own pair",
        "json": "the whole result as JSON, on standard output alone",
        "sarif": "the same as SARIF 2.1.0, for code hosts",
    },
    iterable=["ref"],
    positional=["ref"],
)
def audit(
    _: Context,
    ref: list[str],
    set: str = "",  # noqa: A002
    env: str = "",
    key: str = "",
    json: bool = False,  # noqa: FBT001
    sarif: bool = False,  # noqa: FBT001
) -> str:
    """What is locked, what images hold (REF …) or what runs (--env), against the advisories of today."""
    from lockfiles.audit import command

    if bool(ref) + bool(set) + bool(env) > 1 or (json and sarif):
        raise UsageError("REF, --set and --env exclude each other, and so do --json and --sarif", fix="give one of them")
    if ref:
        from registry import contents

        result = contents.audit(ref, key)
    elif env:
        from k8s import audit as running

        result = running.audit(env)
    else:
        from lockfiles.audit import run

        result = run.of_locks(set)
    return command.conclude(result, "json" if json else "sarif" if sarif else "text")


@stage(name="store", help={"verify": "hash every file again", "prune": "remove what no lock names"})
def store_(_: Context, verify: bool = False, prune: bool = False) -> str:  # noqa: FBT001
    """Say what the store holds; hash it again, or remove what no lock names."""
    from lockfiles import upkeep

    return upkeep.tend(verify=verify, prune=prune)


@stage(help={"set": "only this one of the sets"})
def licences(_: Context, set: str = "") -> str:  # noqa: A002
    """Print the licences of the base and of every set, those that are not free first."""
    from lockfiles import inputs
    from lockfiles.licences import table

    return table.show(inputs.chosen(set))


@stage(
    help={
        "name": "one of lockfiles/models.in",
        "to": "the folder to lay it out in",
        "push": "copy it into the registry of an environment, signed",
        "env": "with --push: one of k8s/envs/",
        "key": "with --push: to sign with, as for `invoke push`",
    }
)
def model(_: Context, name: str, to: str = "", push: bool = False, env: str = "local", key: str = "") -> str:  # noqa: FBT001
    """Fetch a pinned model, every file verified; lay it out for from_pretrained(), or push it for a cluster's trainings."""
    from lockfiles import models

    if bool(to) == push:
        raise UsageError("--to lays a model out, --push sends it to a registry", fix="give one of them")
    models.fetch([name])
    if to:
        return models.lay_out(name, Path(to))
    from k8s.training import base_model

    return base_model.push_to(env, name, key=key)


@stage(
    help={
        "cpu": "build train and api-cpu, which need no GPU, instead of train and api",
        "family": "build this pair instead: cu128, for drivers 525 to 579",
        "image": "build this one alone: a folder of images/",
        "twice": "build again from nothing and compare every digest",
        "plan": "only say what would be made, how large it comes out, and what a push would send",
        "registry": "with --plan: host[:port][/path] that would be pushed to; default: the embedded one",
        "from": "host[:port][/path]: take the layers that images there have, by their signed inventories; make the others",
        "key": "with --from: public key that must have signed the inventory; default: that of the checkout's own pair",
        "spot-check": "with --from: make so many of those layers all the same, chosen by chance, and compare",
    }
)
def build(
    _: Context,
    cpu: bool = False,  # noqa: FBT001
    family: str = "",
    image: str = "",
    twice: bool = False,  # noqa: FBT001
    plan: bool = False,  # noqa: FBT001
    registry: str = "",
    from_: str = "",
    key: str = "",
    spot_check: str = "",
) -> str:
    """Build the images from the locks into dist/."""
    from images import spec

    if sum(map(bool, (cpu, family, image))) > 1:
        raise UsageError("--cpu and --family name a pair of images and --image one", fix="give one of them")
    if registry and not plan:
        raise UsageError("--registry says where --plan looks", fix="add --plan; `invoke push --registry` sends what was built")
    roles = (image,) if image else spec.pair(spec.CPU if cpu else family)
    if plan:
        from images.forecast import predict

        return predict.show_plan(roles, registry)
    from images.build import build as build_images

    if not from_:
        if key or spot_check:
            raise UsageError("--key and --spot-check say how layers are taken", fix="add --from REGISTRY")
        return build_images(roles, twice=twice).outcome()
    if twice:
        raise UsageError("--from makes as little as it can, and --twice makes all", fix="compare some layers: --spot-check N")
    from images import thin
    from registry import inventories, signer

    donor = inventories.donor(from_, signer.public_key(key), roles)
    return build_images(roles, donor=donor, spot_checks=thin.number(spot_check)).outcome()


@stage(
    help={
        "gpu": "run on the GPU, with the api image instead of api-cpu",
        "no-container": "run the programs of this machine's PATH, without engine and images: proves nothing of a digest",
        "registry": "host[:port][/path]: instead of what was built here, pull and run what lockfiles/images.lock names",
        "image": "HOST/NAME@sha256:…: pull and run this one instead; may be given for each of the two",
    },
    iterable=["image"],
)
def smoke(
    _: Context,
    image: list[str],
    gpu: bool = False,  # noqa: FBT001
    no_container: bool = False,  # noqa: FBT001
    registry: str = "",
) -> str:
    """Prove what was built or pushed: train a tiny model in one image, serve it from the other, write the receipt."""
    from smoke import ladder, pulled

    if no_container and (registry or image):
        raise UsageError("--no-container runs no image", fix="leave it out, or --registry and --image")
    chosen = pulled.chosen(registry, image, gpu=gpu) if registry or image else None
    return ladder.run_smoke(gpu=gpu, container=not no_container, pulled=chosen).outcome()


@stage(
    help={
        "registry": "host[:port][/path] that has the images; default: the embedded registry on loopback",
        "receipt": "of the run, from another machine too; default: dist/smoke/receipt.json",
        "key": "to sign with, as for `invoke push`",
    }
)
def prove(_: Context, registry: str = "", receipt: str = "", key: str = "") -> str:
    """Attach the result of a smoke run to the images that ran: push first, prove later, here or elsewhere."""
    from registry.prove import prove as attach_result

    return attach_result(registry, key=key, file=receipt)


@stage(
    help={
        "registry": "host[:port][/path]; default: the embedded registry on loopback",
        "key": "to sign with: a file, a KMS URI or env://NAME, as for cosign; default: PINWHEEL_KEY, else a pair in .keys/",
        "keyless": "sign without a key, by cosign's OIDC login",
    }
)
def push(_: Context, registry: str = "", key: str = "", keyless: bool = False) -> str:  # noqa: FBT001
    """Push what was built, read each digest back, attach signed proof, record the digests in lockfiles/images.lock."""
    from registry import attach
    from registry.push import push as push_images
    from smoke.receipt import proven_digests

    attach.check(registry, key=key, keyless=keyless)
    pushed = push_images(registry, proven_digests())
    return f"{pushed}; {attach.attach(registry, key=key, keyless=keyless)}"


@stage(
    help={
        "ref": "an image in a registry, by tag or digest",
        "key": "the public key's file, or a URI that cosign knows; default: that of .keys/",
        "policy": "a file that says what must hold (docs/proof.md); default: everything, on a CPU at least",
        "subject": "who signed without a key: a mail address, or a workflow's URI with its ref",
        "issuer": "with --subject: whose login it is, a URI",
        "trust_root": "with --subject: the trust root's file, of a sigstore of your own; default: the public one",
    }
)
def verify(
    _: Context, ref: str, key: str = "", policy: str = "", subject: str = "", issuer: str = "", trust_root: str = ""
) -> str:
    """Say whether an image carries its proof: signature, SBOM, provenance, a passed smoke run of this very digest."""
    from registry import inspect as show
    from registry.keyless import Identity

    if bool(subject) != bool(issuer) or (trust_root and not subject):
        raise UsageError("--subject and --issuer go together, and --trust-root with them", fix="give both")
    return show.show(ref, key, policy, Identity(issuer, subject) if subject else None, trust_root)


_TO_CLUSTER = {
    "env": "one of k8s/envs/",
    "dry-run": "say what would happen and change nothing",
    "yes": "agree to the plan beforehand; needed without a terminal",
    "wait": "wait for another deploy to end, instead of being refused",
}


@stage(
    help={
        **_TO_CLUSTER,
        "prune": "delete what earlier releases left and the manifests no longer have; listed first",
        "without-proof": "in an emergency, the reason why images may go that lack proof; the environment says who may",
    }
)
def deploy(
    _: Context,
    env: str,
    dry_run: bool = False,  # noqa: FBT001
    yes: bool = False,  # noqa: FBT001
    wait: bool = False,  # noqa: FBT001
    prune: bool = False,  # noqa: FBT001
    without_proof: str = "",
) -> str:
    """Check the manifests, pin every image by digest, ask for its proof; then render or apply, as the environment says."""
    from k8s.deploy import deploy as deploy_to

    return deploy_to(env, dry_run=dry_run, yes=yes, wait=wait, prune=prune, without_proof=without_proof).outcome()


@stage(help=_TO_CLUSTER)
def rollback(_: Context, env: str, dry_run: bool = False, yes: bool = False, wait: bool = False) -> str:  # noqa: FBT001
    """Go back to the last proven set before the one that runs."""
    from k8s.rollback import rollback as roll_back

    return roll_back(env, dry_run=dry_run, yes=yes, wait=wait).outcome()


@stage(
    help={
        "experiment": "experiments/<team>/<model>/<run>.yaml, a LLaMA-Factory configuration",
        "env": "one of k8s/envs/",
        "watch": "follow it to its end",
        "deploy": "serve the model when it is registered",
        "again": "run it once more: failed, or its model is there already",
        "dry-run": "say what would happen and change nothing",
    }
)
def train(
    _: Context,
    experiment: str,
    env: str = "local",
    watch: bool = False,  # noqa: FBT001
    deploy: bool = True,  # noqa: FBT001
    again: bool = False,  # noqa: FBT001
    dry_run: bool = False,  # noqa: FBT001
) -> str:
    """Check an experiment of this repository and start its run in the cluster: train, export, register, deploy."""
    from k8s.training.submit import train as start

    return start(experiment, env, follow=watch, deploy=deploy, again=again, dry_run=dry_run).outcome()


@stage(
    help={
        "env": "one of k8s/envs/",
        "prune": "delete workflows and ConfigMaps of runs that ended a week ago or more and whose model is not served; listed "
        "first. Folders on the volume stay: only pods see them",
        "yes": "agree to that beforehand; needed without a terminal",
    }
)
def runs(_: Context, env: str, prune: bool = False, yes: bool = False) -> str:  # noqa: FBT001
    """List what training runs left in a cluster; delete what is old and not served."""
    from k8s.training.leftovers import runs as list_runs

    return list_runs(env, prune=prune, yes=yes)


@stage(help={"question": "in quotes", "env": "one of k8s/envs/"})
def ask(_: Context, question: str, env: str) -> str:
    """Ask the model that an environment serves; its answer comes word by word."""
    from k8s.ask import ask as ask_model

    return ask_model(env, question)


@stage(help={"env": "one of k8s/envs/"})
def drift(_: Context, env: str) -> str:
    """Compare what runs, the release record and this checkout; code 19 where they differ."""
    from k8s.drift import drift as look

    return look(env)


@stage(help={"env": "one of k8s/envs/", "folder": "holds a file for each key; default: variables only"})
def secrets(_: Context, env: str, folder: str = "") -> str:
    """Make or rotate the Secrets of an environment; no value is ever printed."""
    from k8s import secrets as keys

    return keys.put(env, folder=folder)


@stage(
    help={
        "up": "bring it up: build its programs once, start it, install Argo Workflows; mends one that broke",
        "with": "with --up: what to add: policies (NetworkPolicies are enforced), metrics (what pods use); policies,metrics",
        "down": "take it down, with everything in it; only its programs stay, in the cache",
        "status": "say what runs, where the logs are, and how kubectl is used on it; so does the command alone",
        "pretend-gpu": "with --up: so many GPUs that the node claims to have, for the scheduler; 0 takes them away",
    }
)
def cluster(
    _: Context,
    up: bool = False,  # noqa: FBT001
    with_: str = "",
    down: bool = False,  # noqa: FBT001
    status: bool = False,  # noqa: FBT001
    pretend_gpu: str = "",
) -> str:
    """A real Kubernetes of one node on this machine, for trying and for tests; NOT for production."""
    if up + down + status > 1:
        raise UsageError("--up, --down and --status exclude each other", fix="give one of them")
    if not up and (with_ or pretend_gpu):
        raise UsageError("--with and --pretend-gpu say what to bring up", fix="add --up")
    from k8s.single_node import cluster as single_node

    if up:
        return single_node.up(with_, pretend_gpu)
    return single_node.down() if down else single_node.status()


@stage()
def envs(_: Context) -> str:
    """Show all environments side by side, and where they differ."""
    from k8s.envs import table as compare

    return compare.show()


@stage(
    iterable=["path"],
    positional=["path"],
    help={
        "path": "files or folders of manifests, as many as you like; - is standard input",
        "env": "one of k8s/envs/",
        "json": "write what was found to standard output as JSON",
        "sarif": "the same as SARIF 2.1.0, for CI",
        "server": "ask the environment's cluster as well, by dry runs; nothing stays there",
    },
)
def check(
    context: Context,
    path: list[str],
    env: str = "rendered",
    json: bool = False,  # noqa: FBT001
    sarif: bool = False,  # noqa: FBT001
    server: bool = False,  # noqa: FBT001
) -> str:
    """Check and pin any plain manifests; changes nothing."""
    if json and sarif:
        raise UsageError("--json and --sarif exclude each other", fix="give one of them")
    from k8s.check import JSON, SARIF, run_check

    places = [*path, *shlex.split(context.remainder)]
    return run_check(places, env, JSON if json else SARIF if sarif else "", server=server)


@stage(
    help={
        "what": "locks, build, bump, startup, smoke or deploy",
        "quick": "build: the small set only, once, and nothing written",
    }
)
def bench(_: Context, what: str, quick: bool = False) -> str:  # noqa: FBT001
    """Measure Pinwheel beside the plain tools, in one run, and write the table into docs/performance.md."""
    from bench.command import run_benchmark

    return run_benchmark(what, quick=quick)


@stage(
    help={
        "fast": "only what needs no engine and no tools of the machine: under a minute",
        "cluster": "run the deploy scenarios on the cluster of this kubeconfig context, in namespaces of their own",
        "images": "with --cluster: two images by digest that it can pull, A@sha256:…,B@sha256:…",
    }
)
def test(_: Context, fast: bool = False, cluster: str = "", images: str = "") -> str:  # noqa: FBT001, PT028 - no test
    """Run the project's whole test suite."""
    from tests import suite

    if cluster:
        return suite.run_cluster(cluster, images or os.environ.get("PINWHEEL_TEST_IMAGES", ""))
    return suite.run(fast=fast)
