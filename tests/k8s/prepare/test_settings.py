"""What an environment sets in plain manifests, and what it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import UsageError
from k8s.envs import environment
from k8s.envs import table as compare
from k8s.objects import manifests
from k8s.objects.manifests import Manifest
from k8s.prepare import settings
from tests.k8s.conftest import REPO, Checkout
from tests.k8s.envs.test_environment import GOOD

SET = """
apiVersion: v1
kind: Namespace
metadata: {name: nn}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: work, namespace: nn}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Gi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: shared, namespace: nn}
spec: {accessModes: [ReadWriteMany], storageClassName: filestore, resources: {requests: {storage: 10Gi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: nn}
spec:
  template:
    spec:
      containers: [{name: c, image: x}]
      volumes:
        - {name: tmp, emptyDir: {}}
        - name: models
          ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ui, namespace: nn}
spec: {template: {spec: {containers: [{name: c, image: x}]}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: api, namespace: nn}
spec: {minReplicas: 1, maxReplicas: 2, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: api}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: nn}
spec:
  tls: [{hosts: [llm.example.com], secretName: tls}]
  rules: [{host: llm.example.com}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: two, namespace: nn}
spec: {rules: [{host: a.example.com}, {host: b.example.com}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: nn}
spec:
  template: {spec: {containers: [{name: c, image: x}]}}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {resources: {requests: {storage: 1Gi}}}}]
