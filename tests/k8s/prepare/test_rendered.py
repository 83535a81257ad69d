from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.errors import LockError, PolicyError, UsageError
from k8s import deploy
from k8s.objects.manifests import Manifest
from k8s.prepare import directory
from k8s.prepare.rendered import RenderedSet
from k8s.rollouts import receipt
from lockfiles import images_lock
from tests.k8s.conftest import API, CPU, NEW, OLD, Checkout
from tests.k8s.prepare import models

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _inference(checkout: Checkout) -> None:
    checkout.keep("inference")
    models.named(checkout.root, "rendered")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def target(checkout: Checkout) -> Path:
    return checkout.root / "dist" / "rendered"


def beside(checkout: Checkout) -> list[str]:
    return sorted(entry.name for entry in target(checkout).parent.iterdir() if entry.name != "deploy")


def test_renders_every_object_pinned_and_says_for_what(checkout: Checkout) -> None:
    result = deploy.deploy("rendered")
    files = tree(target(checkout))
    names = {file.name for file in (checkout.manifests / "inference").iterdir()} | {"configmap-registry.yaml"}
    assert sorted(files) == sorted(f"inference/{name}" for name in names)
    text = files["inference/deployment.yaml"].decode()
    assert text.startswith("# Rendered by Pinwheel for environment rendered.")
    server = next(yaml.safe_load_all(text))
    assert server["spec"]["template"]["spec"]["containers"][0]["image"] == f"127.0.0.1:5000/{API}-cpu@{CPU}"
    assert (result.result, len(result.changed)) == ("rendered", len(files))
    assert len(result.objects) == len(checkout.check()[0].objects)
    assert beside(checkout) == ["rendered"]


def test_renders_the_same_bytes_every_time_from_any_place(checkout: Checkout, tmp_path: Path) -> None:
    deploy.deploy("rendered")
    first, said = tree(target(checkout)), receipt.path("rendered").read_bytes()
    file = checkout.root / "k8s" / "envs" / "rendered.yaml"
    file.write_text(file.read_text().replace("path: rendered", f"path: {tmp_path}/else/where"))
    deploy.deploy("rendered")
    assert tree(tmp_path / "else" / "where") == first
    assert json.loads(said)["images"] == json.loads(receipt.path("rendered").read_text())["images"]


