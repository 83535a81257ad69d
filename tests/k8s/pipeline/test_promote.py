"""The deploy step against the API double: another model is served, or the former one is back, and which is said."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from common import paths
from common.errors import ExitCode, PinwheelError
from k8s.pipeline import cluster, promote
from k8s.pipeline.model_annotation import ANNOTATION, MANAGER, preflight
from tests.k8s.pipeline.conftest import program
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.controller import Trouble
from tests.k8s.simulator.discovery import Key
from tests.k8s.simulator.wire import Fault
from tests.waiting import LIMIT_S, eventually

# Each waits for rollouts, if only for a part of a second.
pytestmark = pytest.mark.slow
NAME, NAMESPACE = "llama-factory-inference", "llm-inference"
OLD, NEW = (f"registry.example/models/team-tiny@sha256:{letter * 64}" for letter in "ab")
KEY: Key = ("apps/v1", "Deployment", NAMESPACE, NAME)
TRIAL: Key = (*KEY[:3], preflight(NAME))


class Cluster(ApiServer):
    """A server that judges the object that comes of a patch, as a real one does, not the patch alone."""

    def _invalid(self, key: Key, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        return None if key in {KEY, TRIAL} and key in self.objects else super()._invalid(key, body)

    def attend(self, key: Key, body: dict[str, Any]) -> None:
        # A pod carries its template's annotations.
        if key[1] == "Pod":
            owner = TRIAL if key[3].startswith(TRIAL[3]) else KEY
            template = self.objects[owner].stored.body()["spec"]["template"]["metadata"]
            body["metadata"]["annotations"] = template.get("annotations", {})
        super().attend(key, body)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def model(self) -> str:
        annotations = self.body("Deployment", NAME)["spec"]["template"]["metadata"].get("annotations", {})
        return str(annotations.get(ANNOTATION, ""))

    def note(self) -> str:
        return str(self.body("Deployment", NAME)["metadata"].get("annotations", {}).get(promote.BEFORE, ""))

    def try_first(self, *, fails: bool = False) -> None:
        """What tries a model beforehand, as `invoke deploy` makes it."""
        body = deployment("")
        body["metadata"]["name"] = TRIAL[3]
        self.preflights_fail = fails
        code, said = self.apply(TRIAL, body, "pinwheel", force=False, dry_run=False)
        assert code == 201, said

    def tried(self) -> tuple[int, dict[str, Any]]:
        """Pods that it shall have, and the annotations of theirs."""
        spec = self.body("Deployment", TRIAL[3])["spec"]
        return spec["replicas"], spec["template"]["metadata"].get("annotations", {})


def deployment(model: str) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load((paths.K8S / "manifests/inference/deployment.yaml").read_text())
    if model:
        body["spec"]["template"]["metadata"]["annotations"] = {ANNOTATION: model}
    else:
        # As `invoke deploy` writes it while nobody names one.
        body["spec"]["replicas"] = 0
    return body


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cluster]]:
    """A cluster whose Deployment serves a model."""
    monkeypatch.setattr(promote, "INTERVAL", 0.02)
    monkeypatch.setattr(promote, "GRACE", 0.3)
    monkeypatch.setattr(promote, "ONCE_MORE", 0.3)
    begun: list[Cluster] = []
    handler = signal.getsignal(signal.SIGTERM)

    def make(model: str = OLD, **options: Any) -> Cluster:
        one = Cluster(**{"rollout": 0.05, **options})
        one.__enter__()
        begun.append(one)
        metadata = {"name": NAMESPACE}
        one.apply(
            ("v1", "Namespace", "", NAMESPACE),
            {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata},
            "pinwheel",
            force=False,
            dry_run=False,
        )
        code, body = one.apply(KEY, deployment(model), "pinwheel", force=False, dry_run=False)
        assert code == 201, body
        if model:
            eventually(lambda: one.objects[KEY].status.get("availableReplicas"), "a first rollout")
        return one

    yield make
    signal.signal(signal.SIGTERM, handler)
    for one in begun:
        one.__exit__(None, None, None)


def call(one: Cluster, model: str = NEW, timeout: float = 20.0) -> int:
    return promote.main([model, "--api", one.address, "--timeout", str(timeout)])


def code_of(one: Cluster, **options: Any) -> tuple[int, str]:
    with pytest.raises(PinwheelError) as problem:
        call(one, **options)
    return problem.value.exit_code, str(problem.value)


@pytest.mark.parametrize("before", [OLD, ""])
def test_another_model_is_served_and_its_pods_are_new(
    start: Callable[..., Cluster], capsys: pytest.CaptureFixture[str], before: str
) -> None:
    one = start(before)
    assert call(one) == 0
    assert one.model() == NEW
    assert one.note() == ""
    assert f"served: {NEW}" in capsys.readouterr().out
    assert one.body("Deployment", NAME)["spec"].get("replicas", 1) == 1
    assert one.objects[KEY].status["availableReplicas"] == 1


@pytest.mark.parametrize("before", [OLD, ""])
def test_a_model_is_tried_before_what_serves_is_touched(start: Callable[..., Cluster], before: str) -> None:
    one = start(before)
    one.try_first()
    assert call(one) == 0
    assert one.model() == NEW
    assert one.tried() == (0, {})
    written = [path.partition("?")[0].rpartition("/")[2] for method, path in one.requests if method == "PATCH"]
    assert written == [TRIAL[3], TRIAL[3], NAME, NAME]


@pytest.mark.parametrize("before", [OLD, ""])
@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (Trouble("ErrImagePull", "connection refused"), ExitCode.REGISTRY),
        (Trouble("CreateContainerConfigError", 'secret "x" not found'), ExitCode.POLICY),
    ],
    ids=["the registry is away", "a Secret is missing"],
)
def test_a_model_that_cannot_be_tried_touches_nothing(
    start: Callable[..., Cluster], before: str, trouble: Trouble, code: ExitCode
) -> None:
    one = start(before)
    one.troubles[NEW] = trouble
    one.try_first(fails=True)
    # Its status may still be on the way.
    serving = one.body("Deployment", NAME)["spec"]
    found, said = code_of(one)
    assert found == code
    assert f"{NAME} was not touched, as {NEW} would not start there: " in said
    assert trouble.message in said
    assert one.body("Deployment", NAME)["spec"] == serving
    assert one.tried() == (0, {})


def test_what_a_killed_step_left_of_a_trial_is_no_trouble(start: Callable[..., Cluster]) -> None:
    one = start()
    one.try_first()
    promote.Rollout(cluster.Api(one.address, Path(cluster.ACCOUNT)), NAMESPACE, TRIAL[3]).set(OLD, "", replicas=1)
    assert call(one) == 0
    assert one.tried() == (0, {})


def test_a_step_that_is_told_to_end_while_it_tries_touches_nothing(start: Callable[..., Cluster]) -> None:
    one = start()
    one.silent_failure = True
    one.bad_images.add(NEW)
    one.try_first(fails=True)
    with program("promote", NEW, "--api", one.address) as process:
        assert process.stdout is not None
        while " updated, " not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=LIMIT_S) == ExitCode.TERMINATED
        assert f"nothing was changed, {OLD} is named" in process.stdout.read()
    assert one.model() == OLD
    assert one.tried() == (0, {})


def test_a_set_without_a_preflight_is_told_of_it(start: Callable[..., Cluster], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(start()) == 0
    assert f"has no Deployment {TRIAL[3]}: nothing is tried beforehand" in capsys.readouterr().out


def test_a_workload_that_was_switched_off_by_hand_stays_off(
    start: Callable[..., Cluster], capsys: pytest.CaptureFixture[str]
) -> None:
    one = start()
    body = deployment(OLD)
    body["spec"]["replicas"] = 0
    one.apply(KEY, body, "somebody", force=True, dry_run=False)
    assert call(one) == 0
    assert (one.model(), one.body("Deployment", NAME)["spec"]["replicas"]) == (NEW, 0)
    assert "the Deployment has 0 replicas" in capsys.readouterr().out


def test_what_it_sets_is_the_annotation_alone_and_by_its_own_name(start: Callable[..., Cluster]) -> None:
    one = start()
    before = one.body("Deployment", NAME)["spec"]
    call(one)
    after = one.body("Deployment", NAME)["spec"]
    before["template"]["metadata"]["annotations"] = after["template"]["metadata"]["annotations"]
    assert after == before
    owned = one.objects[KEY].stored.owners[MANAGER]
    assert all(
        "annotations" in path or path[-1] in {"name", "namespace"} for path in owned if path[0] not in {"apiVersion", "kind"}
    )


def test_a_cluster_without_the_deployment_says_what_to_write(
    start: Callable[..., Cluster], capsys: pytest.CaptureFixture[str]
) -> None:
    one = start()
    one.remove("Deployment", NAME)
    assert call(one) == 0
    assert f"write `model: {{reference: {NEW}}}`" in capsys.readouterr().out


def test_a_model_that_no_pod_gets_ready_with_gives_way_to_the_former(
    start: Callable[..., Cluster], capsys: pytest.CaptureFixture[str]
) -> None:
    one = start()
    one.bad_images.add(NEW)
    assert call(one) == ExitCode.DEPLOY_ROLLED_BACK
    assert one.model() == OLD
    said = capsys.readouterr().out
    assert f"{NEW} is not served: the Deployment's progress deadline is over" in said
    assert f"served again: {OLD}" in said


def test_a_stale_failure_of_the_rollout_before_is_not_taken_for_one(start: Callable[..., Cluster]) -> None:
    one = start(race=0.15)
    one.bad_images.add(NEW)
    assert call(one) == ExitCode.DEPLOY_ROLLED_BACK
    one.bad_images.clear()
    assert call(one) == 0


def test_a_rollout_without_end_ends_by_our_own_deadline(start: Callable[..., Cluster]) -> None:
    one = start()
    one.bad_images.add(NEW)
    one.silent_failure = True
    assert call(one, timeout=0.6) == ExitCode.DEPLOY_ROLLED_BACK
    assert one.model() == OLD


def test_the_first_model_of_all_that_fails_leaves_none(start: Callable[..., Cluster]) -> None:
    one = start("")
    one.bad_images.add(NEW)
    assert call(one) == ExitCode.DEPLOY_ROLLED_BACK
    assert one.model() == ""
    assert one.body("Deployment", NAME)["spec"]["replicas"] == 0


def test_the_pods_own_reason_is_told(start: Callable[..., Cluster], capsys: pytest.CaptureFixture[str]) -> None:
    one = start()
    one.troubles[NEW] = Trouble("CrashLoopBackOff", "back-off restarting failed container", init=True)
    assert call(one) == ExitCode.DEPLOY_ROLLED_BACK
    assert "CrashLoopBackOff" in capsys.readouterr().out


def test_pods_that_may_not_be_listed_are_no_error(start: Callable[..., Cluster]) -> None:
    one = start()
    one.forbidden.add(("list", "pods"))
    assert call(one) == 0


@pytest.mark.parametrize("fault", [Fault(500, times=2), Fault(0, times=2), Fault(429, times=3), Fault(503, "GET", times=2)])
def test_an_api_that_stumbles_is_asked_again(start: Callable[..., Cluster], fault: Fault) -> None:
    one = start()
    one.faults.append(fault)
    assert call(one) == 0


def away_until_told(one: Cluster, monkeypatch: pytest.MonkeyPatch, word: str = "does not answer") -> list[str]:
    """An API that is away from the first look at the rollout on, until the step says so; what it says of that."""
    said: list[str] = []
    real = promote.Rollout.wait

    def say(text: str) -> None:
        said.append(text)
        if word in text:
            one.away = False

    def wait(self: promote.Rollout, *arguments: Any) -> None:
        one.away = not said
        real(self, *arguments)

    monkeypatch.setattr(cluster, "say", say)
    monkeypatch.setattr(promote.Rollout, "wait", wait)
    return said


def test_an_api_that_is_away_while_the_model_is_waited_for_is_outlasted(
    start: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = start()
    said = away_until_told(one, monkeypatch)
    assert call(one) == 0
    assert one.model() == NEW
    assert said[0] == "the cluster does not answer; waiting"
    assert said[1].startswith("the cluster answers again, after ")
    assert len(said) == 2


def test_an_api_that_stays_away_ends_the_step_with_what_it_could_not_do(
    start: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = start()
    said = away_until_told(one, monkeypatch, "never said")
    monkeypatch.setattr(promote, "AWAY", 0.3)
    code, problem = code_of(one)
    one.away = False
    assert code == ExitCode.DEPLOY_NOT_ROLLED_BACK
    assert f"{OLD} is NOT served again: the cluster has not answered for 0 s: GET" in problem
    assert set(said) == {"the cluster does not answer; waiting"}


def test_a_patch_that_is_forbidden_changes_nothing_and_says_so(start: Callable[..., Cluster]) -> None:
    one = start()
    one.faults.append(Fault(403))
    code, said = code_of(one)
    assert code == ExitCode.ENVIRONMENT
    assert f"nothing was changed, {OLD} is named" in said
    assert "403" in said


def test_a_former_model_that_cannot_be_put_back_is_said_aloud(start: Callable[..., Cluster]) -> None:
    one = start()
    one.bad_images.add(NEW)
    one.faults.append(Fault(403, after=1))
    code, said = code_of(one)
    assert code == ExitCode.DEPLOY_NOT_ROLLED_BACK
    assert f"{OLD} is NOT served again" in said
    assert "kubectl -n llm-inference describe" in said


def test_who_sets_another_model_meanwhile_keeps_it(start: Callable[..., Cluster]) -> None:
    one = start()
    third = NEW.replace("b" * 64, "c" * 64)
    one.bad_images.add(NEW)
    real = promote.Rollout.wait

    def wait(self: promote.Rollout, *arguments: Any) -> None:
        one.edit("Deployment", NAME, deployment(third), "somebody")
        real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promote.Rollout, "wait", wait)
        code, said = code_of(one)
    assert code == ExitCode.DEPLOY_NOT_ROLLED_BACK
    assert f"left as somebody else set it: {third}" in said
    assert one.model() == third


# The note for no model is a word, which may be part of a model's name.
@pytest.mark.parametrize("before", [OLD, OLD.replace("tiny", "none"), ""])
def test_a_run_after_one_that_died_knows_what_was_served_before(start: Callable[..., Cluster], before: str) -> None:
    one = start(before)
    one.bad_images.add(NEW)
    # As SIGKILL leaves it: the model is set, nobody waits.
    noted = before or promote.NOTHING
    promote.Rollout(cluster.Api(one.address, Path(cluster.ACCOUNT)), NAMESPACE, NAME).set(NEW, noted)
    assert one.note() == noted
    assert call(one) == ExitCode.DEPLOY_ROLLED_BACK
    assert one.model() == before
    assert one.note() == ""


def test_a_model_that_is_served_already_is_not_taken_away(start: Callable[..., Cluster]) -> None:
    one = start(NEW)
    assert call(one) == 0
    one.bad_images.add(NEW)
    one.objects[KEY].status["availableReplicas"] = 0
    assert call(one, timeout=0.2) == ExitCode.DEPLOY_NOT_ROLLED_BACK
    assert one.model() == NEW


def test_a_step_that_is_told_to_end_puts_the_former_model_back(start: Callable[..., Cluster]) -> None:
    one = start()
    one.bad_images.add(NEW)
    one.silent_failure = True
    with program("promote", NEW, "--api", one.address) as process:
        assert process.stdout is not None
        while " updated, " not in process.stdout.readline():
            assert process.poll() is None
        assert one.model() == NEW
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=LIMIT_S) == ExitCode.TERMINATED
        said = process.stdout.read()
    assert one.model() == OLD
    assert f"put back: {OLD}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("address", ["http://10.0.0.1:443", "https://127.0.0.1:1", "file:///x"])
def test_an_api_by_name_is_this_machines_proxy_or_refused(address: str) -> None:
    with pytest.raises(PinwheelError, match="kubectl proxy") as problem:
        promote.main([NEW, "--api", address])
    assert problem.value.exit_code == ExitCode.USAGE


def test_outside_a_pod_there_is_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(PinwheelError, match="no ServiceAccount's token"):
        promote.main([NEW])


@pytest.mark.parametrize("model", ["registry.example/models/x:latest", "x", NEW + "0"])
def test_a_model_that_is_not_pinned_is_refused(model: str) -> None:
    with pytest.raises(PinwheelError, match="not a reference of the form"):
        promote.main([model, "--api", "http://127.0.0.1:1"])


def test_an_api_that_is_not_there_changes_nothing() -> None:
    with pytest.raises(PinwheelError, match="failed 6 times in a row: connection refused") as problem:
        promote.main([NEW, "--api", "http://127.0.0.1:1"])
    assert problem.value.exit_code == ExitCode.ENVIRONMENT
