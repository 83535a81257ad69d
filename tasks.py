"""The Invoke face of Pinwheel: parse, call one stage, print. No logic lives here."""

from __future__ import annotations

import atexit
import functools
import shlex
import traceback
from collections.abc import Callable
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from common import console, host, paths
from common.errors import ExitCode, MissingEnvironmentError, PinwheelError, UsageError
from common.summary import Summary
from images import build as builder
from images import push as pusher
from k8s import check as checker
from k8s import deploy as deployer
from lockfiles import inputs
from lockfiles import lock as locks
from smoke import ladder
from smoke import receipt as proof
from tests import suite

summary = Summary()
atexit.register(summary.show)


def stage(**options: Any) -> Callable[[Callable[..., str]], Any]:
    """Make a task of a function that returns its outcome; errors become one line and an exit code, here and nowhere else."""

    def decorate(body: Callable[..., str]) -> Any:
        @functools.wraps(body)
        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                with summary.stage(body.__name__) as outcome:
                    outcome.append(body(*args, **kwargs))
            except PinwheelError as problem:
                console.error(problem.line())
                raise Exit(code=problem.exit_code) from None
            except OSError as problem:
                # Disk full, no permission, a file where a folder should be: the machine's, not a bug to show a traceback of.
                console.debug(traceback.format_exc())
                refused = MissingEnvironmentError(
                    problem.strerror or str(problem), where=str(problem.filename or body.__name__)
                )
                console.error(refused.line())
                raise Exit(code=refused.exit_code) from None
            except KeyboardInterrupt:
                console.error("interrupted")
                raise Exit(code=ExitCode.INTERRUPTED) from None

        return task(guarded, **options)

    return decorate


@stage(help={"install": "install and start what is missing, from Debian's own packages (needs root)"})
def engine(_: Context, install: bool = False) -> str:  # noqa: FBT001
    """Report the tools, the Docker Engine and the registry of this machine."""
    if install:
        host.install()
    return host.report()


@stage(
    help={
        "check": "change nothing, ask no network; fail when a lock is stale or was edited",
        "upgrade": "a package that may move to its newest version, or `all`; without it locked versions stay",
    }
)
def lock(_: Context, check: bool = False, upgrade: str = "") -> str:  # noqa: FBT001
    """Resolve the inputs lockfiles/*.in and write the locks."""
    if check and upgrade:
        raise UsageError("--check changes nothing and --upgrade does", fix="give one of them")
    return locks.check() if check else locks.write_all(upgrade)


@stage()
def fetch(_: Context) -> str:
    """Bring every locked byte into the local store, verified."""
    locks.fetch(inputs.set_names())
    return f"the store holds everything: {paths.cache() / 'store'}"


@stage(
    help={
        "cpu": "build train and api-cpu, which need no GPU, instead of train and api",
        "image": "build this one alone: train, api or api-cpu",
        "twice": "build again from nothing and compare every digest",
        "plan": "only say what would be made and what reused",
    }
)
def build(_: Context, cpu: bool = False, image: str = "", twice: bool = False, plan: bool = False) -> str:  # noqa: FBT001
    """Build the images from the locks into dist/."""
    if cpu and image:
        raise UsageError("--cpu names a pair of images and --image one", fix="give one of them")
    roles = (image,) if image else ("train", "api-cpu" if cpu else "api")
    if plan:
        return builder.show_plan(roles)
    return builder.build(roles, twice=twice).outcome()


@stage(help={"gpu": "run on the GPU, with the api image instead of api-cpu"})
def smoke(_: Context, gpu: bool = False) -> str:  # noqa: FBT001
    """Prove what was built: train a tiny model in one image, serve it from the other, write the receipt."""
    return ladder.run_smoke(gpu=gpu).outcome()


@stage(help={"registry": "host[:port][/path]; default: the embedded registry on loopback"})
def push(_: Context, registry: str = "") -> str:
    """Push what was built, read each digest back, record it in lockfiles/images.lock."""
    return pusher.push(registry, proof.proven_digests())


@stage(help={"env": "one of k8s/envs/", "dry-run": "say what would happen and change nothing"})
def deploy(_: Context, env: str, dry_run: bool = False) -> str:  # noqa: FBT001
    """Check the manifests, pin every image by digest, then render or apply them as the environment says."""
    return deployer.deploy(env, dry_run=dry_run).outcome()


@stage(help={"path": "a file or folder of manifests; more of them after --", "env": "one of k8s/envs/"})
def check(context: Context, path: str, env: str = "local") -> str:
    """Check and pin any plain manifests; sends nothing."""
    return checker.run_check([path, *shlex.split(context.remainder)], env)


@stage(help={"fast": "only what needs no engine and no tools of the machine: under a minute"})
def test(_: Context, fast: bool = False) -> str:  # noqa: FBT001, PT028 - a task, not a test
    """Run the project's whole test suite."""
    return suite.run(fast=fast)
