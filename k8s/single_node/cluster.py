"""`invoke cluster`: brings the cluster of this machine up, takes it down, says what runs."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import console, paths
from common.errors import MissingEnvironmentError, UsageError
from common.files import write_whole
from common.run import run
from k8s.single_node import certificates, checks, namespaces, network, parts, programs, registry, secrets
from k8s.single_node.addons import Cluster
from k8s.single_node.places import DOCKER_CERTIFICATES, EXTRAS, NODE, Home
from k8s.single_node.programs import Programs

# Seconds; on a busy machine ten times what it takes on a quiet one.
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for.

    Attributes:
        extras: names of EXTRAS, sorted.
        gpus: that the node pretends to have.
    """

    extras: tuple[str, ...] = ()
    gpus: int = 0

    @classmethod
    def read(cls, home: Home) -> Settings:
        """Those of the cluster that is there; the defaults where there is none."""
        try:
            body: dict[str, Any] = json.loads(home.settings.read_text())
            return cls(tuple(body["extras"]), int(body["gpus"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def changed(self, extras: str, gpus: str) -> Settings:
        """These with what a command line says; what it leaves empty stays.

        Raises:
            UsageError: it names what there is not.
        """
        names = {name.strip() for name in extras.split(",")} - {""}
        if unknown := sorted(names - set(EXTRAS)):
            fix = f"there are: {', '.join(EXTRAS)}"
            raise UsageError(f"nothing to add is called {', '.join(unknown)}", where="--with", fix=fix)
        if gpus and not (gpus.isascii() and gpus.isdecimal()):
            raise UsageError("not a number of GPUs", where=f"--pretend-gpu {gpus}", fix="give 0 or more")
        return Settings(tuple(sorted({*self.extras, *names})), int(gpus or self.gpus))

    def write(self, home: Home) -> None:
        """Keep them for the next time."""
        write_whole(home.settings, json.dumps({"extras": self.extras, "gpus": self.gpus}))


def up(extras: str = "", gpus: str = "") -> str:
    """Bring the cluster up: build what is not built, start what does not run, install what is not there.

    Args:
        extras: what to add, names with commas between them; what was added before stays until the cluster is taken down.
        gpus: how many the node is to pretend to have; empty: as before.

    Returns:
        The outcome in a few words.

    Raises:
        UsageError: an extra that there is not.
        MissingEnvironmentError: this machine lacks something, or a part does not come up.
        LockError, BuildError: the programs cannot be built.
    """
    home = Home.of_this_machine()
    with _alone():
        before = Settings.read(home)
        settings = before.changed(extras, gpus)
        checks.check(settings.extras)
        made = programs.programs(settings.extras)
        changed = _bring_up(home, made, settings) or settings != before
        settings.write(home)
    console.info(f"try it: {_kubectl(home, made)} get pods --all-namespaces")
    return "the cluster runs" if changed else "the cluster runs already; nothing to do"


def down() -> str:
    """Take the cluster down, with everything in it; its programs stay in the cache.

    Returns:
        The outcome in a few words.

    Raises:
        MissingEnvironmentError: a process does not end.
    """
    home = Home.of_this_machine()
    with _alone():
        there = home.root.exists()
        with console.step("ending the cluster's processes"):
            namespaces.stop(home)
        shutil.rmtree(DOCKER_CERTIFICATES, ignore_errors=True)
        for folder in (DOCKER_CERTIFICATES.parent, DOCKER_CERTIFICATES.parent.parent):
            with suppress(OSError):  # somebody else's files lie there
                folder.rmdir()
        if there:
            shutil.rmtree(home.root)
    return "the cluster is gone, with its volumes; its programs stay in the cache" if there else "there was no cluster"


def status() -> str:
    """Say what runs, where the logs are, and how kubectl is used on it.

    Returns:
        The outcome in a few words.
    """
    home = Home.of_this_machine()
    running = namespaces.running(home)
    if not running:
        console.info("no cluster runs on this machine; it is for trying and for tests, never for production")
        return "not running: `invoke cluster --up` brings it up"
    # Not those of the lock: the checkout may have moved on since.
    made = Programs(Path(running.spec["folders"][1]))
    cluster, settings = Cluster(home, made), Settings.read(home)
    pids = processes(running.pid)
    programs_by_name = {str(part["name"]): str(part["argv"][0]) for part in running.spec["parts"]}
    rows = [(name, pids.get(path, "down"), str(home.logs / f"{name}.log")) for name, path in programs_by_name.items()]
    rows.append(("registry", "up" if registry.answers(home) else "down", str(home.logs / "registry.log")))
    console.table(("part", "process", "log"), rows)
    extras = ", ".join(settings.extras) or "none"
    console.info(f"added: {extras}; pretended GPUs: {settings.gpus}; the logs of pods: {home.root / 'pod-logs'}")
    console.info(f"kubectl: {_kubectl(home, made)} get pods --all-namespaces")
    ready = cluster.answers() and cluster.node_ready()
    return f"running, node {NODE} {'ready' if ready else 'NOT ready'}; not for production"


def _bring_up(home: Home, made: Programs, settings: Settings) -> bool:
    """Start and install what is missing; returns whether anything was."""
    renewed = certificates.make(home)
    spec = parts.prepare(home, made, settings.extras)
    cluster, running, changed = Cluster(home, made), namespaces.running(home), False
    home.kubectl.unlink(missing_ok=True)
    home.kubectl.symlink_to(made.kubectl)
    # A cluster with other parts is started anew, as after a reboot: what is in it stays.
    if not running or renewed or running.spec != spec or not network.connected():
        with console.step("starting the cluster"):
            running = namespaces.start(home, spec)
            cluster.settle(running.pid, settings.extras, _PATIENCE)
        changed = True
    if not registry.answers(home):
        with console.step(f"starting the registry at {registry.ADDRESS}"):
            registry.start(home)
        changed = True
    if changed or not cluster.answers() or not cluster.node_ready() or not cluster.whole(settings.extras):
        with console.step("installing name server, volumes, Argo Workflows"):
            cluster.settle(running.pid, settings.extras, _PATIENCE)
            cluster.install(settings.extras)
        changed = True
    cluster.pretend_gpus(settings.gpus)
    if made_keys := secrets.make(cluster):
        console.done(f"made {made_keys} keys in the Secrets that environments of this cluster name")
        changed = True
    return changed


def _kubectl(home: Home, made: Programs) -> str:
    return f"{shlex.quote(str(made.kubectl))} --kubeconfig={shlex.quote(str(home.kubeconfig))}"


def processes(first: int) -> dict[str, str]:
    """The parts' process numbers on this machine by their programs: the children of the first process inside."""
    rows = [line.split(None, 2) for line in run(["ps", "-o", "pid=,args=", "--ppid", str(first)]).stdout.splitlines()]
    return {row[1]: row[0] for row in rows if len(row) > 1}


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other calls from changing the cluster at the same time."""
    folder = paths.cache("single-node")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = "another `invoke cluster` is at work"
            raise MissingEnvironmentError(what, where=lock.name, fix="wait until it ends") from None
        yield
