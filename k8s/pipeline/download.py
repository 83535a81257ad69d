"""Bring the base model and the data set of a run onto the work volume.

    python -m pinwheel_pipeline.download [--config /config]

The base model's files are those of `base-model.json` by size and sha256. Each comes from the registry if that has it, in
`base-repository` of the run; else from the hub that HF_ENDPOINT names, with HF_TOKEN if that is set. The data set comes from
the registry by digest. The registry's login is `$DOCKER_CONFIG/config.json`. Files that are there and right are kept; a file
that was fetched in part is continued. A folder that holds anything else is refused: a loader might load it.

Exit codes: 2 settings, 10 hub, network or disk, 11 other bytes than the lock's, 14 the registry, 15 forbidden files.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from common.errors import LockError, MissingEnvironmentError, PinwheelError, PolicyError, RegistryError, UsageError
from oci.client.answer import Stream
from oci.client.auth import RefusedError
from oci.client.client import Client
from oci.client.download import PART, download
from oci.client.http import Http, Request
from oci.client.target import Registry, host_of, is_loopback
from oci.reference import ImageRef

from . import artifact, experiment
from .experiment import Base
from .files import PinnedFile, gather
from .program import PATIENCE, say, start

_DEFAULT_HUB = "https://huggingface.co"


def main(argv: list[str]) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="download")
    parser.add_argument("--config", type=Path, default=Path("/config"))
    options = parser.parse_args(argv)
    run, base = experiment.read_run(options.config), experiment.read_base(options.config)
    say(f"base model {base.called} at {base.revision}")
    refuse_others(run.base, {file.path for file in base.files})
    base_model(base, run.base_repository, run.base)
    say(f"data set {run.dataset}")
    dataset(run.dataset, run.data)
    say("everything is here, each file by its sha256")
    return 0


@dataclass(frozen=True, slots=True)
class _Address:
    """The hub as `HF_ENDPOINT` names it."""

    host: str
    address: str
    plain_http: bool
    called: str = "the hub"


class Hub:
    """The hub, for one model. The token is sent to the hub only, never to where it redirects.

    Args:
        base: the model.

    Raises:
        UsageError: HF_ENDPOINT or HF_TOKEN makes no sense.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        address = os.environ.get("HF_ENDPOINT", "").rstrip("/") or _DEFAULT_HUB
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            # Not shown: it may carry a password.
            raise UsageError("HF_ENDPOINT is no web address", fix=f"write it as https://host/path, default {_DEFAULT_HUB}")
        token = os.environ.get("HF_TOKEN", "").strip()
        if not re.fullmatch(r"[!-~]*", token):
            raise UsageError("HF_TOKEN holds blanks or other odd characters", fix="see key HF_TOKEN of the Secret hf-secret")
        secret: Mapping[str, str] = {"Authorization": f"Bearer {token}"} if token else {}
        if not token and parts.username:
            user_info = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            secret = {"Authorization": "Basic " + base64.b64encode(user_info.encode()).decode()}
        plain = parts.scheme == "http"
        if plain and secret and not is_loopback(parts.hostname):
            raise UsageError(
                "HF_ENDPOINT has no TLS", where=host_of(address), fix="name an https address: no token is sent to it"
            )
        place = _Address(host_of(address), f"{parts.scheme}://{host_of(address)}{parts.path}", plain)
        self._http, self._place = Http(place, PATIENCE, secret=lambda: secret), place

    def fetch(self, file: PinnedFile, target: Path) -> None:
        """Fetch one file.

        Raises:
            MissingEnvironmentError: the hub does not give it.
            LockError: it has no such file, or gives other bytes.
        """
        url = f"{self._place.address}/{self._base.repo}/resolve/{self._base.revision}/{quote(file.path)}"

        @contextmanager
        def ask(offset: int) -> Iterator[Stream]:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            with self._http.stream(Request("GET", url, headers=headers)) as stream:
                if stream.status not in {200, 206, 416}:
                    raise self._refused(stream, file.path)
                yield stream

        try:
            download(ask, target, file.size, file.sha256, self._http.attempts(f"fetching {file.path}"), say)
        except RegistryError as problem:
            # Our client's error is about a registry; this server is a hub.
            raise MissingEnvironmentError(problem.what, where=problem.where, fix=problem.fix) from None

    def _refused(self, stream: Stream, path: str) -> PinwheelError:
        """The error for a hub's answer; the hub explains it in the header X-Error-Code, which a proxy may drop."""
        repo = self._base.repo
        if stream.header("X-Error-Code") == "GatedRepo":
            fix = "accept its terms on the hub's page, with the account of HF_TOKEN"
            return MissingEnvironmentError(f"{repo} is gated, and the hub does not give it", where=self._place.host, fix=fix)
        if stream.status in {401, 403}:
            fix = "see HF_TOKEN, key of the Secret hf-secret"
            what = f"the hub does not give {repo} ({stream.status})"
            return MissingEnvironmentError(what, where=self._place.host, fix=fix)
        if stream.status == 404:
            what = f"the hub has no {path} of {repo} at {self._base.revision}"
            return LockError(what, where=self._place.host, fix="lock the model anew")
        return MissingEnvironmentError(f"the hub answers {stream.status} for {path} of {repo}", where=self._place.host)


