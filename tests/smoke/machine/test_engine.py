"""What is asked of the engine before and while an image is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import docker
import pytest

from common import host
from common.errors import ExitCode, MissingEnvironmentError, SmokeError
from smoke import ladder
from smoke.machine import engine
from smoke.machine.engine import Engine
from smoke.machine.gpus import Device
from tests.smoke import layouts
from tests.smoke.simulator import SimulatedEngine

SHARED, OWN = layouts.layer({"shared": b"s"}), layouts.layer({"own": b"o"})
SECOND = Device("1", "GPU-2", "NVIDIA L4", "580.65.06", (8, 9), 23034 << 20, None)
INSTANCE = Device("0:1", "MIG-b", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "580.65.06", (8, 0), 20 << 30, None)


def fit(simulated: SimulatedEngine) -> Engine:
    return Engine(cast("docker.DockerClient", simulated), "26.1.5", None)


@pytest.mark.parametrize("info", [{}, {"Runtimes": {"runc": {}}}, {"DiscoveredDevices": [{"ID": "vendor.com/gpu=0"}]}])
def test_no_gpu_runtime(info: dict[str, Any]) -> None:
    with pytest.raises(
        MissingEnvironmentError, match="no GPU runtime .*nvidia-container-toolkit, or .*without --gpu"
    ) as caught:
        engine.gpu_request(info)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_nvidia_runtime_is_asked_for_one_gpu() -> None:
    request = engine.gpu_request({"Runtimes": {"nvidia": {}, "runc": {}}})
    # The engine hands out the first for `Count: 1` as well; by name it is the one that was found fit.
    assert request == {"Driver": "", "Count": 0, "DeviceIDs": ["0"], "Capabilities": [["gpu"]], "Options": {}}


@pytest.mark.parametrize(
    ("ids", "device", "chosen"),
    [
        (["nvidia.com/gpu=all", "nvidia.com/gpu=1", "nvidia.com/gpu=0"], None, "nvidia.com/gpu=0"),
        (["nvidia.com/gpu=all", "nvidia.com/gpu=1", "nvidia.com/gpu=0"], SECOND, "nvidia.com/gpu=1"),
        (["nvidia.com/gpu=all", "nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2"], SECOND, "nvidia.com/gpu=GPU-2"),
        (["nvidia.com/gpu=all", "nvidia.com/gpu=gpu0", "nvidia.com/gpu=gpu1"], SECOND, "nvidia.com/gpu=gpu1"),
        (["nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2"], None, "nvidia.com/gpu=GPU-1"),
        (["nvidia.com/gpu=MIG-a", "nvidia.com/gpu=MIG-b", "nvidia.com/gpu=all"], INSTANCE, "nvidia.com/gpu=MIG-b"),
        (["nvidia.com/gpu=0:0", "nvidia.com/gpu=0:1", "nvidia.com/gpu=all"], INSTANCE, "nvidia.com/gpu=0:1"),
        (["nvidia.com/gpu=mig0:0", "nvidia.com/gpu=mig0:1"], INSTANCE, "nvidia.com/gpu=mig0:1"),
    ],
)
def test_cdi_device_is_named(ids: list[str], device: Device | None, chosen: str) -> None:
    request = engine.gpu_request(cdi(*ids), device)
    assert (request["Driver"], request["DeviceIDs"]) == ("cdi", [chosen])


@pytest.mark.parametrize(
    ("ids", "chosen"),
    [
        (["nvidia.com/gpu=all"], "nvidia.com/gpu=all"),
        (["nvidia.com/gpu=all", "nvidia.com/gpu=that"], "nvidia.com/gpu=that"),
    ],
)
def test_the_only_cdi_device_of_a_machine_with_one_gpu_needs_no_name(ids: list[str], chosen: str) -> None:
    assert engine.gpu_request(cdi(*ids), SECOND, only=True)["DeviceIDs"] == [chosen]


@pytest.mark.parametrize(
    ("ids", "only"),
    [
        (["nvidia.com/gpu=MIG-a", "nvidia.com/gpu=MIG-c", "nvidia.com/gpu=all"], False),
        (["nvidia.com/gpu=MIG-a", "nvidia.com/gpu=MIG-c", "nvidia.com/gpu=all"], True),
        (["nvidia.com/gpu=all"], False),
        (["nvidia.com/gpu=0"], False),
    ],
    ids=["others", "more than the driver knows", "all", "its whole GPU"],
)
def test_another_cdi_device_than_was_checked_is_never_handed_out(ids: list[str], only: bool) -> None:
    with pytest.raises(MissingEnvironmentError) as caught:
        engine.gpu_request(cdi(*ids), INSTANCE, only=only)
    assert caught.value.line() == (
        "none of the engine's CDI devices is GPU 0:1, NVIDIA A100-SXM4-40GB MIG 3g.20gb, MIG-b "
        f"(`docker info` has {', '.join(ids)}): "
        "write their specification anew with `nvidia-ctk cdi generate`, or run `invoke smoke` without --gpu"
    )


def test_all_gpus_are_asked_for_by_the_runtime_or_by_the_cdi_device_of_that_name() -> None:
    request = engine.every_gpu({"Runtimes": {"nvidia": {}, "runc": {}}})
    assert request == {"Driver": "", "Count": -1, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}
    request = engine.every_gpu(cdi("nvidia.com/gpu=0", "nvidia.com/gpu=all"))
    assert request is not None
    assert (request["Driver"], request["DeviceIDs"]) == ("cdi", ["nvidia.com/gpu=all"])
    assert engine.every_gpu(cdi("nvidia.com/gpu=0", "nvidia.com/gpu=1")) is None
    assert engine.every_gpu({}) is None


def cdi(*ids: str) -> dict[str, Any]:
    return {"DiscoveredDevices": [{"Source": "cdi", "ID": name} for name in ids]}


def test_gpu_is_missed_before_anything_is_read_or_removed(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "engine", lambda: SimulatedEngine(Runtimes={"runc": {}}))
    earlier = own_folders / "dist/smoke/receipt.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("an earlier run's")
    with pytest.raises(MissingEnvironmentError, match="--gpu was asked for"):
        ladder.run_smoke(gpu=True)
    assert earlier.read_text() == "an earlier run's"


def test_load_then_skip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulated = SimulatedEngine()
    image = layouts.add(tmp_path, "train", [SHARED, OWN])
    engine.load(fit(simulated), image, tmp_path)
    assert simulated.images.get("pinwheel.local/test-train:1").id == image.digest
    engine.load(fit(simulated), image, tmp_path)
    assert len(simulated.images.received) == 1
    assert f"the engine has {image.digest}" in capsys.readouterr().out


def test_shared_layers_are_not_sent_again(tmp_path: Path) -> None:
    simulated = SimulatedEngine()
    first, second = layouts.add(tmp_path, "train", [SHARED]), layouts.add(tmp_path, "api", [SHARED, OWN])
    engine.load(fit(simulated), first, tmp_path)
    engine.load(fit(simulated), second, tmp_path, present=(first,))
    assert simulated.images.received[1] == {second.digest, second.config_digest, second.layers[1].digest}
    assert engine.holds(cast("docker.DockerClient", simulated), second)


def test_layer_that_the_engine_let_go_is_sent_after_all(tmp_path: Path) -> None:
    simulated = SimulatedEngine()
    first, second = layouts.add(tmp_path, "train", [SHARED]), layouts.add(tmp_path, "api", [SHARED, OWN])
    engine.load(fit(simulated), second, tmp_path, present=(first,))
    assert [len(blobs) for blobs in simulated.images.received] == [3, 4]
    assert engine.holds(cast("docker.DockerClient", simulated), second)


def test_engine_refuses(tmp_path: Path) -> None:
    image = layouts.add(tmp_path, "train", [OWN])
    broken = image.__class__(**{**{name: getattr(image, name) for name in image.__slots__}, "layers": ()})
    with pytest.raises(SmokeError, match="the engine refuses the image .*not found"):
        engine.load(fit(SimulatedEngine()), broken, tmp_path)


def test_engine_reports_another_digest(tmp_path: Path) -> None:
    simulated = SimulatedEngine()
    simulated.images.wrong_digest = True
    with pytest.raises(SmokeError, match="the engine's digest is not that of the build receipt"):
        engine.load(fit(simulated), layouts.add(tmp_path, "train", [OWN]), tmp_path)


def test_disk_fills_up_while_loading(tmp_path: Path) -> None:
    simulated = SimulatedEngine()
    simulated.images.full = True
    with pytest.raises(MissingEnvironmentError, match="disk is full .*no space left"):
        engine.load(fit(simulated), layouts.add(tmp_path, "train", [OWN]), tmp_path)


def test_disk_too_small_is_seen_before_sending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated = SimulatedEngine(DockerRootDir=str(tmp_path))
    image = layouts.add(tmp_path, "train", [OWN])
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": image.size})())
    with pytest.raises(MissingEnvironmentError, match=r"needs 20\.5 kB of disk in the engine, 10\.2 kB are free"):
        engine.load(fit(simulated), image, tmp_path)
    assert not simulated.images.received
