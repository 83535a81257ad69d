"""The release record: what it keeps, and what it is refused for."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import random
from pathlib import Path

import pytest
import yaml

from common import paths
from common.errors import MissingEnvironmentError, PolicyError
from common.run import Result
from k8s.envs.environment import ClusterTarget, Environment
from k8s.rollouts import circumstances, release
from k8s.rollouts.kubectl import Kubectl, Patience
from k8s.rollouts.release import History, Release, State

FIRST = Release(1, "running", "Ada, ada@box", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "c0ffee", "", ("r/x@y",), ())


@pytest.fixture(autouse=True)
def _keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)


def env(name: str) -> Environment:
    return Environment(name, f"{name}.yaml", ClusterTarget("c"), "r.example/llm", "1.32", None)


class Cluster(Kubectl):
    """Holds one ConfigMap; the way through real kubectl is in test_cluster.py."""

    def __init__(self, body: object = None) -> None:
        super().__init__(ClusterTarget("c"), Patience())
        self.body = body
        self.answer = Result(0, "", "")

    def get(self, resource: str, namespace: str, name: str) -> dict[str, object] | None:
        return self.body  # type: ignore[return-value]

    def apply(self, text: str, *, part: str = "", force: bool = False) -> Result:
        body = yaml.safe_load(text)
        body["metadata"]["resourceVersion"] = "7"
        self.body = body
        return self.answer


def made(number: int, state: State = "running", text: str = "") -> Release:
    return dataclasses.replace(FIRST, number=number, state=state, set=release.digest_of(text or f"set {number}"))


def after(*releases: Release) -> History:
    history = History("e", "n")
    for one in releases:
        history = history.with_release(one, f"set {one.number}")
    return history


def test_a_record_comes_back_as_it_was_written() -> None:
    cluster, history = Cluster(), after(made(1), made(2, "put back"), made(3))
    release.write(cluster, env("e"), history)
    assert release.read(cluster, env("e"), "n") == dataclasses.replace(history, version="7")
    assert release.read(Cluster(), env("e"), "n") == History("e", "n")


def test_the_same_record_is_written_as_the_same_bytes() -> None:
    one, other = Cluster(), Cluster()
    release.write(one, env("e"), after(made(1), made(2)))
    release.write(other, env("e"), after(made(1), made(2)))
    for cluster in (one, other):
        # ECDSA signs with a fresh number each time.
        del cluster.body["data"]["signature.json"]  # type: ignore[index]
    assert one.body == other.body


def test_five_that_ran_and_the_last_that_did_not_are_kept_with_their_sets() -> None:
    history = after(*(made(number, "put back" if number in {3, 5} else "running") for number in range(1, 9)))
    assert [one.number for one in history.releases] == [2, 4, 5, 6, 7, 8]
    assert set(history.sets) == {one.set for one in history.releases}


def test_failures_never_push_out_what_ran() -> None:
    history = after(made(1), *(made(number, "half done") for number in range(2, 12)))
    assert [one.number for one in history.releases] == [1, 10, 11]
    assert history.good == made(1)
    assert history.unfinished == made(11, "half done")


def test_a_begun_release_is_ended_in_its_place() -> None:
    history = after(made(1), made(2, "begun"))
    assert history.unfinished == made(2, "begun")
    history = history.with_release(made(2))
    assert [(one.number, one.state) for one in history.releases] == [(1, "running"), (2, "running")]
    assert history.unfinished is None


def test_sets_too_large_for_the_cluster_are_found_on_this_machine_by_their_digest(own_folders: Path) -> None:
    noise = random.Random(1)
    large = ["".join(chr(noise.randrange(32, 127)) for _ in range(500_000)) for _ in range(3)]
    history = History("e", "n")
    for number, text in enumerate(large, 1):
        history = history.with_release(made(number, text=text), text)
    cluster = Cluster()
    release.write(cluster, env("e"), history)
    assert len(json.dumps(cluster.body)) < 1 << 20
    read = release.read(cluster, env("e"), "n")
    assert [one.set in read.sets for one in read.releases] == [False, False, True]
    assert read.set_text(read.releases[0]) is None
    place = release.keep("e", large[0])
    assert read.set_text(read.releases[0]) == large[0]
    place.write_text("edited")
    assert read.set_text(read.releases[0]) is None


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"releases.json": "["},
        {"releases.json": "[{}]"},
        {"releases.json": json.dumps([{**dataclasses.asdict(FIRST), "state": "fine"}])},
        {"releases.json": json.dumps([{**dataclasses.asdict(FIRST), "more": 1}])},
        {"releases.json": "7"},
    ],
)
def test_an_edited_record_is_refused_in_one_line(data: dict[str, str]) -> None:
    body = {"metadata": {"resourceVersion": "1"}, "data": {"environment": "e", **data}}
    with pytest.raises(PolicyError, match="the release record cannot be read.*ConfigMap n/pinwheel-release.*delete it"):
        release.read(Cluster(body), env("e"), "n")


@pytest.mark.parametrize(
    "packed", [b"no gzip", gzip.compress(b"cut off")[:-4], gzip.compress(b"\xff\xfe")], ids=["bytes", "cut", "no text"]
)
def test_a_damaged_set_is_refused(packed: bytes) -> None:
    data = {"environment": "e", "releases.json": "[]"}
    body = {"metadata": {"resourceVersion": "1"}, "data": data, "binaryData": {"x": base64.b64encode(packed).decode()}}
    with pytest.raises(PolicyError, match="the release record cannot be read"):
        release.read(Cluster(body), env("e"), "n")


def test_a_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "_LARGEST", 1000)
    packed = base64.b64encode(gzip.compress(bytes(1_000_000))).decode()
    body = {
        "metadata": {"resourceVersion": "1"},
        "data": {"environment": "e", "releases.json": "[]"},
        "binaryData": {"x": packed},
    }
    with pytest.raises(PolicyError, match="does not end"):
        release.read(Cluster(body), env("e"), "n")


def test_two_environments_in_one_namespace_are_told_apart() -> None:
    cluster = Cluster()
    release.write(cluster, env("e"), after(made(1)))
    with pytest.raises(PolicyError, match="is that of environment 'e' .*name another `namespace`"):
        release.read(cluster, env("other"), "n")


@pytest.mark.parametrize(
    ("said", "error"), [("(Forbidden): no", PolicyError), ("(InternalError): etcd", MissingEnvironmentError)]
)
def test_a_record_that_cannot_be_written_says_where_it_lies(said: str, error: type[Exception]) -> None:
    cluster = Cluster()
    cluster.answer = Result(1, "", f"Error from server {said}")
    with pytest.raises(error, match="the release record cannot be written.*ConfigMap n/pinwheel-release"):
        release.write(cluster, env("e"), after(made(1)))


def test_who_deploys_is_named_without_address_or_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circumstances, "run", lambda _argv: Result(0, "Ada\x1b[31m Lovelace\n", ""))
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    assert circumstances.who() == "Ada[31m Lovelace, ada@box"
    monkeypatch.setattr(circumstances, "run", lambda _argv: Result(1, "", ""))
    assert circumstances.who() == "ada@box"
