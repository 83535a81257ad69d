"""The example for the External Secrets Operator: it makes what the environments ask for, and holds no value."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from k8s.envs import environment
from k8s.envs.environment import ClusterTarget
from tests.k8s.conftest import REPO

MADE: list[dict[str, Any]] = list(yaml.safe_load_all((REPO / "external-secrets/secrets.yaml").read_text()))


def keys(one: dict[str, Any]) -> set[str]:
    """The keys of the Secret it makes: those of its template, or what it fetches."""
    template = one["spec"]["target"].get("template", {}).get("data")
    return set(template or {item["secretKey"] for item in one["spec"]["data"]})


@pytest.mark.parametrize("name", [one for one in environment.names() if one != "rendered"])
def test_it_makes_every_secret_that_an_environment_asks_for(name: str) -> None:
    env = environment.load(name)
    assert isinstance(env.target, ClusterTarget)
    made = {(one["metadata"]["namespace"], one["spec"]["target"]["name"]): keys(one) for one in MADE}
    assert made == {secret: set(wanted) for secret, wanted in env.secrets.items()}


def test_a_registrys_login_has_the_type_that_its_readers_expect() -> None:
    (login,) = [one for one in MADE if keys(one) == {".dockerconfigjson"}]
    assert login["spec"]["target"]["template"]["type"] == "kubernetes.io/dockerconfigjson"
    (fetched,) = login["spec"]["data"]
    assert f".{fetched['secretKey']} " in login["spec"]["target"]["template"]["data"][".dockerconfigjson"]


def test_it_holds_no_value() -> None:
    for one in MADE:
        assert one["apiVersion"] == "external-secrets.io/v1"
        assert one["kind"] == "ExternalSecret"
        assert set(one["spec"]) == {"refreshInterval", "secretStoreRef", "target", "data"}
        for item in one["spec"]["data"]:
            assert set(item["remoteRef"]) == {"key"}
