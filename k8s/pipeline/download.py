"""Bring the base model and the data set of a run onto the work volume.

    python -m pinwheel_pipeline.download [--config /config]

The base model's files come from the hub that HF_ENDPOINT names, with HF_TOKEN if that is set, and are those of
`base-model.json` by size and sha256; the data set comes from the registry by digest, with the login of
`$DOCKER_CONFIG/config.json`. What is there already and right is kept, a file that came in part is gone on from. A folder that
holds anything else is refused: a loader might take it.

Exit codes: 2 settings, 10 hub, network or disk, 11 other bytes than the lock's, 14 the registry, 15 what may not be there.
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
from oci.client.client import Client
from oci.client.download import PART, download
from oci.client.http import Http, Request
from oci.client.target import Registry, host_of, is_loopback
from oci.reference import ImageRef

from . import artifact, experiment
from .experiment import Base
from .files import Wanted, gather
from .program import PATIENCE, say, start

_DEFAULT = "https://huggingface.co"


def main(argv: list[str]) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="download")
    parser.add_argument("--config", type=Path, default=Path("/config"))
    options = parser.parse_args(argv)
    run, base = experiment.read_run(options.config), experiment.read_base(options.config)
    hub = Hub(base)
    say(f"base model {base.repo} at {base.revision}")
    refuse_others(run.base, {file.path for file in base.files})
    gather(run.base, base.files, hub.fetch)
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
    """The hub, for one model. The token goes to it alone; never to where it redirects.

    Args:
        base: the model.

    Raises:
        UsageError: HF_ENDPOINT or HF_TOKEN cannot be meant.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        address = os.environ.get("HF_ENDPOINT", "").rstrip("/") or _DEFAULT
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            # Not shown: it may carry a password.
            raise UsageError("HF_ENDPOINT is no web address", fix=f"write it as https://host/path, default {_DEFAULT}")
        token = os.environ.get("HF_TOKEN", "").strip()
        if not re.fullmatch(r"[!-~]*", token):
            raise UsageError("HF_TOKEN holds blanks or other odd characters", fix="see key HF_TOKEN of the Secret hf-secret")
        secret: Mapping[str, str] = {"Authorization": f"Bearer {token}"} if token else {}
        if not token and parts.username:
            known = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            secret = {"Authorization": "Basic " + base64.b64encode(known.encode()).decode()}
        plain = parts.scheme == "http"
        if plain and secret and not is_loopback(parts.hostname):
            raise UsageError(
                "HF_ENDPOINT has no TLS", where=host_of(address), fix="name an https address: no token is sent to it"
            )
        place = _Address(host_of(address), f"{parts.scheme}://{host_of(address)}{parts.path}", plain)
        self._http, self._place = Http(place, PATIENCE, secret=lambda: secret), place

    def fetch(self, wanted: Wanted, target: Path) -> None:
        """Fetch one file.

        Raises:
            MissingEnvironmentError: the hub does not give it.
            LockError: it has no such file, or gives other bytes.
        """
        url = f"{self._place.address}/{self._base.repo}/resolve/{self._base.revision}/{quote(wanted.path)}"

        @contextmanager
        def ask(offset: int) -> Iterator[Stream]:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            with self._http.stream(Request("GET", url, headers=headers)) as stream:
                if stream.status not in {200, 206, 416}:
                    raise self._refused(stream, wanted.path)
                yield stream

        try:
            download(ask, target, wanted.size, wanted.sha256, self._http.attempts(f"fetching {wanted.path}"), say)
        except RegistryError as problem:
            # What our client calls a registry is a hub here.
            raise MissingEnvironmentError(problem.what, where=problem.where, fix=problem.fix) from None

    def _refused(self, stream: Stream, path: str) -> PinwheelError:
        """What a hub's answer means; it says it in X-Error-Code, where no proxy drops that."""
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


def dataset(place: ImageRef, folder: Path) -> None:
    """Pull a data set by digest.

    Raises:
        RegistryError: it cannot be had.
        PolicyError: it is none.
    """
    with Client(Registry(place.registry, f"{place.repository}/"), PATIENCE) as client:
        found = artifact.parse(client.manifest(place.repository, place.digest), str(place))
        if not found.layers or any(layer.kind != artifact.DATASET for layer in found.layers):
            raise PolicyError(f"{place} holds something else than a data set")
        wanted = tuple(Wanted(layer.path, layer.size, layer.digest.removeprefix("sha256:")) for layer in found.layers)
        refuse_others(folder, {file.path for file in wanted})
        gather(folder, wanted, lambda file, to: client.download(place.repository, f"sha256:{file.sha256}", file.size, to))


def refuse_others(folder: Path, wanted: set[str]) -> None:
    """Refuse a folder that holds more than it should: other weights, or code that a loader would run.

    Raises:
        PolicyError: it does.
    """
    if folder.is_symlink():
        raise PolicyError(f"{folder} is a link: remove it")
    for file in sorted(folder.rglob("*")):
        path = str(file.relative_to(folder))
        known = path in wanted or (path.endswith(PART) and path.removesuffix(PART) in wanted)
        if file.is_symlink() or (not file.is_dir() and not known):
            raise PolicyError(f"{folder} holds {path}, which is not in the lock: remove it, or the whole folder")


if __name__ == "__main__":
    start("download", main)