def test_a_second_deploy_changes_nothing_and_says_so(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    deploy.deploy("rendered")
    stamp = target(checkout).stat().st_ino
    result = deploy.deploy("rendered")
    assert result.changed == ()
    assert target(checkout).stat().st_ino == stamp
    assert "unchanged" in capsys.readouterr().out


def test_a_new_digest_is_shown_as_old_to_new(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    deploy.deploy("rendered")
    checkout.lock({f"{API}-cpu": NEW})
    result = deploy.deploy("rendered")
    assert result.changed == (("inference/deployment.yaml", "changed"),)
    assert {(image.before[-10:], image.reference[-10:]) for image in result.images} == {(CPU[-10:], NEW[-10:])}
    assert "cccccccccccc → bbbbbbbbbbbb" in capsys.readouterr().out


def test_stale_files_vanish(checkout: Checkout) -> None:
    deploy.deploy("rendered")
    (checkout.manifests / "inference" / "hpa.yaml").unlink()
    result = deploy.deploy("rendered")
    assert ("inference/hpa.yaml", "removed") in result.changed
    assert "inference/hpa.yaml" not in tree(target(checkout))


def test_a_dry_run_writes_nothing(checkout: Checkout) -> None:
    result = deploy.deploy("rendered", dry_run=True)
    assert (result.result, {what for _, what in result.changed}) == ("planned", {"created"})
    assert not (checkout.root / "dist").exists()


def test_a_refused_set_writes_nothing(checkout: Checkout) -> None:
    deploy.deploy("rendered")
    before = tree(checkout.root / "dist")
    checkout.edit("deployment.yaml", f"image: {API}", "image: nginx:latest")
    with pytest.raises(PolicyError):
        deploy.deploy("rendered")
    assert tree(checkout.root / "dist") == before


def test_nothing_is_rendered_before_anything_was_pushed(checkout: Checkout) -> None:
    images_lock.path().unlink()
    with pytest.raises(LockError, match="invoke push"):
        deploy.deploy("rendered")


@pytest.mark.parametrize("failing", ["write_bytes", "rename", "mkdir"])
def test_a_failure_on_the_way_leaves_the_old_set(checkout: Checkout, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    deploy.deploy("rendered")
    before = tree(target(checkout))
    checkout.lock({f"{API}-cpu": NEW})
    true = getattr(Path, failing)
    calls = []

    def fails(self: Path, *args: Any, **kwargs: Any) -> Any:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return true(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, failing, fails)
        with pytest.raises(UsageError, match="No space left on device"):
            deploy.deploy("rendered")
    assert tree(target(checkout)) == before
    assert beside(checkout) == ["rendered"]
    deploy.deploy("rendered")
    assert tree(target(checkout)) != before


def test_a_swap_that_was_killed_between_its_renames_is_mended(checkout: Checkout) -> None:
    deploy.deploy("rendered")
    before = tree(target(checkout))
    target(checkout).rename(target(checkout).with_name(".rendered.old"))
    deploy.deploy("rendered")
    assert tree(target(checkout)) == before
    assert beside(checkout) == ["rendered"]


@pytest.mark.parametrize("what", ["file", "foreign file", "link", "link instead"])
def test_what_we_did_not_render_is_never_destroyed(checkout: Checkout, what: str) -> None:
    place = target(checkout)
    other = checkout.root / "precious"
    other.mkdir()
    if what == "file":
        place.parent.mkdir(parents=True)
        place.write_text("mine")
    elif what == "foreign file":
        deploy.deploy("rendered")
        (place / "notes.txt").write_text("mine")
    elif what == "link":
        deploy.deploy("rendered")
        (place / "inference" / "link.yaml").symlink_to(place / "inference" / "hpa.yaml")
    else:
        place.parent.mkdir(parents=True)
        (other / "notes.txt").write_text("mine")
        place.symlink_to(other)
    before = tree(checkout.root)
    with pytest.raises(UsageError, match="did not render"):
        deploy.deploy("rendered")
    assert tree(checkout.root) == before


def test_a_changed_config_map_changes_the_pod_template(checkout: Checkout) -> None:
    def hashed() -> Any:
        rendered, _ = checkout.check()
        found = [one.body["spec"]["template"] for one in rendered.objects if one.kind == "Deployment"]
        # What tries it beforehand has a copy of it.
        assert len(found) == 2
        return [one["metadata"]["annotations"]["pinwheel/config-sha256"] for one in found]

    first = hashed()
    checkout.edit("configmap.yaml", "vllm_maxlen: 8192", "vllm_maxlen: 4096")
    second = hashed()
    checkout.edit("configmap.yaml", "name: llama-factory-inference\n    app", "name: renamed\n    app")
    assert not set(first) & set(second)
    assert second == hashed()  # Labels are no configuration.


def test_what_a_pod_needs_comes_before_it_in_the_stream(checkout: Checkout) -> None:
    rendered, _ = checkout.check()
    kinds = [body["kind"] for body in yaml.safe_load_all(rendered.text())]
    assert kinds[0] == "Namespace"
    assert len(kinds) == len(rendered.objects)
    first = kinds.index("Deployment")
    needed = {"ConfigMap", "NetworkPolicy", "ResourceQuota", "Service", "ServiceAccount"}
    assert needed <= set(kinds[:first])
    assert not needed & set(kinds[first:])


def test_the_stream_of_the_same_objects_is_the_same_in_whatever_order_they_come() -> None:
    kinds = ["Namespace", "Secret", "PersistentVolumeClaim", "Widget", "Deployment", "Job"]
    bodies = {kind: {"apiVersion": "v1", "kind": kind, "metadata": {"name": "one"}} for kind in kinds}
    texts = set()
    for given in itertools.permutations(kinds):
        rendered = RenderedSet(tuple(Manifest("a.yaml", bodies[kind], {}) for kind in given), (), ())
        texts.add(rendered.text())
    (text,) = texts
    assert [body["kind"] for body in yaml.safe_load_all(text)] == kinds


def test_the_receipt_holds_what_another_stage_needs(checkout: Checkout) -> None:
    deploy.deploy("rendered")
    said = json.loads(receipt.path("rendered").read_text())
    assert said["format"] == 1
    assert said["images"] == [
        {
            "object": f"Deployment llm-inference/{name}",
            "path": f"spec.template.spec.{place}.image",
            "reference": f"127.0.0.1:5000/{API}-cpu@{CPU}",
            "written": API,
            "before": "",
        }
        for name in ("llama-factory-inference", "llama-factory-inference-preflight")
        for place in ("containers[0]", "initContainers[0]")
    ]
    assert said["release"] is None
    assert OLD not in json.dumps(said)


def test_changes_are_named_and_sorted() -> None:
    assert directory.changes({"a": 1, "b": 1, "c": 1}, {"b": 2, "c": 1, "d": 1}) == [
        ("a", "removed"),
        ("b", "changed"),
        ("d", "created"),
    ]
