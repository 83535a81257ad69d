"""What comes from outside is read or refused, never a traceback; and the API is asked as a pod's own account."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import ExitCode, PinwheelError
from k8s.pipeline import artifact, cluster
from k8s.pipeline.cluster import Api, ApiError, pod_problems
from k8s.pipeline.pod_reasons import Endings
from oci.reference import ImageRef
from tests.oci.double import serving
from tests.oci.real import CERTIFICATE

# The fixtures that all tests here get do not change from one example to the next.
PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KEYS = st.sampled_from(["mediaType", "digest", "size", "annotations", artifact.FILEPATH, "layers", "config", "artifactType"])
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from([artifact.ARTIFACT, artifact.WEIGHT])
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12)


@PROPERTY
@given(body=JSON)
def test_any_json_is_a_manifest_or_refused(body: Any) -> None:
    whole = {"artifactType": artifact.ARTIFACT, **body} if isinstance(body, dict) else body
    with pytest.raises(PinwheelError):
        artifact.parse(json.dumps(whole).encode(), "x")


@PROPERTY
@given(path=st.text(alphabet="ab./\\\n~é", max_size=12))
def test_a_path_that_is_safe_stays_below_its_folder(path: str) -> None:
    if not artifact.unsafe(path):
        place = os.path.normpath(f"/folder/{path}")
        assert place == f"/folder/{path}"
        assert "\n" not in path


@PROPERTY
@given(text=st.text(alphabet="abz019.:/@-_[]", max_size=30))
def test_a_reference_that_is_read_is_written_the_same(text: str) -> None:
    try:
        found = ImageRef.in_registry(text, pinned=False)
    except ValueError:
        return
    assert str(found) == text
    assert found.repository
    assert "//" not in text


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """What the kubelet mounts."""
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_bytes(CERTIFICATE.read_bytes())
    return tmp_path


def test_the_api_is_asked_by_tls_as_the_pods_account(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_suffix(".key"))
    with serving(context) as server:
        host, _, port = server.address.partition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        api = Api("", account)
        assert api.get("/apis/apps/v1/x") is None
        # A token is renewed under way.
        (account / "token").write_text("second\n")
        assert api.get("/apis/apps/v1/x") is None
        assert [one.headers["authorization"] for one in server.asked] == ["Bearer first", "Bearer second"]


def test_an_api_that_another_ca_vouches_for_is_not_told_the_token(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_suffix(".key"))
    with serving(context) as server:
        host, _, port = server.address.partition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        monkeypatch.setattr(ssl, "create_default_context", lambda **_: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        with pytest.raises(ApiError, match="certificate is not trusted") as problem:
            Api("", account).get("/x")
        assert problem.value.exit_code == ExitCode.ENVIRONMENT
        assert not server.asked


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": status}


def waiting(reason: str, *, restarts: int = 0, **more: Any) -> dict[str, Any]:
    return {"name": "c", "restartCount": restarts, "state": {"waiting": {"reason": reason, **more}}}


TROUBLES: dict[str, tuple[dict[str, Any], dict[str, bool]]] = {
    "nothing": (pod(), {}),
    "it starts": (pod(containerStatuses=[waiting("ContainerCreating")]), {}),
    "an image that may come": (
        pod(containerStatuses=[waiting("ImagePullBackOff", message="no such host")]),
        {"p/c: ImagePullBackOff no such host": False},
    ),
    "no such Secret": (
        pod(containerStatuses=[waiting("CreateContainerConfigError", message='secret "x" not found')]),
        {'p/c: CreateContainerConfigError secret "x" not found': True},
    ),
    "it crashed, how often in this way nobody saw": (
        pod(initContainerStatuses=[{**waiting("CrashLoopBackOff", restarts=3), "lastState": {"terminated": {"exitCode": 15}}}]),
        {"p/c: CrashLoopBackOff exit code 15": False},
    ),
    "no GPU": (
        pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]),
        {"p: Unschedulable 0/3 nodes": False},
    ),
}


@pytest.mark.parametrize(("body", "told"), TROUBLES.values(), ids=TROUBLES)
def test_what_a_pod_hangs_on_is_told_with_whether_it_can_get_better(body: dict[str, Any], told: dict[str, bool]) -> None:
    assert {line: one.hopeless for line, one in pod_problems(body, Endings()).items()} == told


def test_a_container_that_was_seen_to_end_five_times_in_the_same_way_is_hopeless() -> None:
    endings = Endings()
    ended = {"lastState": {"terminated": {"exitCode": 15}}}
    looks = [pod(containerStatuses=[{**waiting("CrashLoopBackOff", restarts=number), **ended}]) for number in range(5)]
    told = [{line: one.hopeless for line, one in pod_problems(look, endings).items()} for look in looks]
    assert told[-2:] == [
        {"p/c: CrashLoopBackOff exit code 15": False},
        {"p/c: CrashLoopBackOff exit code 15, 5 times in a row": True},
    ]


def test_the_accounts_folder_is_the_kubelets() -> None:
    assert cluster.ACCOUNT == "/var/run/secrets/kubernetes.io/serviceaccount"
