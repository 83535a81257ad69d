"""Scenarios that run on any cluster: on the simulator, or on the real one that `invoke test --cluster` names."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import paths
from common.errors import DeployRolledBackError, PolicyError
from k8s import drift, rollback
from k8s.rollouts.lease import Lease
from lockfiles import images_lock
from lockfiles.images_lock import PinnedImage
from tests.k8s.conftest import OLD
from tests.k8s.simulator import places
from tests.k8s.simulator.apiserver import VERSIONS
from tests.k8s.simulator.places import ABSENT, PREFIX, Place

pytestmark = [pytest.mark.host, pytest.mark.anywhere]
MORE = """---
apiVersion: v1
kind: ConfigMap
metadata:
  name: extra
  namespace: @NS@
  labels:
    app.kubernetes.io/part-of: pinwheel
"""


@pytest.fixture(params=VERSIONS[-1:])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "K8S", tmp_path / "k8s")
    monkeypatch.setattr(paths, "LOCKFILES", tmp_path / "lockfiles")
    monkeypatch.setenv("PINWHEEL_DIST", str(tmp_path / "dist"))
    images_lock.write([PinnedImage("llama-factory-api", OLD, "1")])
    with places.place(tmp_path, request.param, PREFIX + uuid.uuid4().hex[:8], monkeypatch.setenv) as one:
        one.write(one.images[0])
        yield one


def test_a_first_deploy_runs_a_second_changes_nothing_and_nothing_drifts(place: Place) -> None:
    assert place.go(dry_run=True).result == "planned"
    assert place.get("namespaces", place.namespace) is None
    assert len(place.go().changed) == 3
    assert place.running() == place.images[0]
    assert place.go().changed == ()
    assert drift.drift("named", patience=place.patience).startswith("no drift: 3 objects")


def test_a_new_image_is_rolled_out_and_rolled_back(place: Place) -> None:
    place.go()
    place.write(place.images[1])
    place.go()
    assert place.running() == place.images[1]
    rollback.rollback("named", yes=True, patience=place.patience)
    assert place.running() == place.images[0]
    assert [one.state for one in place.record().releases] == ["running"] * 3


def test_an_image_that_does_not_exist_is_given_up_with_the_pods_own_reason(place: Place) -> None:
    place.go()
    place.write(f"{place.images[0].partition('@')[0]}@{ABSENT}")
    with pytest.raises(DeployRolledBackError, match=r"container web: (ErrImagePull|ImagePullBackOff).*last good set runs"):
        place.go()
    assert place.running() == place.images[0]


def test_a_changed_config_map_rolls_the_pods(place: Place) -> None:
    place.go()
    place.write(place.images[0], greeting="good evening")
    assert len(place.go().changed) == 2
    body = place.get("configmaps", "web")
    assert body
    assert body["data"] == {"greeting": "good evening"}


def test_what_is_no_longer_in_the_set_is_deleted_when_asked(place: Place) -> None:
    place.write(place.images[0], more=MORE)
    place.go()
    place.write(place.images[0])
    place.go()
    assert place.get("configmaps", "extra")
    place.go(prune=True)
    assert place.get("configmaps", "extra") is None


def test_of_two_deploys_at_once_the_second_is_refused(place: Place) -> None:
    place.go()
    place.write(place.images[1])
    with (
        Lease(place.kubectl, "named", place.namespace, "Ada").held(wait=False),
        pytest.raises(PolicyError, match="another deploy to named is running: Ada"),
    ):
        place.go()
    assert place.running() == place.images[0]
