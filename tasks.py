"""The Invoke face of Pinwheel: parse, call one stage, print. No logic lives here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from common import console, host, paths
from common.errors import ExitCode, PinwheelError
from images import build as builder
from images import push as pusher
from lockfiles import inputs
from lockfiles import lock as locks


def stage(body: Callable[..., None]) -> Any:
    """Make a task of `body` whose errors become one line and an exit code: the one place where that happens."""

    @functools.wraps(body)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            body(*args, **kwargs)
        except PinwheelError as problem:
            console.error(problem.line())
            raise Exit(code=problem.exit_code) from None
        except KeyboardInterrupt:
            console.error("interrupted")
            raise Exit(code=ExitCode.INTERRUPTED) from None

    return task(guarded)


@stage
def engine(_: Context, install: bool = False) -> None:  # noqa: FBT001
    """Report the tools, the Docker Engine and the registry of this machine; --install gets what is missing."""
    console.title("engine")
    if install:
        host.install()
    host.report()


@stage
def lock(_: Context, check: bool = False) -> None:  # noqa: FBT001
    """Resolve the inputs (*.in) and write the locks; --check only compares, offline."""
    console.title("lock")
    if check:
        locks.check()
        console.done("every lock fits its input")
    else:
        locks.write_all()


@stage
def fetch(_: Context) -> None:
    """Bring every locked byte into the local store, verified."""
    console.title("fetch")
    locks.fetch(inputs.set_names())
    console.done(f"the store holds everything: {paths.cache() / 'store'}")


@stage
def build(_: Context, cpu: bool = False, image: str = "", twice: bool = False, plan: bool = False) -> None:  # noqa: FBT001
    """Build the images into dist/: train and api, or with --cpu train and api-cpu.

    --image builds one alone, --twice builds again from nothing and compares, --plan only predicts.
    """
    roles = (image,) if image else ("train", "api-cpu" if cpu else "api")
    if plan:
        builder.show_plan(roles)
        return
    console.title("build")
    builder.build(roles, twice=twice)


@stage
def push(_: Context, registry: str = "") -> None:
    """Push what was built, read each digest back, record it in lockfiles/images.lock; default: the embedded registry."""
    console.title("push")
    pusher.push(registry, proven=frozenset())
