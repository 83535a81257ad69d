"""What every image promises, found out from inside a container of it, and from what the engine says of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from images import files, spec
from lockfiles import inputs, lockfile
from smoke.boxes.box import told
from smoke.boxes.session import Session
from smoke.rungs import contract
from smoke.rungs.jobs import Job
from smoke.rungs.run import Run
from smoke.rungs.table import KNOWN

_IMAGES = ("train", "api")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found of an image: by its programs, and by the engine."""

    inside: dict[str, Any]
    contents: dict[str, Any]
    config: dict[str, Any]
    closed: dict[str, list[str]]


@pytest.fixture(scope="session")
def looks(run: Run) -> dict[str, Job[Seen]]:
    """Both images are looked at at the same time."""
    return {image: run.jobs.start(_name(image), functools.partial(_look, run, image)) for image in _IMAGES}


def _name(image: str) -> str:
    return f"contract of {image}"


def _look(run: Run, image: str) -> Seen:
    limit = KNOWN[_name(image)].limit
    said = []
    own = spec.read(run.images[image].role)
    for name, program, arguments in (
        (_name(image), "contract.py", [*own.entrypoint[:1], *own.cmd[:1]]),
        (f"{_name(image)}: contents", "contents.py", ["/", *contract.places(own)]),
    ):
        with run.box(name, image, ["python", run.payload(program), *arguments]) as box:
            box.finish(limit)
            said.append(told(name, box.stdout()))
    # These rungs are about images: there are none without an engine.
    assert isinstance(run.place, Session)
    digest = run.images[image].digest
    return Seen(said[0], said[1], dict(run.place.config(digest)), run.place.look(digest, sorted(contract.CLOSED)))


@pytest.mark.parametrize("image", _IMAGES)
@pytest.mark.rung("contract of {image}", contained=True)
def test_contract(
    run: Run, say: Callable[[str], None], took: Callable[[float], None], looks: dict[str, Job[Seen]], image: str
) -> None:
    """It is what its spec and the locks say, gives no rights, tells no secrets, works on a read-only root without a network."""
    try:
        seen = looks[image].result()
    finally:
        took(looks[image].seconds)
    built = run.images[image]
    own = spec.read(built.role)
    brought = files.layer_plan(own)
    run.figures.versions[image] = seen.inside["packages"]
    problems = [
        *contract.system(seen.inside),
        *contract.configuration(seen.config, own, built),
        *contract.programs(seen.inside, own),
        *contract.packages(seen.inside, lockfile.read_set(own.set), lockfile.read_base(), inputs.read_set(own.set).overrides),
        *contract.files(seen.contents, seen.closed, contract.users_own(brought)),
        *contract.repository_files(seen.contents, brought),
    ]
    assert not problems, contract.told(problems)
    say(
        f"Debian 12, Python 3.11.2, uid {seen.inside['uid']}, {len(seen.inside['distributions'])} distributions and "
        f"{len(seen.inside['debs'])} packages as locked, {len(brought.files) if brought else 0} files of the repository, "
        f"{seen.contents['files']:,} files in all, {seen.contents['linked']:,} linked"
    )
