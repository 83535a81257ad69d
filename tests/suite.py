"""`invoke test`: linters, types, then the tests from the quickest tier to the whole line."""

from __future__ import annotations

import os
import subprocess
import sys

from invoke.exceptions import Exit

from common import console, host, paths, tools
from common.errors import UsageError

_HERE = "not host and not engine and not cluster and not line"


def run(*, fast: bool) -> str:
    """Run the suite and stop at the first part that fails; returns the outcome in a few words.

    Args:
        fast: leave out what takes long, or needs the machine's tools, an engine, or the whole line.

    Raises:
        Exit: a part failed, with its exit code.
        MissingEnvironmentError: a tool is missing and cannot be installed.
    """
    _part("ruff", "check", ".")
    _part("ruff", "format", "--check", ".")
    _part("mypy")
    _part("pytest", "-q", "-n", "auto", "-m", f"{_HERE} and not slow")
    if fast:
        return "the fast tier passed"
    _part("pytest", "-q", "-n", "auto", "--dist", "loadfile", "-m", f"{_HERE} and slow")
    # The rest runs on real parts; on a new machine they are installed first.
    host.install(*tools.TEST_TOOLS)
    # Each file in one process: its servers and made locks are shared by its tests.
    _part("pytest", "-q", "-n", "auto", "--dist", "loadfile", "-m", "host")
    # The line first: what it builds, the engine tests use.
    _part("pytest", "-q", "-s", "-m", "line")
    _part("pytest", "-q", "-m", "engine")
    # The programs of its core are built by now; those of --with come here.
    # Faults of its parts take a quarter of an hour more, and are asked for by hand: `pytest -m "cluster and slow"`.
    _part("pytest", "-q", "-m", "cluster and not slow")
    return "everything passed"


def run_cluster(context: str, images: str, *, only: str = "") -> str:
    """Run the cluster scenarios on a real cluster, in namespaces of their own that are made and removed.

    Args:
        context: of the kubeconfig.
        images: two images by digest, with a comma between them (tests/k8s/simulator/places.py says which will do).
        only: a part of the scenarios' names.

    Returns:
        The outcome in a few words.

    Raises:
        UsageError: the images are not two by digest.
        Exit: a scenario failed.
    """
    if len(set(images.split(","))) != 2 or not all("@sha256:" in one for one in images.split(",")):
        fix = "give --images A@sha256:…,B@sha256:…, that the cluster can pull and that stay up without privileges"
        raise UsageError("the scenarios need two images by digest", where=images or "none given", fix=fix)
    # In one folder, so that its conftest.py is asked what may run on a real cluster.
    selected = ["-k", f"test_cluster and {only}" if only else "test_cluster"]
    _part("pytest", "-q", "-m", "host", *selected, "tests/k8s", PINWHEEL_TEST_CLUSTER=context, PINWHEEL_TEST_IMAGES=images)
    return f"the scenarios passed on the cluster of context {context}"


def _part(module: str, *arguments: str, **variables: str) -> None:
    console.title(" ".join([module, *arguments]))
    console.out.file.flush()
    # The user's own settings for other projects' tools do not count here.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "MYPY", "RUFF_"))} | variables
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=paths.ROOT, env=env, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        console.error(f"{module} {' '.join(arguments)} failed")
        raise Exit(code=1)
