"""Going back to a recorded set after the pipeline promoted a model: that one field is taken over by force, and nothing else."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from common.errors import DeployRolledBackError, PolicyError
from k8s import rollback
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.prepare import models
from tests.k8s.rollouts.test_live_model import PROMOTED, REFERENCE, promote, served
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import BRIEF, NAME, go, image, running

pytestmark = pytest.mark.host


def promoted(checkout: Checkout, server: ApiServer) -> None:
    """One release, then another model by the pipeline, which the file says too, and a new image that is not deployed yet."""
    go()
    promote(server, PROMOTED)
    models.named(checkout.root, "staging", models.OTHER)
    checkout.lock({API: NEW})
    server.requests.clear()


def back() -> None:
    rollback.rollback("staging", yes=True, patience=BRIEF)


def owners(server: ApiServer, field: str) -> set[str]:
    """Who owns a field of the pod template's annotations."""
    found = set()
    for entry in server.body("Deployment", NAME)["metadata"]["managedFields"]:
        template = entry["fieldsV1"].get("f:spec", {}).get("f:template", {})
        if f"f:{field}" in template.get("f:metadata", {}).get("f:annotations", {}):
            found.add(entry["manager"])
    return found


def forced(server: ApiServer) -> list[tuple[str, str]]:
    """What was written by force, but for the preflight's own objects: the last part of its address, and the field manager."""
    found = []
    for method, path in server.requests:
        query = parse_qs(urlsplit(path).query)
        if method == "PATCH" and query.get("force") == ["true"] and "dryRun" not in query:
            name = urlsplit(path).path.rpartition("/")[2]
            found += [] if name.endswith("-preflight") else [(name, query["fieldManager"][0])]
    return found


def test_a_put_back_brings_its_own_model_after_a_promotion(checkout: Checkout, server: ApiServer) -> None:
    promoted(checkout, server)
    server.bad_images = {NEW}
    with pytest.raises(DeployRolledBackError, match="the last good set runs again, release 1"):
        go()
    assert (running(server), served(server)) == (image(OLD), REFERENCE)
    assert forced(server) == [(NAME, "pinwheel-pipeline")]
    # The pipeline let go of it: the file counts again, and the next deploy is not told to write the older model.
    assert owners(server, "pinwheel.io/model") == {"pinwheel"}
    server.bad_images = set()
    go()
    assert (running(server), served(server)) == (image(NEW), PROMOTED)


def test_a_rollback_brings_its_own_model_after_a_promotion(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    promoted(checkout, server)
    go()
    capsys.readouterr()
    back()
    assert (running(server), served(server)) == (image(OLD), REFERENCE)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{PROMOTED} → {REFERENCE}" in said
    assert forced(server) == [(NAME, "pinwheel-pipeline")]
    assert owners(server, "pinwheel.io/model") == {"pinwheel"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"spec": {"progressDeadlineSeconds": 77}}, "progressDeadlineSeconds"),
        ({"spec": {"template": {"metadata": {"annotations": {"pinwheel.io/model": "x/y@sha256:0"}}}}}, "pinwheel.io/model"),
    ],
    ids=["another field", "the model, by somebody else"],
)
def test_what_somebody_else_owns_is_not_taken_with_it(
    checkout: Checkout, server: ApiServer, body: dict[str, object], field: str
) -> None:
    promoted(checkout, server)
    go()
    server.edit("Deployment", NAME, body, "kubectl-edit")
    before = server.body("Deployment", NAME)["spec"]
    with pytest.raises(PolicyError, match=f"nothing was sent.*{field} belongs to kubectl-edit"):
        back()
    assert server.body("Deployment", NAME)["spec"] == before
    assert forced(server) == []
