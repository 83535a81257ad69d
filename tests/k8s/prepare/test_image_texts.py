"""Images in texts: what is pinned there, what is refused, and which words are none."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s.envs import environment
from k8s.objects import loose_yaml, schema, strict_yaml
from k8s.objects.findings import Finding
from k8s.objects.manifests import Manifest
from k8s.prepare import pin
from k8s.prepare.image_names import is_image_name
from k8s.prepare.rendered import Pin
from tests.k8s.conftest import API, OLD

ENV = environment.parse(
    "target: {cluster: {context: c}}\nregistry: registry.example.com/llm\nkubernetes: '1.32'\nproof: none\n", "t", "t.yaml"
)
OURS = f"registry.example.com/llm/{API}@{OLD}"
PINNED = f"quay.io/acme/worker@sha256:{'e' * 64}"


def judged(body: dict[str, Any]) -> tuple[Manifest, list[str], list[Finding]]:
    """The object with its images pinned, the pins, and what was refused."""
    walk = schema.schema("1.32").walk(Manifest("f.yaml", body, {}))
    assert walk.findings == []
    (done,), pins, refused = pin.pin([walk], ENV, {API: OLD})
    if not refused:
        # What runs is compared by the same places.
        found = pin.images([done], "1.32")
        assert found == {(one.identity, one.path): str(one.pinned) for one in pins}
    return done, [str(one.pinned) for one in pins if isinstance(one, Pin)], list(refused)


def pod(**container: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": API, **container}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": spec}


def argument(*words: str) -> dict[str, Any]:
    return pod(args=[*words])


def variable(name: str, value: str) -> dict[str, Any]:
    return pod(env=[{"name": name, "value": value}])


def annotation(key: str, value: str) -> dict[str, Any]:
    body = pod()
    body["metadata"]["annotations"] = {key: value}
    return body


def config(value: str, key: str = "config") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}, "data": {key: value}}


def volume(csi: dict[str, Any]) -> dict[str, Any]:
    body = pod()
    body["spec"]["volumes"] = [{"name": "v", "csi": csi}]
    return body


def nested(depth: int, form: str = "") -> str:
    """An image in texts inside of each other, as JSON or in another form."""
    text = '{"image": "attacker/x"}'
    for _ in range(depth):
        text = form.replace("{}", text.replace("\n", "\n  ")) if form else json.dumps({"inner": text})
    return text


def free(data: Any) -> dict[str, Any]:
    metadata = {"name": "r", "namespace": "n"}
    return {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "revision": 1, "data": data}


@pytest.mark.parametrize(
    ("body", "at", "written"),
    [
        (argument(f"--image={API}"), ("args", 0), f"--image={OURS}"),
        (argument("--sidecar-image", API), ("args", 1), OURS),
        (argument(f"-workerImage={PINNED}"), ("args", 0), f"-workerImage={PINNED}"),
        (argument(f"--images={API},{PINNED}"), ("args", 0), f"--images={OURS},{PINNED}"),
        (
            argument("sh", "-c", f"run --x --image={API} --y\nrun --image {API}"),
            ("args", 2),
            f"run --x --image={OURS} --y\nrun --image {OURS}",
        ),
        (pod(command=["run", "--image"], args=[API]), ("args", 0), OURS),
        (variable("SIDECAR_IMAGE", API), ("env", 0, "value"), OURS),
        (variable("RELATED_IMAGE_WORKER", PINNED), ("env", 0, "value"), PINNED),
        (pod(env=[{"name": "X_IMAGE", "value": API}], args=["--image=$(X_IMAGE)"]), ("args", 0), "--image=$(X_IMAGE)"),
    ],
)
def test_an_image_in_an_argument_or_a_variable_is_pinned(body: dict[str, Any], at: tuple[Any, ...], written: str) -> None:
    done, pins, refused = judged(body)
    assert refused == []
    here = done.body["spec"]["containers"][0]
    for step in at:
        here = here[step]
    assert here == written
    assert len(pins) >= 2


def test_an_image_in_an_annotation_or_a_configmap_is_pinned() -> None:
    done, _, refused = judged(annotation("sidecar.istio.io/proxyImage", API))
    assert (refused, done.metadata["annotations"]["sidecar.istio.io/proxyImage"]) == ([], OURS)
    done, _, refused = judged(config(API, "sidecarImage"))
    assert (refused, done.body["data"]["sidecarImage"]) == ([], OURS)


@pytest.mark.parametrize(
    "body",
    [
        argument(f"--config-reloader={PINNED}"),
        argument("run", PINNED),
        config(f"worker:\n  image: {PINNED}\n"),
        config(json.dumps({"spec": {"image": PINNED}})),
        config(f"repository: acme/worker\nregistry: quay.io\ndigest: {PINNED.partition('@')[2]}\n"),
        free({"spec": {"template": {"spec": {"containers": [{"image": PINNED}]}}}}),
        annotation("example.com/what", PINNED),
    ],
)
def test_what_stands_by_digest_is_taken_and_counts_as_an_image(body: dict[str, Any]) -> None:
    _, pins, refused = judged(body)
    assert refused == []
    assert any(one.startswith(("quay.io/acme/worker@", "acme/worker@")) for one in pins)


DIGEST = f"@sha256:{'f' * 64}"
UNPINNED = {
    "flag with a tag": argument("--solver-image=acme/solver:v1.2"),
    "flag of two words": argument("--helper-image", "busybox:latest"),
    "flag without a tag": argument("--image=quay.io/acme/proxy"),
    "flag with a bare word": argument("--image=busybox"),
    "flag in capitals": argument("--IMAGE=busybox"),
    "flag from a variable that is none": argument("--image=$(REGISTRY)/x"),
    "address of an engine": argument("docker://quay.io/acme/proxy:1"),
    "variable with a tag": variable("RELATED_IMAGE_WORKER", "acme/worker:v3"),
    "variable without a tag": variable("RELATED_IMAGE_PROXY", "quay.io/acme/proxy"),
    "variable, one of two": variable("IMAGES", f"{PINNED},busybox"),
    "foreign image": argument("quay.io/argo/exec:v3"),
    "unknown host": argument("evil.example.com/miner:1"),
    "well-known host without a tag": argument("docker.io/attacker/x"),
    "well-known host by another name": free({"runner": {"img": "docker.io/attacker/x"}}),
    "well-known host with a tag by a registry's name": variable("REPOSITORY", "ghcr.io/acme/x:1"),
    "our registry": argument("registry.example.com/llm/other"),
    "our registry in capitals": argument("Registry.Example.com:443/llm/other"),
    "tag of ours": pod(command=["run", f"x/{API}:1"]),
    "in a script": argument("sh", "-c", "docker run quay.io/x/y"),
    "annotation without a tag": annotation("sidecar.istio.io/proxyImage", "docker.io/attacker/proxyv2"),
    "annotation with a tag": annotation("sidecar.istio.io/proxyImage", "docker.io/attacker/proxyv2:1"),
    "annotation of two parts": annotation("config.linkerd.io/proxy-image", "docker.io/attacker/proxy"),
    "annotation that is JSON": annotation("kubectl/last", json.dumps({"image": f"{API}:1"})),
    "key of a ConfigMap": config("acme/sidecar:latest", "sidecarImage"),
    "manifest in an argument": argument("spec:\n  image: nginx\n"),
    "JSON in an argument": argument('{"image": "nginx"}'),
    "Helm's parts": config("worker:\n  repository: acme/worker\n  tag: latest\n"),
    "free form": free({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "busybox"}]}}}}),
    "argument in free form": free({"args": ["--image", "busybox"]}),
    "name of ours in a text": config(f"image: {API}\n"),
    "text in a text": config(json.dumps({"inner": json.dumps({"image": "busybox"})})),
    "volume in a manifest": config(
        strict_yaml.dump(
            [{**pod(), "spec": {"containers": [], "volumes": [{"name": "v", "image": {"reference": "a.example/x"}}]}}]
        )
    ),
    "flag in a manifest": config(strict_yaml.dump([argument("--image=busybox")]).replace(API, PINNED)),
    "volume without a manifest": config("volumes: [{image: {reference: a.example/x}}]"),
    "program": config('start("docker.io/attacker/x")\n', "x.py"),
    "digest of capitals": argument(f"q.example/x{DIGEST.upper().replace('SHA', 'sha')}"),
    "name that goes on": annotation("example.com/imageRef", "attacker/x"),
    "name of a name": variable("WORKER_IMAGE_NAME", "busybox"),
    "address of an image": variable("WORKER_IMAGE_URL", "attacker/x:1"),
    "variable that is a JSON list": variable("IMAGES", '["busybox"]'),
    "template in a variable": variable("WORKER_IMAGE", "{{ worker }}"),
    "attribute of a volume": volume({"driver": "csi-image.warm-metal.tech", "volumeAttributes": {"image": "attacker/x"}}),
    "reference of a volume": volume({"driver": "a.example", "volumeAttributes": {"a.example/reference": "a.example/b/x"}}),
    "setting of Helm": argument("--set", "image=busybox"),
    "settings of Helm": argument("--set=x.image.repository=attacker/x,x.image.tag=1"),
    "Helm's part alone": config("image:\n  repository: attacker/x\n"),
    "Kustomize": config("images:\n- name: a\n  newName: attacker/x\n"),
    "images by name": config("images: {agent: attacker/x:1}\n"),
    "properties": config("a=b\nworker.image=busybox\n"),
    "TOML": config('image = "busybox"\n'),
    "INI": config("[a]\nimage = attacker/x\n"),
    "broken YAML": config("{{- if x }}\nworkerImage: attacker/x\n{{- end }}\n"),
    "Helm's parts in free form": free({"image": {"repository": "attacker/x", "tag": "1"}}),
    "Helm's part alone in free form": free({"image": {"repository": "attacker/x"}}),
    "base64": config(base64.b64encode(b"image: attacker/x\n" * 3).decode()),
    "base64 in lines": config(base64.encodebytes(b"image: attacker/x\n" * 9).decode()),
    "base64 of gzip": config(base64.b64encode(gzip.compress(b"image: attacker/x\n")).decode()),
    "a release of Helm": config(base64.b64encode(base64.b64encode(gzip.compress(b'{"image": "attacker/x"}'))).decode()),
    "base64 in an annotation": annotation("a.example/b", base64.b64encode(b'{"image": "attacker/x"}').decode()),
    "six texts in each other": config(nested(6)),
    "more texts in each other than are read": config(nested(40, "a: |\n  {}\n")),
}


@pytest.mark.parametrize("name", UNPINNED)
def test_what_stands_without_a_digest_is_refused(name: str) -> None:
    _, _, refused = judged(UNPINNED[name])
    assert len(refused) == 1
    assert refused[0].path


@pytest.mark.parametrize(
    "image",
    [
        "image: docker.io/attacker/x:1",
        "image: busybox",
        "image: !!str docker.io/attacker/x",
        "image: !other docker.io/attacker/x",
        "image: &a busybox",
        "image: >-\n  busybox",
        "image: |\n  busybox",
        '"im\\u0061ge": docker.io/attacker/x',
        '"im\\u0061ge": busybox',
        "? image\n: busybox",
        "!!binary aW1hZ2U=: busybox",
        "image: !!binary YnVzeWJveA==",
        "Image: docker.io/attacker/x",
        "x: &x {image: busybox}\ny: *x",
        "image: a.example/x@sha256:{}\nimage: busybox".replace("{}", "a" * 64),
        "sidecar:\n- {name: p, image: busybox}",
        "text: {{ .Values.x }}\nimage: busybox\n",
    ],
)
@pytest.mark.parametrize("place", [config, lambda text: argument(text + "\n"), lambda text: annotation("a.example/b", text)])
def test_however_a_text_writes_an_image_it_is_found(image: str, place: Callable[[str], dict[str, Any]]) -> None:
    _, _, refused = judged(place(image))
    assert any("busybox" in one.what or "attacker/x" in one.what for one in refused)


@pytest.mark.parametrize(
    "form", [bytes, gzip.compress, lambda data: data.decode().encode("utf-16")], ids=["plain", "gzip", "UTF-16"]
)
def test_binary_data_is_looked_into(form: Callable[[bytes], bytes]) -> None:
    body = config("x")
    body["binaryData"] = {"sidecar": base64.b64encode(form(b"image: busybox\n")).decode()}
    assert [one.path for one in judged(body)[2]] == ["binaryData.sidecar"]


def test_a_compressed_text_too_large_to_be_read_is_refused_and_what_is_no_text_holds_nothing() -> None:
    body = config("x")
    bomb = gzip.compress(b"\0" * (1 << 27))
    body["binaryData"] = {"bomb": base64.b64encode(bomb).decode(), "cut": base64.b64encode(bomb[:40]).decode(), "b": "/w=="}
    (refused,) = judged(body)[2]
    assert (refused.path, "more than 4 MiB" in refused.what) == ("binaryData.bomb", True)


@pytest.mark.parametrize(
    "source", [{"secretKeyRef": {"name": "s", "key": "k"}}, {"fieldRef": {"fieldPath": "metadata.annotations['a']"}}]
)
def test_an_image_that_a_variable_gets_when_it_runs_is_refused(source: dict[str, Any]) -> None:
    (refused,) = judged(pod(env=[{"name": "WORKER_IMAGE", "valueFrom": source}]))[2]
    assert (refused.path, refused.what) == (
        "spec.containers[0].env[0].valueFrom",
        "an image comes from here, and its value is known only when it runs",
    )
    assert judged(pod(env=[{"name": "NAME", "valueFrom": source}]))[2] == []


STRINGS = {"type": "array", "items": {"type": "string"}}
PARTS = {"type": "object", "properties": {"repository": {"type": "string"}, "digest": {"type": "string"}}}
FIELDS = {
    "imageName": {"type": "string"},
    "images": STRINGS,
    "sidecar": PARTS,
    "workerImage": PARTS,
    "note": {"type": "string"},
}
KIND = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "xs.a.example"},
    "spec": {
        "group": "a.example",
        "scope": "Namespaced",
        "names": {"kind": "X", "plural": "xs"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": FIELDS}}}
                },
            }
        ],
    },
}


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ({"imageName": "attacker/x"}, 1),
        ({"images": [PINNED, "busybox"]}, 1),
        ({"workerImage": {"repository": "attacker/x"}}, 1),
        ({"sidecar": {"repository": "quay.io/acme/x", "digest": "v1"}}, 1),
        ({"imageName": API, "images": [PINNED], "sidecar": {"repository": "https://git.example.com/x"}, "note": "a/b"}, 0),
        ({"sidecar": {"repository": "quay.io/acme/worker", "digest": PINNED.partition("@")[2]}}, 0),
    ],
)
def test_in_kinds_of_others_the_same_names_hold_images(spec: dict[str, Any], wrong: int) -> None:
    one = Manifest(
        "f", {"apiVersion": "a.example/v1", "kind": "X", "metadata": {"name": "x", "namespace": "n"}, "spec": spec}, {}
    )
    walk = schema.of_set("1.32", [Manifest("f", KIND, {}), one]).walk(one)
    assert walk.findings == []
    assert len(pin.pin([walk], ENV, {API: OLD})[2]) == wrong


def test_a_configmap_whose_keys_become_images_by_a_prefix_is_pinned() -> None:
    taken = {"prefix": "RELATED_IMAGE_", "configMapRef": {"name": "c"}}
    kinds = schema.schema("1.32")
    walks = [kinds.walk(Manifest("f", body, {})) for body in (pod(envFrom=[taken]), config("attacker/x", "worker"))]
    assert [one.path for one in pin.pin(walks, ENV, {API: OLD})[2]] == ["data.worker"]


def test_a_key_that_a_variable_takes_its_image_from_is_pinned() -> None:
    chosen = {"name": "RELATED_IMAGE_X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "worker"}}}
    kinds = schema.schema("1.32")
    for value, wrong in ((PINNED, 0), ("acme/worker:v3", 1)):
        walks = [kinds.walk(Manifest("f", body, {})) for body in (pod(env=[chosen]), config(value, "worker"))]
        _, pins, refused = pin.pin(walks, ENV, {API: OLD})
        assert (len(pins), len(refused)) == (2 - wrong, wrong)


WORDS = [
    argument("--limit-mm-per-prompt", '{"image": 4, "video": 0}'),
    argument('--limit-mm-per-prompt={"image": {"count": 4, "width": 512}}'),
    argument("--startup-taint=nvidia.com/gpu:NoSchedule", "--metrics=metrics.example.com/pushgateway:v1"),
    argument("--resource-name", "nvidia.com/gpu", "--taint", "a.example.com/b:NoExecute"),
    argument("--image-pull-policy=Always", "--image-size=224x224", "--max-images=4", "--image=./x.png", "--show-image=true"),
    argument("--image=https://a.example/x.png", "--image", "/data/x", "--disk-image=debian.qcow2"),
    argument("--url=http://llama-factory-api:8000/v1", "llama-factory-api:8000", "prometheus.obs:9090/api/v1/write"),
    variable("TAINTS", "nvidia.com/gpu:NoSchedule,node.kubernetes.io/unschedulable:NoSchedule"),
    variable("OTEL_SERVICE_NAME", API),
    variable("REGISTRY", "ghcr.io/acme"),
    argument("--mirror=docker.io/library", "--repo", "ghcr.io/acme/charts"),
    config("registries:\n- prefix: docker.io/library\n  mirror: quay.io/mirror\n"),
    variable("IMAGE_PULL_POLICY", "Always"),
    variable("IMAGE_SIZE", "224"),
    annotation("example.com/dashboard", API),
    annotation("grafana.example.com/board", "grafana.example.com/d/abc"),
    config(f"- job_name: {API}\n  static_configs: [{{targets: ['{API}.serve:8000']}}]\n"),
    config(f"echo {API}\n", "run.sh"),
    config('print({"image": image, "n": 4})\n', "x.py"),
    config("# see quay.io/acme/x:1\na: b\n"),
    config("tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}]\n"),
    config("repository: https://git.example.com/x\ntag: v1\n"),
    config(
        strict_yaml.dump(
            [{**pod(), "spec": {"containers": [], "volumes": [{"name": "v", "rbd": {"image": "d", "monitors": []}}]}}]
        )
    ),
    config("image: {count: 4, width: 512, name: front}\nimages: {folder: data/cats}\n"),
    config("- a\nThe images: see below. An image = what you see.\n"),
    config("image = load(path)\nimage=$(date)\nIMAGE=/data/x.png\n", "run.sh"),
    config(base64.b64encode(b"nothing to see here, move along").decode()),
    config("cG9ydHJhaXRzL2NhdA=="),
    variable("IMAGE_URL", "https://a.example/x.png"),
    config("- " * 30000),
    config("a-" * 200000),
    config("a.b/" + "a--" * 50000 + "A:1"),
]


@pytest.mark.parametrize("number", range(len(WORDS)))
def test_a_word_that_is_no_image_is_left_alone(number: int) -> None:
    done, _, refused = judged(WORDS[number])
    assert [one.text() for one in refused] == []
    assert all(one["image"] == OURS for one in done.body.get("spec", {}).get("containers", ()))


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        *((name, True) for name in ("image", "--image", "proxyImage", "X_IMAGES", "RELATED_IMAGE_A", "imageRef", "IMAGE_NAME")),
        *((name, False) for name in ("IMAGE_SIZE", "--image-pull-policy", "imagination", "IMAGES_DIR")),
    ],
)
def test_the_names_that_say_image(name: str, holds: bool) -> None:
    assert is_image_name(name) is holds


TREES = st.recursive(
    st.text(max_size=8) | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), TREES, min_size=1, max_size=3))
def test_no_scalar_of_a_json_text_is_missed(body: dict[str, Any]) -> None:
    def strings(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [text for item in value.values() for text in strings(item)]
        if isinstance(value, list):
            return [text for item in value for text in strings(item)]
        return [value] if isinstance(value, str) else []

    found = loose_yaml.scalars(strict_yaml.dump([body]))
    assert found is not None
    assert set(strings(body)) <= {one.value for one in found}


@given(st.text(max_size=60))
def test_any_text_is_read_without_a_crash(text: str) -> None:
    judged(config(text))
    judged(argument("run", text))
