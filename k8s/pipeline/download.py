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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from . import artifact, experiment, transfer, wire
from .experiment import Base
from .registry import Reference, Repository
from .transfer import Wanted
from .wire import ENVIRONMENT, LOCK, POLICY, USAGE, Answer, RefusedError

_DEFAULT = "https://huggingface.co"


def main(argv: list[str]) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="download")
    parser.add_argument("--config", type=Path, default=Path("/config"))
    options = parser.parse_args(argv)
    run, base = experiment.read_run(options.config), experiment.read_base(options.config)
    hub = Hub(base)
    wire.say(f"base model {base.repo} at {base.revision}")
    refuse_others(run.base, {one.path for one in base.files})
    transfer.gather(run.base, base.files, hub.fetch)
    wire.say(f"data set {run.dataset}")
    dataset(run.dataset, run.data)
    wire.say("everything is here, each file by its sha256")
    return 0


class Hub:
    """The hub, for one model. The token goes to it alone; never to where it redirects."""

    def __init__(self, base: Base) -> None:
        self._base = base
        address = os.environ.get("HF_ENDPOINT", "").rstrip("/") or _DEFAULT
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            # Not shown: it may carry a password.
            raise RefusedError(f"HF_ENDPOINT is no web address: write it as https://host/path, default {_DEFAULT}", USAGE)
        self._plain = parts.scheme == "http"
        self._endpoint = f"{parts.scheme}://{wire.host_of(address)}{parts.path}"
        token = os.environ.get("HF_TOKEN", "").strip()
        if not re.fullmatch(r"[!-~]*", token):
            raise RefusedError("HF_TOKEN holds blanks or other odd characters", USAGE)
        self._secret = {"Authorization": f"Bearer {token}"} if token else {}
        if not token and parts.username:
            known = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._secret = {"Authorization": "Basic " + base64.b64encode(known.encode()).decode()}
        if self._plain and self._secret and not wire.is_loopback(wire.host_of(address)):
            raise RefusedError("HF_ENDPOINT has no TLS: a token is not sent over it", USAGE)

    def fetch(self, wanted: Wanted, target: Path) -> None:
        """Fetch one file.

        Raises:
            RefusedError: the hub does not give it, or gives other bytes.
        """
        url = f"{self._endpoint}/{self._base.repo}/resolve/{self._base.revision}/{quote(wanted.path)}"

        @contextmanager
        def ask(offset: int) -> Iterator[Answer]:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            with wire.send("GET", url, headers=headers, secret=self._secret, plain=self._plain) as answer:
                if answer.status not in {200, 206, 416}:
                    raise self._refused(answer, wanted.path)
                yield answer

        transfer.download(ask, target, wanted.size, wanted.sha256, ENVIRONMENT)

    def _refused(self, answer: Answer, path: str) -> RefusedError:
        """What a hub's answer means; it says it in X-Error-Code, where no proxy drops that."""
        code, repo = answer.header("X-Error-Code"), self._base.repo
        if code == "GatedRepo":
            fix = "accept its terms on the hub's page, with the account of HF_TOKEN"
            return RefusedError(f"{repo} is gated, and the hub does not give it: {fix}", ENVIRONMENT)
        if answer.status in {401, 403}:
            fix = "see HF_TOKEN, key of the Secret hf-secret"
            return RefusedError(f"the hub does not give {repo} ({answer.status}): {fix}", ENVIRONMENT)
        if answer.status == 404:
            return RefusedError(f"the hub has no {path} of {repo} at {self._base.revision}: lock the model anew", LOCK)
        return RefusedError(f"the hub answers {answer.status} for {path} of {repo}", ENVIRONMENT)


def dataset(place: Reference, folder: Path) -> None:
    """Pull a data set by digest.

    Raises:
        RefusedError: it cannot be had, or is none.
    """
    repository = Repository(place)
    found = artifact.parse(repository.manifest(place.digest), str(place))
    if not found.layers or any(one.kind != artifact.DATASET for one in found.layers):
        raise RefusedError(f"{place} holds something else than a data set", POLICY)
    wanted = tuple(Wanted(one.path, one.size, one.digest.removeprefix("sha256:")) for one in found.layers)
    refuse_others(folder, {one.path for one in wanted})
    transfer.gather(folder, wanted, lambda one, target: repository.download(f"sha256:{one.sha256}", one.size, target))


def refuse_others(folder: Path, wanted: set[str]) -> None:
    """Refuse a folder that holds more than it should: other weights, or code that a loader would run.

    Raises:
        RefusedError: it does.
    """
    if folder.is_symlink():
        raise RefusedError(f"{folder} is a link: remove it", POLICY)
    for file in sorted(folder.rglob("*")):
        path = str(file.relative_to(folder))
        known = path in wanted or (path.endswith(transfer.PART) and path.removesuffix(transfer.PART) in wanted)
        if file.is_symlink() or (not file.is_dir() and not known):
            raise RefusedError(f"{folder} holds {path}, which is not in the lock: remove it, or the whole folder", POLICY)


if __name__ == "__main__":
    wire.start("download", main)
