"""Recorded sets are read strictly, whoever reads them: a put-back, a prune and a rollback refuse what was edited."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from common.errors import DeployNotRolledBackError
from k8s.rollouts import release
from k8s.rollouts.kubectl import Kubectl
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.rollouts.test_prune import leave, names
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import BRIEF, go, image, record, running, states

pytestmark = pytest.mark.host


def forge(change: Callable[[str], str]) -> None:
    """Edit the set of the newest release in the record, so that its digest still fits."""
    history = record()
    last = history.releases[-1]
    text = change(history.sets[last.set])
    forged = dataclasses.replace(last, set=release.digest_of(text))
    changed = dataclasses.replace(history, releases=(*history.releases[:-1], forged), sets={forged.set: text})
    release.write(Kubectl("staging", BRIEF), changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(f"@{OLD}", ":latest"), "which is no digest"),
        (lambda text: text + "---\nkind: ConfigMap\n", "apiVersion missing"),
    ],
    ids=["tag", "unreadable"],
)
def test_an_edited_set_is_not_put_back_and_that_is_said(
    checkout: Checkout, server: ApiServer, change: Callable[[str], str], message: str
) -> None:
    go()
    forge(change)
    checkout.lock({API: NEW})
    server.bad_images = {NEW}
    with pytest.raises(DeployNotRolledBackError) as caught:
        go()
    line = caught.value.line()
    assert "release 1" in line
    assert "is not put back, as its set cannot be used: the set in the release record was edited" in line
    assert message in line
    assert server.image() == image(NEW)
    assert states() == [(1, "running"), (2, "half done")]


def test_nothing_is_pruned_on_the_word_of_an_edited_record(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(checkout)
    forge(lambda text: text + "---\nkind: ConfigMap\n")
    capsys.readouterr()
    go(prune=True)
    assert "what earlier releases left there cannot be told: the set in the release record was edited" in " ".join(
        capsys.readouterr().err.split()
    )
    assert names(server) >= {"extra", "zweites"}
    assert running(server) == image(OLD)
