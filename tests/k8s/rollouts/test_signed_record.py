"""Who may write the ConfigMap of the release record, and no more, has nothing applied that a deploy did not sign."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common import paths
from common.errors import PolicyError, UsageError
from k8s.envs.environment import Environment
from k8s.envs.proof import Gate
from k8s.envs.trusted_signers import Signers, TrustedKey
from k8s.rollouts import deploy_key, release
from registry import signer
from tests.k8s.rollouts.test_release import Cluster, after, env, made
from tests.oci.double import Double, serving

REFUSED = "was changed by somebody else|no key that e trusts|is older than release"


@pytest.fixture(autouse=True)
def _keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.delenv(deploy_key.VARIABLE, raising=False)


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with serving() as state:
        yield state


def asking(double: Double) -> Environment:
    """An environment that asks for proof, so that its registry knows the newest release."""
    return dataclasses.replace(env("e"), registry=f"{double.address}/team", proof=Gate(Signers((TrustedKey("k.pub"),))))


def written(number: int = 2, where: Environment | None = None) -> Cluster:
    cluster = Cluster()
    release.write(cluster, where or env("e"), after(*(made(count) for count in range(1, number + 1))))
    return cluster


def data(cluster: Cluster) -> dict[str, Any]:
    body: Any = cluster.body
    found = body["data"]
    assert isinstance(found, dict)
    return found


def other_set(cluster: Cluster) -> None:
    releases = json.loads(data(cluster)["releases.json"])
    evil = "kind: Pod\n"
    releases[-1]["set"] = release.digest_of(evil)
    data(cluster)["releases.json"] = json.dumps(releases)
    body: Any = cluster.body
    body["binaryData"] = {"evil.yaml.gz": base64.b64encode(gzip.compress(evil.encode())).decode()}


def by_another_key(cluster: Cluster) -> None:
    home = signer.folder()
    for half in ("deploy.key", "deploy.pub"):
        (home / half).rename(home / f"kept-{half}")
    data(cluster).update(data(written()))
    for half in ("deploy.key", "deploy.pub"):
        (home / f"kept-{half}").replace(home / half)


def of_another_environment(cluster: Cluster) -> None:
    data(cluster).update(data(written(where=env("other"))), environment="e")


@pytest.mark.parametrize("attack", [other_set, by_another_key, of_another_environment])
def test_a_record_that_the_key_did_not_sign_is_refused(attack: Callable[[Cluster], None]) -> None:
    cluster = written()
    assert release.read(cluster, env("e"), "n").good == made(2)
    attack(cluster)
    with pytest.raises(PolicyError, match=REFUSED) as caught:
        release.read(cluster, env("e"), "n")
    assert "ConfigMap n/pinwheel-release" in caught.value.line()


@pytest.mark.parametrize("cut", ["", "{}", "[1]", '{"payloadType": "x"}', "\ud800"[:0] + "é"])
def test_a_signature_that_is_none_is_one_line(cut: str) -> None:
    cluster = written()
    data(cluster)["signature.json"] = cut
    with pytest.raises(PolicyError, match="signature cannot be read"):
        release.read(cluster, env("e"), "n")


def with_number(number: int) -> str:
    return json.dumps([{**json.loads(data(written(1))["releases.json"])[0], "number": number}])


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "5",
        "null",
        "[NaN]",
        "[" + "9" * 5000 + "]",
        "\ud800",
        *map(with_number, (0, -5, 1 << 40)),
    ],
    ids=["lists", "objects", "number", "null", "NaN", "digits", "half a character", "zero", "negative", "too many"],
)
def test_a_record_that_nobody_signed_and_nobody_can_read_is_one_line(text: str) -> None:
    cluster = written()
    del data(cluster)["signature.json"]
    data(cluster)["releases.json"] = text
    with pytest.raises(PolicyError, match="the release record cannot be read") as caught:
        release.read(cluster, env("e"), "n")
    assert "\n" not in caught.value.line()


def test_another_set_under_a_signed_digest_is_not_there() -> None:
    cluster = written()
    body: Any = cluster.body
    body["binaryData"] = {name: base64.b64encode(gzip.compress(b"kind: Pod\n")).decode() for name in body["binaryData"]}
    history = release.read(cluster, env("e"), "n")
    assert history.good is not None
    assert history.set_text(history.good) is None


def test_an_unsigned_record_counts_for_its_number_alone(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = written(3)
    del data(cluster)["signature.json"]
    history = release.read(cluster, env("e"), "n")
    assert (history.releases, history.good, history.next_number) == ((), None, 4)
    assert "the release record is not signed, so nothing in it can be gone back to" in " ".join(capsys.readouterr().err.split())


def test_an_older_signed_record_is_not_taken_for_the_newest(double: Double) -> None:
    asked = asking(double)
    old = written(2, asked)
    kept = json.dumps(old.body)
    release.write(old, asked, after(made(1), made(2), made(3)))
    assert release.read(old, asked, "n").good == made(3)
    replayed = Cluster(json.loads(kept))
    with pytest.raises(PolicyError, match="older than release 3, the newest that .*/team/releases knows"):
        release.read(replayed, asked, "n")
    # Who takes the signature away makes it no newer.
    del data(replayed)["signature.json"]
    with pytest.raises(PolicyError, match="older than release 3"):
        release.read(replayed, asked, "n")


def test_a_release_that_begun_is_not_taken_for_the_one_that_ran(double: Double) -> None:
    asked, cluster = asking(double), Cluster()
    release.write(cluster, asked, after(made(1), made(2, "begun")))
    begun = json.dumps(cluster.body)
    assert release.read(cluster, asked, "n").unfinished == made(2, "begun")
    release.write(cluster, asked, after(made(1), made(2)))
    with pytest.raises(PolicyError, match="older than release 2"):
        release.read(Cluster(json.loads(begun)), asked, "n")


def test_a_record_that_was_deleted_goes_on_counting(double: Double, capsys: pytest.CaptureFixture[str]) -> None:
    asked = asking(double)
    written(3, asked)
    history = release.read(Cluster(), asked, "n")
    assert (history.releases, history.next_number) == ((), 4)
    assert "is gone, which held 3 releases" in " ".join(capsys.readouterr().err.split())


def test_who_writes_into_the_registry_alone_gains_nothing(double: Double) -> None:
    asked = asking(double)
    cluster = written(2, asked)
    for place in double.manifests:
        double.manifests[place].clear()
    assert release.read(cluster, asked, "n").good == made(2)


def test_a_registry_that_is_away_is_said_and_no_obstacle(capsys: pytest.CaptureFixture[str]) -> None:
    away = dataclasses.replace(env("e"), registry="127.0.0.1:1/team", proof=Gate(Signers((TrustedKey("k.pub"),))))
    cluster = written(2)
    assert release.read(cluster, away, "n").good == made(2)
    assert "nobody knows whether the release record is the newest" in " ".join(capsys.readouterr().err.split())


def test_a_lost_key_is_replaced_beside_the_old_one(tmp_path: Path) -> None:
    cluster = written()
    old = signer.folder().rename(tmp_path / "old") / "deploy.pub"
    with signer.own_folder() as home:
        signer.keep_pair(home, "deploy", *signer.make_pair())
    both = dataclasses.replace(env("e"), deploy_keys=(TrustedKey(str(old)), TrustedKey(str(signer.folder() / "deploy.pub"))))
    history = release.read(cluster, both, "n")
    release.write(cluster, both, history.with_release(made(3), "set 3"))
    assert release.read(cluster, both, "n").good == made(3)


def test_a_leaked_key_ends_on_its_last_day(tmp_path: Path) -> None:
    cluster = written()
    file = str(signer.folder() / "deploy.pub")
    today = datetime.datetime.now(datetime.UTC).date()
    day = datetime.timedelta(days=1)
    (tmp_path / "new.pub").write_bytes(signer.make_pair()[1])
    new = TrustedKey(str(tmp_path / "new.pub"))
    valid = dataclasses.replace(env("e"), deploy_keys=(TrustedKey(file, today - day, today), new))
    assert release.read(cluster, valid, "n").good == made(2)
    for past in (TrustedKey(file, until=today - day), TrustedKey(file, since=today + day)):
        with pytest.raises(PolicyError, match="no key that e trusts"):
            release.read(cluster, dataclasses.replace(env("e"), deploy_keys=(past, new)), "n")
    with pytest.raises(UsageError, match="none of its 1 keys counts today"):
        release.read(cluster, dataclasses.replace(env("e"), deploy_keys=(TrustedKey(file, until=today - day),)), "n")


def test_who_has_no_key_of_the_environment_signs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their.pub").write_bytes(signer.make_pair()[1])
    theirs = dataclasses.replace(env("e"), deploy_keys=(TrustedKey(str(tmp_path / "their.pub")),))
    with pytest.raises(UsageError, match=f"no deploy key.*{deploy_key.VARIABLE}"):
        deploy_key.load(theirs)
    own = tmp_path / "own.key"
    own.write_bytes(signer.make_pair()[0])
    monkeypatch.setenv(deploy_key.VARIABLE, str(own))
    with pytest.raises(UsageError, match="the deploy key is .*, which e does not trust"):
        deploy_key.load(theirs)
    monkeypatch.setenv(deploy_key.VARIABLE, str(tmp_path / "absent.key"))
    with pytest.raises(UsageError, match="there is no such key"):
        deploy_key.load(theirs)
