"""An engine and a registry of the benchmark's own, on this machine: empty at the start, gone at the end.

So BuildKit's cache is cold when it is meant to be, what it takes can be told from what else runs, and nothing of the user's
engine is touched or counted.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
import docker.errors
import requests

from bench.images import scratch
from common import host
from common.engine_address import INSTALL
from common.errors import BuildError, MissingEnvironmentError, RegistryError
from common.files import write_whole
from common.run import which
from oci.descriptor import INDEX, MANIFEST

_UP_S = 60.0


class _Daemon:
    """A child process that serves, for as long as a `with` block of a class below lasts."""

    _process: subprocess.Popen[bytes]

    def _start(self, argv: list[str], log: Path, answers: Callable[[], bool]) -> None:
        with log.open("ab") as out:
            # Not in the terminal's process group: Ctrl-C is for us, who then end it in order.
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=_without_docker()
            )
        end = time.monotonic() + _UP_S
        while not answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self._stop()
                said = (log.read_text(errors="replace").splitlines() or [""])[-1][:400]
                raise MissingEnvironmentError(f"{Path(argv[0]).name} did not come up", where=said)
            time.sleep(0.1)

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Engine(_Daemon):
    """A Docker Engine with its own data, and BuildKit in it.

    Args:
        folder: for its data; where it works is visible on its command line.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "engine"
        # Sockets have short names (unix(7): 108 bytes), whatever the folder's.
        self._run = Path(tempfile.mkdtemp(prefix="pinwheel-", dir="/tmp"))
        # For who cleans up after a killed run.
        write_whole(folder / scratch.RUN, str(self._run))
        self.host = f"unix://{self._run}/docker.sock"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        write_whole(self._folder / "daemon.json", json.dumps({"features": {"containerd-snapshotter": True}}))
        argv = [which("dockerd", fix=INSTALL), "--config-file", str(self._folder / "daemon.json")]
        argv += ["--data-root", str(self.data), "--exec-root", str(self._run), "--pidfile", str(self._run / "pid")]
        # It runs no container with a network: bridges and rules of the machine's own engine stay as they are.
        argv += ["--host", self.host, "--bridge=none", "--iptables=false", "--ip6tables=false"]
        try:
            self._start(argv, self._folder / "log", self._answers)
        except BaseException:
            scratch.remove(self._run)
            raise
        self.client = docker.DockerClient(base_url=self.host, timeout=1200)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.client.close()
        self._stop()
        scratch.remove(self._run)
        scratch.remove(self._folder)

    @property
    def data(self) -> Path:
        """Where it keeps everything."""
        return self._folder / "data"

    @property
    def pid(self) -> int:
        """Of the daemon; containerd and what builds are below it."""
        return self._process.pid

    def push(self, image: str, repository: str, tag: str) -> None:
        """Push an image as people do by default, under another name.

        Raises:
            RegistryError: it cannot be pushed.
        """
        self.client.images.get(image).tag(repository, tag)
        for line in self.client.api.push(repository, tag, stream=True, decode=True):
            if "error" in line:
                raise RegistryError(f"{repository}:{tag} could not be pushed", where=str(line["error"]))

    def pull(self, reference: str) -> float:
        """Pull and unpack an image; returns the seconds.

        Raises:
            RegistryError: it cannot be pulled.
        """
        started = time.monotonic()
        for line in self.client.api.pull(reference, stream=True, decode=True):
            if "error" in line:
                raise RegistryError(f"{reference} could not be pulled", where=str(line["error"]))
        return time.monotonic() - started

    def _answers(self) -> bool:
        try:
            client = docker.DockerClient(base_url=self.host, timeout=5)
            client.ping()
            client.close()
        except (docker.errors.DockerException, requests.RequestException, OSError):
            return False
        return True


class Registry(_Daemon):
    """A registry on a free port of loopback, its data in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        config = self._folder / "config.yml"
        quiet = {"log": {"level": "error", "accesslog": {"disabled": True}}}
        write_whole(config, host.registry_settings(self.address, self._folder / "data", more=quiet))
        argv = [which("docker-registry", fix=INSTALL), "serve", str(config)]
        self._start(argv, self._folder / "log", lambda: host.registry_answers(self.address))
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def held(self) -> int:
        """Bytes of all blobs it has: what it was sent and did not have before.

        Raises:
            BuildError: it has none.
        """
        total = sum(file.stat().st_size for file in self._folder.glob("data/docker/registry/v2/blobs/sha256/*/*/data"))
        if not total:
            raise BuildError("the registry holds nothing after a push", where=self.address)
        return total

    def weight(self, reference: str) -> int:
        """Bytes of the layers of an image for this platform, as who has nothing of it pulls them."""
        _, _, path = reference.partition("/")
        name, _, wanted = path.rpartition(":")
        body = self._manifest(name, wanted)
        if "manifests" in body:
            body = self._manifest(name, body["manifests"][0]["digest"])
        return sum(int(layer["size"]) for layer in body["layers"])

    def _manifest(self, name: str, reference: str) -> dict[str, Any]:
        kinds = [INDEX, MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"]
        with requests.Session() as session:
            session.trust_env = False
            address = f"http://{self.address}/v2/{name}/manifests/{reference}"
            answer = session.get(address, headers={"Accept": ", ".join(kinds)}, timeout=30)
        if answer.status_code != 200:
            raise RegistryError(f"the registry has no {reference} of {name}", where=address)
        body: dict[str, Any] = answer.json()
        return body


def _without_docker() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
