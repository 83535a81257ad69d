"""The web UI in the train image that was built: started as its manifest says, held as the cluster would hold it, and used."""

from __future__ import annotations

import json
import re
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from docker.models.containers import Container

from images import receipt as built
from k8s.rules_pod import quantity
from smoke import engine
from smoke.session import Session
from tests.k8s.conftest import REPO

# After the line, which builds the image.
pytestmark = pytest.mark.engine

POD: Any = next(yaml.safe_load_all((REPO / "manifests/webui/webui.yaml").read_text()))["spec"]["template"]["spec"]
(MANIFEST,) = POD["containers"]
# What a browser sends when somebody fills in the form and presses "Save arguments". Gradio knows the fields by number alone;
# which is which is told by their order, that of LLaMA-Factory's source, and by what they hold.
SAVE = """
import json, urllib.request
BASE = "http://127.0.0.1:7860"
config = json.load(urllib.request.urlopen(f"{BASE}/config"))
prefix = config["api_prefix"]
(button,) = [one for one in config["dependencies"] if one["api_name"] == "save_args"]
props = {one["id"]: one["props"] for one in config["components"]}
fields = [props[number] for number in button["inputs"]]
data = [field.get("value") for field in fields]
own = [n for n, field in enumerate(fields) if field.get("allow_custom_value") and not field.get("choices")]
where = next(n for n, field in enumerate(fields) if field.get("value") == "data") + 1
output, path = [n for n in own if not fields[n].get("multiselect")][-2:]
assert fields[where]["multiselect"], fields[where]
data[:3], data[where], data[output], data[path] = ["en", "Custom", "/models/base"], ["mine"], "run-1", "mine.yaml"
body = json.dumps({"data": data}).encode()
request = urllib.request.Request(f"{BASE}{prefix}/call/save_args", body, {"Content-Type": "application/json"})
event = json.load(urllib.request.urlopen(request))["event_id"]
print(urllib.request.urlopen(f"{BASE}{prefix}/call/save_args/{event}").read().decode())
"""


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


def test_what_is_saved_in_the_form_lies_in_configs(container: Container) -> None:
    code, said = ran(container, "python", "-c", textwrap.dedent(SAVE))
    assert code == 0, said
    assert "event: complete" in said
    code, text = ran(container, "cat", "/workspace/configs/mine.yaml")
    assert code == 0, said
    saved = yaml.safe_load(text)
    assert (saved["top.model_name"], saved["train.dataset"]) == ("Custom", ["mine"])
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