def base_model(base: Base, place: ImageRef, folder: Path) -> None:
    """Fetch the base model's files, each from the registry if it has it, else from the hub.

    Args:
        base: the model.
        place: its repository in the registry; need not be there.
        folder: where its files go.

    Raises:
        UsageError: HF_ENDPOINT or HF_TOKEN makes no sense.
        RegistryError: the registry fails; or it has not all files of a model that is on no hub.
        MissingEnvironmentError: the hub does not give it.
        LockError: the hub has no such file, or one of the two gives other bytes.
    """
    hub = Hub(base) if base.repo else None
    with Client(Registry(place.registry, f"{place.repository}/"), PATIENCE) as client:

        def fetch(file: PinnedFile, target: Path) -> None:
            digest = f"sha256:{file.sha256}"
            try:
                if client.exists(place.repository, digest, file.size):
                    client.download(place.repository, digest, file.size, target)
                    return
                reason = "it is not there"
            except RefusedError as problem:
                # Many registries refuse, even who may read everything, what is not there.
                reason = problem.what
            if hub is None:
                fix = f"push it: `invoke model --name {base.name} --push --env NAME`"
                what = f"the base model {base.name} is on no hub, and the registry does not give {file.path}: {reason}"
                raise RegistryError(what, where=str(place), fix=fix)
            hub.fetch(file, target)

        gather(folder, base.files, fetch)


def dataset(place: ImageRef, folder: Path) -> None:
    """Pull a data set by digest.

    Raises:
        RegistryError: it cannot be fetched.
        PolicyError: it is no data set.
    """
    with Client(Registry(place.registry, f"{place.repository}/"), PATIENCE) as client:
        pulled = artifact.parse(client.manifest(place.repository, place.digest), str(place))
        if not pulled.layers or any(layer.kind != artifact.DATASET for layer in pulled.layers):
            raise PolicyError(f"{place} holds something else than a data set")
        files = tuple(PinnedFile(layer.path, layer.size, layer.digest.removeprefix("sha256:")) for layer in pulled.layers)
        refuse_others(folder, {file.path for file in files})
        gather(
            folder, files, lambda file, target: client.download(place.repository, f"sha256:{file.sha256}", file.size, target)
        )


def refuse_others(folder: Path, allowed: set[str]) -> None:
    """Refuse a folder that holds more than it should: other weights, or code that a loader would run.

    Raises:
        PolicyError: it does hold more.
    """
    if folder.is_symlink():
        raise PolicyError(f"{folder} is a link: remove it")
    for file in sorted(folder.rglob("*")):
        path = str(file.relative_to(folder))
        is_allowed = path in allowed or (path.endswith(PART) and path.removesuffix(PART) in allowed)
        if file.is_symlink() or (not file.is_dir() and not is_allowed):
            raise PolicyError(f"{folder} holds {path}, which is not in the lock: remove it, or the whole folder")


if __name__ == "__main__":
    start("download", main)
