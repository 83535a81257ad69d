from __future__ import annotations

import pytest

from common.errors import MissingEnvironmentError, PolicyError
from common.run import Result
from k8s.rollouts import kubectl
from k8s.rollouts.conflicts import Conflict, conflicts

ADVICE = "\nPlease review the fields above--they currently have other managers. Here\n* …\nSee https://x.example/#conflicts\n"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            'error: Apply failed with 1 conflict: conflict with "kubectl-edit" using apps/v1: .spec.replicas',
            [Conflict("kubectl-edit", ".spec.replicas")],
        ),
        ('error: Apply failed with 1 conflict: conflict with "argocd": .data.x', [Conflict("argocd", ".data.x")]),
        (
            'conflict with "hpa" with subresource "scale" using apps/v1 at 2026-01-01T00:00:00Z: .spec.replicas',
            [Conflict("hpa", ".spec.replicas")],
        ),
        (
            'Apply failed with 3 conflicts: conflicts with "a" using apps/v1:\n- .spec.x\n'
            '- .spec.template.spec.containers[name="c"].image\nconflicts with "b":\n- .spec.y' + ADVICE,
            [
                Conflict("a", ".spec.x"),
                Conflict("a", '.spec.template.spec.containers[name="c"].image'),
                Conflict("b", ".spec.y"),
            ],
        ),
        ("Error from server (Forbidden): no", []),
    ],
)
def test_conflicts_are_read_by_owner_and_field(said: str, expected: list[Conflict]) -> None:
    assert list(conflicts(said)) == expected


def test_advice_is_left_out_but_nothing_after_it() -> None:
    said = kubectl.brief(Result(1, "", f"error: a conflict{ADVICE}Error from server (Forbidden): denied\n"))
    assert said == "a conflict | (Forbidden): denied"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Error from server (InternalError): etcd", MissingEnvironmentError),
        ("The connection to the server 127.0.0.1:1 was refused … connection refused", MissingEnvironmentError),
        ("Error from server (Forbidden): quota", PolicyError),
        ('The Service "x" is invalid: spec', PolicyError),
    ],
)
def test_a_server_that_is_away_is_no_policy(said: str, error: type[Exception]) -> None:
    assert isinstance(kubectl.refusal(Result(1, "", said), "what", "fix"), error)