"""


def objects(text: str = SET) -> tuple[Manifest, ...]:
    return tuple(one for one in manifests.parse(text, "set.yaml") if isinstance(one, Manifest))


def applied(keys: str, text: str = SET) -> dict[tuple[str, str], Any]:
    found = environment.parse(GOOD + keys, "e", "e.yaml").settings
    return {(one.kind, one.name): one.body.get("spec") for one in settings.apply(objects(text), found, "e.yaml")}


def test_an_environment_that_sets_nothing_leaves_the_manifests_as_they_are() -> None:
    assert applied("") == {(one.kind, one.name): one.body.get("spec") for one in objects()}


def test_the_storage_class_goes_to_every_claim_that_names_none_itself() -> None:
    found = applied("storage-class: ssd\n")
    assert found["PersistentVolumeClaim", "work"]["storageClassName"] == "ssd"
    assert found["PersistentVolumeClaim", "shared"]["storageClassName"] == "filestore"
    (_, models) = found["Deployment", "api"]["template"]["spec"]["volumes"]
    assert models["ephemeral"]["volumeClaimTemplate"]["spec"]["storageClassName"] == "ssd"
    assert found["StatefulSet", "db"]["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "ssd"


def test_sizes_are_set_by_the_claims_name_or_by_workload_and_volume() -> None:
    found = applied("sizes: {nn/work: 1Ti, nn/api/models: 300Gi, nn/db/data: 5Gi}\n")
    assert found["PersistentVolumeClaim", "work"]["resources"]["requests"]["storage"] == "1Ti"
    assert found["PersistentVolumeClaim", "work"]["accessModes"] == ["ReadWriteOnce"]
    (_, models) = found["Deployment", "api"]["template"]["spec"]["volumes"]
    assert models["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"] == "300Gi"
    assert found["StatefulSet", "db"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "5Gi"


def test_replicas_are_an_autoscalers_bounds_or_a_workloads_number() -> None:
    found = applied("replicas: {nn/api: [2, 6], nn/ui: 0}\n")
    assert {"minReplicas": 2, "maxReplicas": 6}.items() <= found["HorizontalPodAutoscaler", "api"].items()
    assert "replicas" not in found["Deployment", "api"]
    assert found["Deployment", "ui"]["replicas"] == 0


def test_the_host_of_an_ingress_goes_into_its_rules_and_its_certificate() -> None:
    spec = applied("hosts: {nn/web: llm.staging.example}\n")["Ingress", "web"]
    assert spec["rules"] == [{"host": "llm.staging.example"}]
    assert spec["tls"] == [{"hosts": ["llm.staging.example"], "secretName": "tls"}]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("storage-class: SSD\n", "storage-class: 'SSD' is no name of a StorageClass"),
        ("storage-class: [a]\n", "storage-class: expected a string, got ['a']"),
        ("sizes: {work: 1Gi}\n", "sizes.work: write namespace/name or namespace/workload/part"),
        ("sizes: {nn/work: 5}\n", "sizes.nn/work: expected a size such as 50Gi, or requests and limits of a container, got 5"),
        (
            "sizes: {nn/work: 5GB}\n",
            "sizes.nn/work: expected a size such as 50Gi, or requests and limits of a container, got '5GB'",
        ),
        ("sizes: {nn/work: '0'}\n", "expected a size"),
        ("sizes: {nn/work: -1Gi}\n", "expected a size"),
        ("replicas: {nn/api: [2]}\n", "replicas.nn/api: expected [least, most]"),
        ("replicas: {nn/api: [0, 2]}\n", "an autoscaler keeps at least 1"),
        ("replicas: {nn/api: [3, 2]}\n", "[3, 2]: an autoscaler keeps at least 1"),
        ("replicas: {nn/api: true}\n", "replicas.nn/api: expected [least, most]"),
        ("replicas: {nn/ui: -1}\n", "replicas.nn/ui: expected [least, most]"),
        ("replicas: {nn/a/b: 1}\n", "replicas.nn/a/b: write namespace/name"),
        ("hosts: {nn/web: 'https://x.example'}\n", "hosts.nn/web: expected a host name"),
        ("hosts: {nn/web: localhost}\n", "hosts.nn/web: expected a host name"),
        ("sizes: [nn/work]\n", "sizes: expected a mapping"),
        ("size: {nn/work: 1Gi}\n", "size: unknown key"),
        ("sizes: {nn/wrok: 1Gi}\n", "sizes.nn/wrok: names nothing of the set (e.yaml)"),
        ("sizes: {nn/api: 1Gi}\n", "sizes.nn/api: names nothing of the set"),
        ("sizes: {nn/api/tmp: 1Gi}\n", "sizes.nn/api/tmp: names nothing of the set"),
        ("replicas: {m/api: [1, 2]}\n", "replicas.m/api: names nothing of the set"),
        ("replicas: {nn/ui: [1, 2]}\n", "replicas.nn/ui: names nothing of the set"),
        ("replicas: {nn/api: 3}\n", "HorizontalPodAutoscaler nn/api sets the number of Deployment nn/api: write [least, most]"),
        ("hosts: {nn/api: a.example}\n", "hosts.nn/api: names nothing of the set"),
        ("hosts: {nn/two: c.example}\n", "Ingress nn/two has a.example.com, b.example.com for host names"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_key(keys: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        applied(keys)
    assert message in caught.value.line()


def test_a_part_of_a_set_is_not_asked_for_what_lies_elsewhere() -> None:
    part = SET.split("---", 1)[1]
    assert applied("sizes: {nn/elsewhere: 1Gi}\n", part)["PersistentVolumeClaim", "work"]


def test_more_replicas_than_the_quota_has_gpus_for_are_refused(checkout: Checkout) -> None:
    file = checkout.root / "k8s/envs/staging.yaml"
    file.write_text(file.read_text() + "replicas: {llm-inference/llama-factory-inference: [1, 9]}\n")
    assert any("requests.nvidia.com/gpu" in line and "9" in line for line in checkout.findings()), checkout.findings()


@pytest.mark.parametrize("name", ["rendered", "staging", "production"])
def test_what_the_projects_environments_set_is_in_the_projects_set(name: str) -> None:
    found, _ = manifests.load([REPO / "manifests"])
    env = environment.parse((REPO / "envs" / f"{name}.yaml").read_text(), name, f"{name}.yaml")
    done = settings.apply(found, env.settings, env.file)
    (scaler,) = [one for one in done if one.kind == "HorizontalPodAutoscaler"]
    bounds = env.settings.replicas.get(f"{scaler.namespace}/{scaler.name}", (1, 4))
    assert (scaler.body["spec"]["minReplicas"], scaler.body["spec"]["maxReplicas"]) == bounds


def test_the_settings_are_shown_side_by_side() -> None:
    envs = [environment.parse(GOOD + keys, "e", "e.yaml") for keys in ("storage-class: ssd\nreplicas: {nn/a: [1, 2]}\n", "")]
    found = {row[1]: row for row in compare.rows(envs)}
    assert found["storage-class"] == ("≠", "storage-class", "ssd", "the cluster's default")
    assert found["replicas nn/a"] == ("≠", "replicas nn/a", "1 to 2", "-")
