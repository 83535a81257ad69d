"""The web UI in the train image that was built: started and held as its manifest says, used in Chromium."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.models.containers import Container
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from images import receipt as built
from k8s.objects.quantity import quantity
from smoke.boxes.session import Session
from smoke.machine import engine
from tests.k8s.conftest import REPO
from tests.k8s.shipped.browser import chromium, forwarded

# After the line, which builds the image.
pytestmark = pytest.mark.engine

POD: Any = next(yaml.safe_load_all((REPO / "manifests/webui/webui.yaml").read_text()))["spec"]["template"]["spec"]
(MANIFEST,) = POD["containers"]


def ran(container: Container, *command: str) -> tuple[int, str]:
    said = container.exec_run(list(command))
    assert isinstance(said.output, bytes)
    return said.exit_code or 0, said.output.decode()


def ready(container: Container) -> float:
    """Wait as the kubelet would; the seconds it took."""
    probe, begun = MANIFEST["startupProbe"], time.monotonic()
    while ran(container, *MANIFEST["readinessProbe"]["exec"]["command"])[0]:
        container.reload()
        assert container.status == "running", container.logs().decode()[-4000:]
        assert time.monotonic() - begun < probe["periodSeconds"] * probe["failureThreshold"], container.logs().decode()[-4000:]
        time.sleep(1)
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    found = engine.connect(gpu=False)
    (image,) = [one for one in built.read().images if one.name == MANIFEST["image"]]
    engine.load(found, image, built.layout())
    security, pod = MANIFEST["securityContext"], POD["securityContext"]
    mounts = {mount["name"]: mount["mountPath"] for mount in MANIFEST["volumeMounts"]}
    sizes = {volume["name"]: quantity(volume.get("emptyDir", {}).get("sizeLimit")) for volume in POD["volumes"]}
    with Session(found.client) as session:
        found.client.volumes.create(session.volume, labels=session.labels)
        made = found.client.containers.run(
            image.digest,
            [*MANIFEST["command"], *MANIFEST["args"]],
            detach=True,
            labels=session.labels,
            environment={one["name"]: one["value"] for one in MANIFEST["env"] if "value" in one},
            working_dir=MANIFEST["workingDir"],
            user=f"{pod['runAsUser']}:{pod['runAsGroup']}",
            read_only=security["readOnlyRootFilesystem"],
            cap_drop=security["capabilities"]["drop"],
            security_opt=["no-new-privileges"],
            network_mode="none",
            volumes={session.volume: {"bind": mounts["workspace"], "mode": "rw"}},
            tmpfs={mounts["tmp"]: "rw,nosuid,nodev,size=2g,mode=1777"},
            shm_size=int(sizes["shm"] or 0),
        )
        ready(made)
        yield made
        made.remove(force=True)


def test_it_listens_on_loopback_alone(container: Container) -> None:
    _, said = ran(container, "cat", "/proc/net/tcp", "/proc/net/tcp6")
    listening = re.findall(r"^ *\d+: ([0-9A-F]+):([0-9A-F]{4}) \S+ 0A ", said, re.MULTILINE)
    assert [(address, int(port, 16)) for address, port in listening] == [("0100007F", MANIFEST["ports"][0]["containerPort"])]


def field(browser: Chrome, label: str) -> WebElement:
    """The part of the form that one types in."""
    named = f"//span[@data-testid='block-info'][normalize-space()='{label}']/ancestor::div[contains(@class, 'block')][1]"
    found = browser.find_elements(By.XPATH, f"{named}//*[self::input or self::textarea]")
    return next(one for one in found if one.is_displayed())


def fill(browser: Chrome, label: str, text: str) -> None:
    typed = field(browser, label)
    typed.click()
    typed.send_keys(Keys.CONTROL, "a")
    typed.send_keys(text, Keys.ENTER if typed.tag_name == "input" else Keys.TAB)


def button(browser: Chrome, name: str) -> WebElement:
    return browser.find_element(By.XPATH, f"//button[normalize-space()='{name}']")


def test_what_is_saved_in_a_browser_lies_in_configs(container: Container, tmp_path: Path) -> None:
    container.reload()
    inside = MANIFEST["ports"][0]["containerPort"]
    with forwarded(container.attrs["State"]["Pid"], inside) as port, chromium(tmp_path) as browser:
        patience = WebDriverWait(browser, 60, ignored_exceptions=[StopIteration])
        browser.get(f"http://127.0.0.1:{port}/")
        patience.until(lambda found: button(found, "Save arguments"))
        fill(browser, "Model name", "Custom")
        # Choosing a model empties its path: a moment later, by an answer of the server.
        patience.until(lambda found: field(found, "Model name").get_attribute("value") == "Custom")
        fill(browser, "Model path", "/models/base")
        fill(browser, "Dataset", "mine")
        fill(browser, "Learning rate", "3e-4")
        fill(browser, "Output dir", "run-1")
        fill(browser, "Config path", "mine.yaml")
        button(browser, "Save arguments").click()
        patience.until(lambda _: ran(container, "test", "-s", "/workspace/configs/mine.yaml")[0] == 0)
        said = patience.until(lambda found: found.find_element(By.XPATH, "//*[contains(text(), 'mine.yaml')]")).text
        assert "mine.yaml" in said
    code, text = ran(container, "cat", "/workspace/configs/mine.yaml")
    assert code == 0, text
    saved = yaml.safe_load(text)
    assert (saved["top.model_name"], saved["train.dataset"]) == ("Custom", ["mine"])
    assert (saved["train.learning_rate"], saved["train.dataset_dir"]) == ("3e-4", "data")
    assert json.loads(saved["train.extra_args"])


def test_the_workspace_is_laid_out_as_people_look_for_it(container: Container) -> None:
    _, said = ran(container, "find", "/workspace", "-maxdepth", "1", "-printf", "%f %y %l\n")
    held = {tuple(line.split()) for line in said.splitlines()}
    assert {("configs", "d"), ("logs", "d"), ("outputs", "d")} <= held
    assert {("llamaboard_config", "l", "configs"), ("saves", "l", "outputs")} <= held
    code, text = ran(container, "sh", "-c", "cat /workspace/logs/webui-*.log")
    assert code == 0
    assert "7860" in text
    assert text in container.logs(stdout=True, stderr=False).decode()


def test_it_starts_again_on_the_same_workspace_and_ends_when_it_is_told_to(container: Container) -> None:
    for _ in range(2):
        begun = time.monotonic()
        container.stop(timeout=POD["terminationGracePeriodSeconds"])
        assert time.monotonic() - begun < POD["terminationGracePeriodSeconds"] / 2
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 143
        container.start()
        ready(container)
    assert ran(container, "cat", "/workspace/configs/mine.yaml")[0] == 0
