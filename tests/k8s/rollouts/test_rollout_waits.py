"""What a wait for a rollout prints, and when it ends: without kubectl, look by look."""

from __future__ import annotations

import pytest

from common.run import Result
from k8s.objects.manifests import Manifest
from k8s.prepare.rendered import RenderedSet
from k8s.rollouts import apply
from k8s.rollouts.lease import Lease
from k8s.rollouts.rollout import FailedError
from tests.k8s.rollouts.scripted import WEB, Scripted, crashed, pod


def test_a_container_that_ends_five_times_with_the_same_error_ends_the_wait() -> None:
    def script(one: Scripted) -> None:
        one.pods = [pod(crashed(one.looks))]

    one = Scripted(script=script)
    with pytest.raises(FailedError, match=r"waiting longer does not help.*CrashLoopBackOff: Error, code 1, 5 times in a row"):
        one.wait()
    assert one.looks == 5


def test_a_container_that_ends_in_another_way_each_time_is_waited_for() -> None:
    def script(one: Scripted) -> None:
        one.pods, one.ready = [pod(crashed(one.looks, code=one.looks % 2 + 1))], one.looks > 20

    Scripted(script=script).wait()


def test_an_apply_that_fails_is_not_ticked_off(capsys: pytest.CaptureFixture[str]) -> None:
    one = Scripted()
    one.answers = {"apply --server-side": Result(1, "", "error: a policy forbids it")}
    rendered = RenderedSet((Manifest("web.yaml", WEB, {}),), (), ())
    lease = Lease(one, "staging", "n", "Ada")
    lease._taken({})
    with pytest.raises(FailedError, match="apply failed: a policy forbids it"):
        apply._put(one, rendered, "1.36", "putting the last good set back", lease, recorded=False)
    said = capsys.readouterr().out
    assert "putting the last good set back" in said
    assert "✓" not in said
