"""`invoke bench deploy`: a dry run and a deploy without changes of the whole platform, beside bare kubectl on the same set.

All against the API simulator of the tests, on this machine: what is measured is Pinwheel and kubectl, without a network. So it
needs a whole checkout, `tests/` included; nothing else of the stage does.
Each piece of work is a process of its own, as a person starts it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench import shared
from common import console, paths
from common.errors import MissingEnvironmentError
from common.run import run
from lockfiles import images_lock
from lockfiles.images_lock import PinnedImage

_ROUNDS = 3
_ENV = "bench"
_DRY, _UNCHANGED = 2.0, 3.0
# What `invoke deploy` does, for a checkout that lies elsewhere.
_DEPLOY = """
import pathlib, sys
from common import paths
root = pathlib.Path(sys.argv[1])
paths.ROOT, paths.K8S, paths.LOCKFILES = root, root / "k8s", root / "lockfiles"
from k8s import deploy
deploy.deploy("bench", dry_run="--dry-run" in sys.argv, yes=True)
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One piece of work beside bare kubectl.

    Attributes:
        work: what was done.
        ours: its median, in seconds.
        bare: of `kubectl diff` and `kubectl apply` of the same set.
        goal: the most it may take, in seconds.
        said: the goal in words.
    """

    work: str
    ours: float
    bare: float
    goal: float
    said: str

    def row(self) -> tuple[str, ...]:
        """For a table."""
        met = "met" if self.ours <= self.goal else "missed"
        return self.work, f"{self.ours:.2f} s", f"{self.bare:.2f} s", f"{self.ours / self.bare:.2f}", f"{self.said}: {met}"


def run_bench() -> str:
    """Measure, print, and write the table into docs/performance.md; returns the outcome in a few words.

    Raises:
        MissingEnvironmentError: kubectl is not installed, or one of the pieces of work failed.
    """
    from tests.k8s.simulator.apiserver import ApiServer

    with tempfile.TemporaryDirectory(prefix="pinwheel-bench-") as folder, ApiServer() as api:
        root = Path(folder)
        _checkout(root)
        variables = {
            "KUBECONFIG": str(api.kubeconfig(root / "kubeconfig", _ENV)),
            "KUBECACHEDIR": str(root / "kube-cache"),
            "PINWHEEL_DIST": str(root / "dist"),
        }
        ours = [sys.executable, "-c", _DEPLOY, folder]
        _call(ours, variables)
        count = len(api.objects) - 2  # Without the record and the lease.
        (text,) = (root / "dist" / "deploy" / _ENV).glob("*.yaml")
        bare = ["kubectl", "--context", _ENV]
        each = ["--server-side", "--field-manager=pinwheel", "-f", str(text)]
        dry, unchanged, diff, apply = shared.in_turn(
            lambda: _call([*ours, "--dry-run"], variables),
            lambda: _call(ours, variables),
            lambda: _call([*bare, "diff", *each], variables),
            lambda: _call([*bare, "apply", *each], variables),
            rounds=_ROUNDS,
        )
    rows = [
        Comparison("deploy --dry-run", dry, diff + apply, _DRY, f"≤ {_DRY:g} s"),
        Comparison(
            "deploy without changes", unchanged, diff + apply, _UNCHANGED + diff + apply, f"≤ {_UNCHANGED:g} s + kubectl"
        ),
    ]
    head = ("work", "Pinwheel", "kubectl diff + apply", "ratio", "goal")
    cells, right = [row.row() for row in rows], (1, 2, 3)
    console.table(head, cells, right=right)
    table = shared.markdown(head, cells, right=right)
    what = f"{count} objects; medians of {_ROUNDS} rounds in turn; kubectl diff {diff:.2f} s and apply {apply:.2f} s alone."
    shared.publish("invoke bench deploy", what, table)
    return f"{len(rows)} comparisons over {count} objects, written to docs/performance.md"


def _checkout(root: Path) -> None:
    """The manifests of this checkout, with an environment for the simulator and digests of nothing."""
    from tests.set_locks import ASKED

    shutil.copytree(paths.K8S / "manifests", root / "k8s" / "manifests")
    body = yaml.safe_load((paths.K8S / "envs" / "staging.yaml").read_text())
    body |= {"proof": "none", "model": {"reference": f"{body['registry']}/models/bench@sha256:{'0' * 64}"}}
    body["target"]["cluster"]["context"] = _ENV
    (root / "k8s" / "envs").mkdir()
    (root / "k8s" / "envs" / f"{_ENV}.yaml").write_text(yaml.safe_dump(body))
    pinned = [
        PinnedImage(f"llama-factory-{role}", f"sha256:{number:064x}", "1", gpu.driver, gpu.compute)
        for number, (role, gpu) in enumerate(sorted(ASKED.items()), 1)
    ]
    before = paths.LOCKFILES
    try:
        paths.LOCKFILES = root / "lockfiles"
        images_lock.write(pinned)
    finally:
        paths.LOCKFILES = before


def _call(argv: list[str], variables: dict[str, str]) -> None:
    said = run(argv, env=variables, cwd=paths.ROOT, timeout=300, missing="install kubectl")
    if said.code:
        last = (said.stderr.strip() or said.stdout.strip()).splitlines()[-1:]
        raise MissingEnvironmentError(f"{argv[0]} ended with code {said.code}", where="".join(last), fix="see why")
