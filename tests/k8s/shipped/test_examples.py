"""What k8s/examples/ offers fits the set, the way its first lines say."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import pytest
import yaml

from k8s.envs import environment
from tests.k8s.conftest import API, OLD, REPO, Checkout

SECRETS = {("llm-dev-ui", "oauth2-proxy"): frozenset({"OAUTH2_PROXY_CLIENT_ID"})}
# Where each is copied to.
PLACES = {"vllm-serve": "inference", "inference-ingress": "inference", "webui-oauth2-proxy": "webui"}


def test_every_example_is_tried_here() -> None:
    assert {folder.name for folder in (REPO / "examples").iterdir()} == set(PLACES)


@pytest.mark.parametrize("name", PLACES)
def test_an_example_fits_the_set(checkout: Checkout, name: str) -> None:
    place = checkout.manifests / PLACES[name]
    shutil.copytree(REPO / "examples" / name, place, dirs_exist_ok=True)
    env = environment.load("staging")
    rendered, found = checkout.check(dataclasses.replace(env, secrets={**env.secrets, **SECRETS}))
    assert [finding.text() for finding in found] == []
    assert all("@sha256:" in str(pin.pinned) for pin in rendered.pins)


def test_the_server_of_vllm_is_the_same_image_for_the_same_service(checkout: Checkout) -> None:
    shutil.copytree(REPO / "examples" / "vllm-serve", checkout.manifests / "inference", dirs_exist_ok=True)
    found = [pin for pin in checkout.check()[0].pins if pin.title == "Deployment llm-inference/llama-factory-inference"]
    assert {(one.written, one.pinned.digest) for one in found} == {(API, OLD)}
    assert len(found) == 2


def test_the_server_of_vllm_gets_its_model_the_same_way() -> None:
    pods = [
        yaml.safe_load((REPO / file / "deployment.yaml").read_text())["spec"]["template"]["spec"]
        for file in ("manifests/inference", "examples/vllm-serve")
    ]
    assert pods[0]["initContainers"] == pods[1]["initContainers"]
    assert pods[0]["volumes"] == pods[1]["volumes"]


def test_the_web_ui_with_a_login_is_the_web_ui_and_a_proxy_beside_it() -> None:
    def read(file: str) -> tuple[Any, Any]:
        deployment, service = yaml.safe_load_all((REPO / file).read_text())
        return deployment, service

    plain, _ = read("manifests/webui/webui.yaml")
    deployment, service = read("examples/webui-oauth2-proxy/webui.yaml")
    proxy = deployment["spec"]["template"]["spec"]["containers"].pop()
    assert deployment == plain
    assert [port["name"] for port in proxy["ports"]] == [port["targetPort"] for port in service["spec"]["ports"]] == ["login"]
