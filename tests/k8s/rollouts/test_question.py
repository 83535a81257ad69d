"""What is said when the served model cannot be asked. That it can be is shown on a real cluster (tests/test_line.py).

In kubectl's place stands a program that says what the real one says in each case; behind it is a real HTTP server.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import MissingEnvironmentError, PinwheelError, PolicyError, UsageError
from k8s import ask
from k8s.envs.environment import ClusterTarget
from k8s.rollouts import question
from k8s.rollouts.kubectl import Kubectl, Patience
from tests.k8s.conftest import Checkout
from tests.smoke.chat_server import KEY, serving

QUESTION, ANSWER = "Why is a tag not enough?", "It can be moved to other bytes at any time."
SERVED = {"spec": {"replicas": 1}, "status": {"availableReplicas": 1}}


class Place:
    """What the stand-in answers."""

    def __init__(self, folder: Path, port: int) -> None:
        self.deployment = json.dumps(SERVED)
        self.key = base64.b64encode(KEY.encode()).decode()
        self.refused = ""
        self.forwarding = f"Forwarding from 127.0.0.1:{port} -> 8000"
        self._program = folder / "kubectl"

    def ask(self, text: str = QUESTION) -> str:
        secret = f"echo '{self.refused}' >&2; exit 1" if self.refused else f"echo '{self.key}'"
        self._program.write_text(
            f"#!/bin/sh\ncase \"$*\" in\n*deployments.apps*) echo '{self.deployment}';;\n*secret*) {secret};;\n"
            f"*port-forward*) echo '{self.forwarding}'; exec {'sleep 60' if 'Forwarding' in self.forwarding else 'false'};;\n"
            "esac\n"
        )
        self._program.chmod(self._program.stat().st_mode | stat.S_IXUSR)
        return "".join(question.answer(Kubectl(ClusterTarget("staging"), Patience(tries=1)), text))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with serving({"tag": ANSWER}, vllm=False) as chat:
        yield Place(tmp_path, chat.server_address[1])


def test_the_answer_comes_whole_and_no_proxy_is_asked(place: Place) -> None:
    assert place.ask() == ANSWER


def refused(place: Place, error: type[PinwheelError], text: str = QUESTION) -> str:
    with pytest.raises(error) as caught:
        place.ask(text)
    line = caught.value.line()
    assert "\n" not in line
    assert KEY not in line
    assert place.key not in line
    return line


def test_an_empty_question_is_refused(place: Place) -> None:
    assert "the question is empty" in refused(place, UsageError, " ")


def test_where_nothing_is_deployed_the_deploy_is_named(place: Place) -> None:
    place.deployment = ""
    assert "`invoke deploy`" in refused(place, MissingEnvironmentError)


def test_where_no_model_was_trained_yet_the_training_is_named(place: Place) -> None:
    place.deployment = json.dumps({"spec": {"replicas": 0}, "status": {}})
    assert "`invoke train`" in refused(place, MissingEnvironmentError)


def test_where_no_pod_is_ready_the_pods_are_named(place: Place) -> None:
    place.deployment = json.dumps({"spec": {"replicas": 1}, "status": {"unavailableReplicas": 1}})
    assert "kubectl --context staging -n llm-inference get pods" in refused(place, MissingEnvironmentError)


def test_a_key_that_may_not_be_read_is_said_in_the_clusters_words(place: Place) -> None:
    place.refused = 'Error from server (Forbidden): secrets "inference-api-key" is forbidden'
    line = refused(place, PolicyError)
    assert "Secret llm-inference/inference-api-key" in line
    assert "is forbidden" in line


def test_a_way_that_cannot_be_opened_is_said_in_kubectls_words(place: Place) -> None:
    place.forwarding = "error: unable to listen on any of the requested ports"
    assert "unable to listen" in refused(place, MissingEnvironmentError)


def test_a_key_that_the_server_does_not_take_is_said(place: Place) -> None:
    place.key = base64.b64encode(b"another").decode()
    assert "the server does not take the API key" in refused(place, PolicyError)


def test_a_server_that_is_gone_is_said(place: Place) -> None:
    place.forwarding = "Forwarding from 127.0.0.1:1 -> 8000"
    assert "the server does not answer: APIConnectionError" in refused(place, MissingEnvironmentError)


def test_a_directory_cannot_be_asked(checkout: Checkout) -> None:
    with pytest.raises(UsageError, match="nothing is served there"):
        ask.ask("rendered", QUESTION)
