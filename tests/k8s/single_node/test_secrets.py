"""The Secrets that `invoke cluster --up` makes: what is there stays, the halves of a key pair fit, no value is printed."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from k8s.envs import environment
from k8s.single_node import secrets
from k8s.single_node.addons import Cluster

PLACES = {
    "llm-inference/inference-api-key": ["API_KEY"],
    "llm-inference/model-trust": ["model.pub"],
    "llm-training/model-registry": [".dockerconfigjson"],
    "llm-training/model-signing-key": ["model.key"],
}


class Kubectl(Cluster):
    """Answers with the Secrets that are there, and keeps what is applied."""

    def __init__(self, there: dict[str, list[str]]) -> None:
        self.there, self.applied = there, {}  # type: ignore[var-annotated]

    def kubectl(self, *arguments: str, stdin: str | None = None, what: str = "") -> str:
        if arguments[0] == "get":
            return "".join(f"{' '.join([place, *keys])}\n" for place, keys in self.there.items())
        assert not [one for one in arguments if "KEY" in one]
        for body in json.loads(stdin or "")["items"]:
            place = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
            self.applied[place] = {key: base64.b64decode(value) for key, value in body["data"].items()}
        return ""


def test_every_key_that_the_environment_of_this_cluster_names_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Kubectl({"kube-system/other": ["a", "b"], "kube-system/empty": []})
    assert secrets.make(cluster) == 4
    assert {place: sorted(data) for place, data in cluster.applied.items()} == PLACES
    assert environment.load("local").secrets.keys() == {tuple(place.split("/")) for place in PLACES}
    said = "".join(capsys.readouterr())
    assert not [value for data in cluster.applied.values() for value in data.values() if value.decode() in said]


def test_the_pair_fits_and_is_of_the_kind_that_models_are_signed_with() -> None:
    cluster = Kubectl({})
    secrets.make(cluster)
    key: Any = load_pem_private_key(cluster.applied["llm-training/model-signing-key"]["model.key"], None)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert cluster.applied["llm-inference/model-trust"] == {"model.pub": public}
    assert key.curve.name == "secp256r1"


def test_what_is_there_stays() -> None:
    assert secrets.make(Kubectl(PLACES)) == 0


def test_half_a_pair_is_made_anew_as_a_whole() -> None:
    cluster = Kubectl({place: keys for place, keys in PLACES.items() if "trust" not in place})
    assert secrets.make(cluster) == 2
    assert set(cluster.applied) == {"llm-inference/model-trust", "llm-training/model-signing-key"}


def test_two_clusters_have_no_value_in_common() -> None:
    one, other = Kubectl({}), Kubectl({})
    secrets.make(one)
    secrets.make(other)
    for place, key in (("llm-inference/inference-api-key", "API_KEY"), ("llm-training/model-signing-key", "model.key")):
        assert one.applied[place][key] != other.applied[place][key]
