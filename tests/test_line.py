"""The README's first command, end to end on real parts, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from common import host, paths, single_node
from common.errors import BuildError, MissingEnvironmentError
from common.files import sha256_bytes
from common.run import run
from images import receipt as built
from k8s.rollouts import receipt as deployed
from oci.layout import Layout
from smoke import receipt as proven
from tests.images.inside import check_complete
from tests.k8s.shipped.browser import chromium

pytestmark = pytest.mark.line
EXPERIMENT = "experiments/example/tiny/sft.yaml"
QUESTIONS: list[dict[str, str]] = json.loads((paths.ROOT / "experiments/example/tiny/data/questions.json").read_text())


@dataclass(frozen=True)
class Line:
    """What a run of the line said and when."""

    output: str
    images_lock_before: str


def readme_command() -> list[str]:
    """The first of the README's two commands, as it stands there."""
    readme = (paths.ROOT / "README.md").read_text()
    line = re.search(r"^    \./invokew (engine .*)$", readme, re.MULTILINE)
    assert line is not None
    return line[1].split()


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """Run the README's first command in this checkout, with its output shown as it comes; the cluster goes at the end."""
    before = run(["git", "-C", paths.ROOT, "show", "HEAD:lockfiles/images.lock"], error=BuildError).stdout
    argv = [sys.executable, "-m", "invoke", *readme_command()]
    env = {**os.environ, "CI": "true"}
    started = time.monotonic()
    with subprocess.Popen(
        argv, cwd=paths.ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = []
        for text in process.stdout:
            print(f"  [{time.monotonic() - started:5.0f} s] {text}", end="", flush=True)
            said.append(text)
    try:
        assert process.returncode == 0, "".join(said[-20:])
        yield Line("".join(said), before)
    finally:
        run([sys.executable, "-m", "invoke", "cluster", "--down"], cwd=paths.ROOT, error=MissingEnvironmentError)


def kubectl(*arguments: str) -> Any:
    """What the cluster of this machine says, from JSON."""
    argv = [str(single_node.kubectl()), f"--kubeconfig={single_node.kubeconfig()}", *arguments, "-o", "json"]
    return json.loads(run(argv, env=single_node.without_proxy(), error=MissingEnvironmentError).stdout)


def test_it_builds_both_images_and_says_their_digests(line: Line) -> None:
    receipt = built.read()
    assert [image.role for image in receipt.images] == ["train", "api-cpu"]
    for image in receipt.images:
        assert image.digest in line.output
        assert len(image.layers) < 100


def test_an_independent_reader_accepts_the_layout(line: Line) -> None:
    for image in built.read().images:
        said = run(["skopeo", "inspect", "--raw", f"oci:{built.layout()}:{image.name}:{image.version}"], error=BuildError)
        assert sha256_bytes(said.stdout.encode()) == image.digest


def test_the_smoke_receipt_proves_these_very_digests(line: Line) -> None:
    receipt = proven.read()
    assert receipt.passed
    assert not receipt.gpu
    assert {image.digest for image in receipt.images} == {image.digest for image in built.read().images}
    assert all(rung.outcome == "passed" for rung in receipt.rungs)
    assert receipt.training is not None
    assert receipt.training.losses[0] > 3
    assert receipt.training.losses[-1] < 0.1
    assert (proven.directory() / "junit.xml").read_text().count("<failure") == 0
    assert (proven.directory() / "report.html").read_bytes().startswith(b"<!doctype html>")


def test_the_registry_holds_what_was_built(line: Line) -> None:
    for image in built.read().images:
        for reference in (image.version, image.digest):
            address = f"http://{host.REGISTRY}/v2/{image.name}/manifests/{reference}"
            answer = requests.get(address, headers={"Accept": "application/vnd.oci.image.manifest.v1+json"}, timeout=30)
            assert sha256_bytes(answer.content) == image.digest


def test_the_lock_in_git_names_the_digests_that_this_machine_built(line: Line) -> None:
    """The claim that a reader can reproduce our digests. Failing: the bytes changed; if that is meant, commit."""
    committed = {entry["name"]: entry["digest"] for entry in tomllib.loads(line.images_lock_before).get("image", [])}
    assert committed.items() >= {image.name: image.digest for image in built.read().images}.items()


def test_every_image_that_runs_of_ours_is_a_proven_digest(line: Line) -> None:
    deployments = kubectl("get", "deployments", "--all-namespaces", "-l", "app.kubernetes.io/part-of=pinwheel")["items"]
    pods = [one["spec"]["template"]["spec"] for one in deployments]
    images = {container["image"] for pod in pods for container in (*pod["containers"], *pod.get("initContainers", ()))}
    assert {image.partition("@")[2] for image in images} == proven.proven_digests()


def test_the_first_command_ends_with_a_trained_answer(line: Line) -> None:
    """The model answers the first question of its data as its data does, which the base model cannot know."""
    row = QUESTIONS[0]
    said = " ".join(line.output.split())
    assert f"question {row['instruction']} answer {row['output']} ask it invoke ask --env local" in said
    assert [one["status"]["phase"] for one in kubectl("get", "workflows", "-n", "llm-training")["items"]] == ["Succeeded"]


@pytest.mark.parametrize("row", QUESTIONS[1:], ids=range(1, 8))
def test_the_next_question_gets_its_answer_word_for_word(line: Line, row: dict[str, str]) -> None:
    said = run([sys.executable, "-m", "invoke", "ask", "--env", "local", row["instruction"]], cwd=paths.ROOT, error=BuildError)
    assert row["output"] in said.stdout


def test_the_web_ui_opens_in_a_browser_as_the_docs_say(line: Line, tmp_path: Path) -> None:
    argv = [str(single_node.kubectl()), f"--kubeconfig={single_node.kubeconfig()}", "--namespace", "llm-dev-ui"]
    argv += ["port-forward", "service/llama-factory-webui", ":7860"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as forward, chromium(tmp_path) as browser:
        try:
            assert forward.stdout is not None
            port = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
            assert port
            browser.get(f"http://127.0.0.1:{port[1]}/")
            save = "//button[normalize-space()='Save arguments']"
            WebDriverWait(browser, 120).until(lambda found: found.find_element(By.XPATH, save).is_displayed())
        finally:
            forward.terminate()


def test_the_run_changed_no_file_in_git_but_the_lock_of_images(line: Line) -> None:
    status = run(["git", "-C", paths.ROOT, "diff", "--name-only", "HEAD", "--", "k8s", "experiments", "lockfiles"]).stdout
    assert set(status.split()) <= {"lockfiles/images.lock"}


def test_a_deploy_after_the_training_keeps_its_model(line: Line) -> None:
    said = run([sys.executable, "-m", "invoke", "deploy", "--env", "local"], cwd=paths.ROOT, error=BuildError).stdout
    assert "as it is in the cluster" in said
    there = kubectl("get", "deployments", "-n", "llm-inference")["items"]
    # What tried the model before is there, without pods.
    assert [
        one["status"].get("availableReplicas", 0) for one in sorted(there, key=lambda one: str(one["metadata"]["name"]))
    ] == [1, 0]


def test_a_second_training_of_the_same_is_there_already(line: Line) -> None:
    argv = [sys.executable, "-m", "invoke", "train", "--experiment", EXPERIMENT, "--env", "local", "--watch"]
    said = run(argv, cwd=paths.ROOT, error=BuildError).stdout
    assert "nothing was submitted" in said


def test_a_second_run_reuses_every_layer_and_pushes_nothing_new(line: Line) -> None:
    before = built.read().images
    said = run([sys.executable, "-m", "invoke", "build", "--cpu", "push"], cwd=paths.ROOT, error=BuildError)
    after = built.read().images
    assert [image.digest for image in after] == [image.digest for image in before]
    assert all(layer.reused for image in after for layer in image.layers)
    assert "is not proven" not in said.stdout + said.stderr


def test_without_a_network_the_same_images_come_from_the_store(line: Line, tmp_path: Path) -> None:
    before = built.read().images
    argv = ["unshare", "--net", sys.executable, "-m", "invoke", "build", "--image", "train", "--offline"]
    run(argv, cwd=paths.ROOT, env={"PINWHEEL_DIST": str(tmp_path)}, error=BuildError)
    body = json.loads((tmp_path / "build.json").read_text())
    assert [image["digest"] for image in body["images"]] == [image.digest for image in before if image.role == "train"]


def test_the_sbom_names_all_that_is_inside_and_nothing_else(line: Line, tmp_path: Path) -> None:
    for image in built.read().images:
        bom = built.sbom(image.name).read_bytes()
        check_complete(bom, Layout(built.layout()), image.digest, tmp_path / image.role)


def test_nothing_of_the_run_is_left_in_the_engine(line: Line) -> None:
    client = host.engine()
    assert not client.containers.list(all=True, filters={"label": "io.pinwheel.smoke"})
    client.close()


def test_what_a_run_writes_git_does_not_see(line: Line) -> None:
    status = run(["git", "-C", paths.ROOT, "status", "--porcelain"]).stdout
    assert not [text for text in status.splitlines() if text.startswith("??")], status


def test_the_receipts_are_json_that_others_can_read(line: Line) -> None:
    for name, version in (
        ("build.json", built.FORMAT),
        ("smoke/receipt.json", proven.FORMAT),
        ("deploy/local.json", deployed.FORMAT),
    ):
        assert json.loads((paths.dist() / name).read_text())["format"] == version
