"""The base model and the data set on the work volume: the locked bytes, whatever hub, registry and line do."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import ExitCode, PinwheelError
from common.files import sha256_bytes
from k8s.pipeline import artifact, download
from k8s.training import artifact as artifacts
from k8s.training.dataset import DataFile, Dataset
from oci.descriptor import MANIFEST
from tests.k8s.pipeline.conftest import Run, base_files, log_in, program, push
from tests.lockfiles import hub_server
from tests.lockfiles.hub_server import HubServer
from tests.oci.double import Double, answers
from tests.waiting import LIMIT_S, eventually

SECRET = "hf_secretsecret"
ROWS = {"dataset_info.json": b'{"rows": {"file_name": "rows.json"}}', "rows.json": b"[]"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server.serving() as state:
        monkeypatch.setenv("HF_ENDPOINT", state.endpoint)
        yield state


@pytest.fixture
def ready(tmp_path: Path, hub: HubServer, double: Double) -> Run:
    """A run whose base model is on the hub and whose data set is in the registry."""
    commit = hub.push("team/tiny", base_files())
    model = push(double, "datasets/team-tiny", ROWS)
    return Run(tmp_path, double.address, commit=commit, dataset=model.rpartition("@")[2]).write()


def fetch(run: Run) -> None:
    assert download.main(["--config", str(run.config)]) == 0


def held(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_base_model_and_data_set_come_as_they_are_locked(ready: Run, hub: HubServer, double: Double) -> None:
    fetch(ready)
    assert held(ready.path("base")) == base_files()
    assert held(ready.path("dataset")) == ROWS
    hub.asked.clear()
    double.asked.clear()
    fetch(ready)
    assert not hub.asked
    # Of the registry, the list of the files alone.
    assert not double.count("GET", "/blobs/")


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(
    ready: Run, hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.secret = SECRET
    monkeypatch.setenv("HF_TOKEN", SECRET)
    fetch(ready)
    assert {one.token for one in hub.asked if one.server == "hub"} == {f"Bearer {SECRET}"}
    assert {one.token for one in hub.asked if one.server == "cdn"} == {""}
    assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.parametrize("secret", ["", "hf_anotherone"])
def test_a_token_that_is_missing_or_wrong_is_told_and_not_shown(
    ready: Run, hub: HubServer, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    hub.secret = SECRET
    monkeypatch.setenv("HF_TOKEN", secret)
    with pytest.raises(PinwheelError, match="see HF_TOKEN") as problem:
        fetch(ready)
    assert problem.value.exit_code == ExitCode.ENVIRONMENT
    assert not secret or secret not in str(problem.value)


def test_a_gated_model_says_what_to_do(ready: Run, hub: HubServer) -> None:
    hub.gated = True
    with pytest.raises(PinwheelError, match="is gated.*accept its terms"):
        fetch(ready)


def test_a_revision_that_is_gone_says_what_to_do(ready: Run, hub: HubServer) -> None:
    hub.faults.collected.add(ready.commit)
    with pytest.raises(PinwheelError, match="lock the model anew") as problem:
        fetch(ready)
    assert problem.value.exit_code == ExitCode.LOCK


@pytest.mark.parametrize(
    ("address", "says"), [("ftp://x", "no web address"), ("hub.example", "no web address"), ("http://hub.example", "no TLS")]
)
def test_an_endpoint_that_would_give_the_token_away_is_refused(
    ready: Run, monkeypatch: pytest.MonkeyPatch, address: str, says: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with pytest.raises(PinwheelError, match=says) as problem:
        fetch(ready)
    assert problem.value.exit_code == ExitCode.USAGE
    assert SECRET not in str(problem.value)


def test_wrong_bytes_of_the_hub_are_refused(ready: Run, hub: HubServer) -> None:
    weights = base_files()["model.safetensors"]
    hub.faults.altered["model.safetensors"] = weights[:-1] + b"?"
    with pytest.raises(PinwheelError, match=r"model.safetensors: the bytes are not those of sha256") as problem:
        fetch(ready)
    assert problem.value.exit_code == ExitCode.LOCK
    assert not ready.path("base/model.safetensors").exists()
    assert not ready.path("base/model.safetensors.part").exists()


# --- the base model from the registry ---

PLACE = "models/base/tiny"
MADE = "c" * 64


def put(double: Double, *paths: str) -> None:
    """Base files that `invoke model --push` brought into the registry; default: all."""
    for path in paths or base_files():
        data = base_files()[path]
        double.blobs[PLACE][sha256_bytes(data)] = data


def from_hub(hub: HubServer) -> set[str]:
    return {one.path.partition(f"/{hub.branches['team/tiny', 'main']}/")[2] for one in hub.asked if "/resolve/" in one.path}


def test_a_base_model_that_the_registry_has_comes_from_there_alone(ready: Run, hub: HubServer, double: Double) -> None:
    put(double)
    hub.asked.clear()
    fetch(ready)
    assert held(ready.path("base")) == base_files()
    assert not hub.asked


def test_what_the_registry_lacks_of_a_base_model_comes_from_the_hub(ready: Run, hub: HubServer, double: Double) -> None:
    put(double, "model.safetensors", "config.json")
    hub.asked.clear()
    fetch(ready)
    assert held(ready.path("base")) == base_files()
    assert from_hub(hub) == {".gitattributes", "README.md"}


@pytest.mark.parametrize("forbids", [True, False], ids=["no token", "a token for less"])
def test_a_registry_that_refuses_what_it_lacks_is_no_failure(ready: Run, double: Double, quick: Path, *, forbids: bool) -> None:
    double.auth, double.forbids, double.readable = "bearer", forbids, {"datasets/.*"}
    log_in(quick, double.address)
    fetch(ready)
    assert held(ready.path("base")) == base_files()


def test_a_registry_that_fails_is_not_taken_for_one_that_lacks(ready: Run, double: Double) -> None:
    double.fail("HEAD", PLACE, answers(500), times=999)
    with pytest.raises(PinwheelError) as problem:
        fetch(ready)
    assert problem.value.exit_code == ExitCode.REGISTRY


def test_other_bytes_of_the_registry_are_refused(ready: Run, double: Double) -> None:
    put(double)
    weights = base_files()["model.safetensors"]
    double.blobs[PLACE][sha256_bytes(weights)] = weights[:-1] + b"?"
    with pytest.raises(PinwheelError, match=r"model.safetensors: the bytes are not those of sha256") as problem:
        fetch(ready)
    assert problem.value.exit_code == ExitCode.LOCK
    assert not ready.path("base/model.safetensors").exists()


@pytest.fixture
def on_no_hub(ready: Run, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose base model lay in a folder, in a place that has no hub."""
    ready.repo, ready.commit = "", MADE
    hub.asked.clear()
    monkeypatch.setenv("HF_ENDPOINT", "none")
    return ready.write()


def test_a_base_model_that_is_on_no_hub_comes_from_the_registry(on_no_hub: Run, double: Double) -> None:
    put(double)
    fetch(on_no_hub)
    assert held(on_no_hub.path("base")) == base_files()


def test_a_base_model_that_is_nowhere_is_one_line_with_the_command(on_no_hub: Run, hub: HubServer, double: Double) -> None:
    with pytest.raises(PinwheelError, match="the base model tiny is on no hub, and the registry does not give") as problem:
        fetch(on_no_hub)
    assert problem.value.exit_code == ExitCode.REGISTRY
    assert problem.value.line().endswith(f"({double.address}/{PLACE}): push it: `invoke model --name tiny --push --env NAME`")
    assert not hub.asked


def test_a_registry_that_refuses_a_base_model_on_no_hub_says_so(on_no_hub: Run, double: Double, quick: Path) -> None:
    double.auth, double.forbids, double.readable = "bearer", True, {"datasets/.*"}
    log_in(quick, double.address)
    with pytest.raises(PinwheelError, match=r"the registry refuses: .*403.*push it: `invoke model --name tiny --push"):
        fetch(on_no_hub)


@pytest.mark.parametrize(
    "change",
    [{"revision": "c" * 40}, {"repo": "team/tiny"}, {"repo": None}, {"name": "../x"}, {"name": "a b"}, {"revision": 3}],
    ids=repr,
)
def test_a_base_model_that_makes_no_sense_is_refused(on_no_hub: Run, change: dict[str, object]) -> None:
    file = on_no_hub.config / "base-model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(PinwheelError, match="is not what `invoke train` writes"):
        fetch(on_no_hub)


@pytest.mark.parametrize("place", ["models/base/tiny", "", "x.example/a:tag", 3, None], ids=repr)
def test_a_base_repository_that_makes_no_sense_is_refused(ready: Run, place: object) -> None:
    file = ready.config / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base-repository": place}))
    with pytest.raises(PinwheelError, match="is not what `invoke train` writes"):
        fetch(ready)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_line_that_is_cut_and_a_busy_hub_only_take_longer(ready: Run, hub: HubServer, name: str) -> None:
    hub.faults.busy += [(503, ""), (429, "0"), (500, "")]
    hub.faults.cut[name] = [1, 0, 1]
    fetch(ready)
    assert held(ready.path("base")) == base_files()


def test_a_hub_that_stays_down_is_given_up(ready: Run, hub: HubServer) -> None:
    hub.faults.busy += [(503, "")] * 99
    with pytest.raises(PinwheelError, match="failed 6 times in a row:") as problem:
        fetch(ready)
    assert problem.value.exit_code == ExitCode.ENVIRONMENT


def test_a_file_that_was_altered_on_the_volume_is_fetched_anew(ready: Run) -> None:
    fetch(ready)
    ready.path("base/config.json").write_bytes(b"[]")
    ready.path("dataset/rows.json").write_bytes(b"{}")
    fetch(ready)
    assert held(ready.path("base")) == base_files()
    assert held(ready.path("dataset")) == ROWS


@pytest.mark.parametrize("name", ["base/modeling_tiny.py", "base/pytorch_model.bin", "base/x.safetensors", "dataset/rows.py"])
def test_what_is_not_locked_is_refused_where_a_loader_looks(ready: Run, hub: HubServer, name: str) -> None:
    ready.put(name, b"x")
    with pytest.raises(PinwheelError, match="which is not in the lock: remove it") as problem:
        fetch(ready)
    assert problem.value.exit_code == ExitCode.POLICY


def test_a_link_on_the_volume_is_refused(ready: Run, tmp_path: Path) -> None:
    ready.path("base").mkdir(parents=True)
    ready.path("base/config.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PinwheelError, match=r"config.json, which is not in the lock"):
        fetch(ready)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("path", ["../x.json", "/x.json", "a/../../x.json", "", "a//b", ".", "x.part"])
def test_a_lock_that_leads_out_of_the_folder_is_refused(tmp_path: Path, double: Double, path: str) -> None:
    run = Run(tmp_path, double.address, base={"README.md": b"", path: b"x"}).write()
    with pytest.raises(PinwheelError, match="is not what `invoke train` writes"):
        download.main(["--config", str(run.config)])


@pytest.mark.parametrize(
    "files", [{"rows.py": b"x"}, {"../rows.json": b"x"}, {"rows.pkl": b"x"}, {}], ids=["code", "out", "pickle", "none"]
)
def test_a_data_set_that_is_none_is_refused(ready: Run, double: Double, files: dict[str, bytes]) -> None:
    ready.dataset = push(double, "datasets/team-tiny", files).rpartition("@")[2]
    ready.write()
    with pytest.raises(PinwheelError) as problem:
        fetch(ready)
    assert problem.value.exit_code == ExitCode.POLICY


def test_a_data_set_comes_as_invoke_train_pushes_it(ready: Run, double: Double) -> None:
    files = tuple(DataFile(path, len(data), sha256_bytes(data), data=data) for path, data in sorted(ROWS.items()))
    made = artifacts.of_dataset(Dataset(files), "team-tiny", double.address)
    for one in made.files:
        double.blobs["datasets/team-tiny"][one.digest] = one.data
    double.manifests["datasets/team-tiny"][made.reference.digest] = (MANIFEST, made.manifest)
    ready.dataset = made.reference.digest
    ready.write()
    fetch(ready)
    assert held(ready.path("dataset")) == ROWS


def test_a_model_is_no_data_set(ready: Run, double: Double) -> None:
    ready.dataset = push(double, "datasets/team-tiny", {"config.json": b"{}"}, artifact.WEIGHT_CONFIG).rpartition("@")[2]
    ready.write()
    with pytest.raises(PinwheelError, match="something else than a data set"):
        fetch(ready)


def test_no_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(PinwheelError, match=r"run.json is not what `invoke train` writes: FileNotFoundError"):
        download.main(["--config", str(tmp_path)])


# --- as a process ---


@pytest.mark.slow
def test_a_process_that_is_killed_is_gone_on_from(tmp_path: Path, hub: HubServer, double: Double) -> None:
    big = hub_server.tensors_file(**{"w": [float(n) for n in range(400_000)]})
    files = {**base_files(), "model.safetensors": big}
    commit = hub.push("team/tiny", files)
    data = push(double, "datasets/team-tiny", ROWS).rpartition("@")[2]
    run = Run(tmp_path, double.address, base=files, commit=commit, dataset=data).write()
    part = run.path("base/model.safetensors.part")
    # The line breaks after a megabyte, and the process is killed while it waits to go on.
    hub.faults.cut["model.safetensors"] = [1 << 20]
    env = {"HF_ENDPOINT": hub.endpoint}
    with program("download", "--config", str(run.config), env=env) as first:
        eventually(lambda: part.exists() and part.stat().st_size >= 1 << 20, "the first megabyte")
        first.send_signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
    hub.asked.clear()
    done = program("download", "--config", str(run.config), env=env)
    said, _ = done.communicate(timeout=LIMIT_S)
    assert done.returncode == 0, said
    assert [one.range for one in hub.asked_for(sha256_bytes(big)[7:], "cdn")] == [f"bytes={1 << 20}-"]
    assert held(run.path("base")) == files


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_what_came(ready: Run, hub: HubServer) -> None:
    def small() -> None:
        # As a full disk: the kernel refuses the write.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = program("download", "--config", str(ready.config), env={"HF_ENDPOINT": hub.endpoint}, preexec_fn=small)
    said, _ = done.communicate(timeout=LIMIT_S)
    assert done.returncode == ExitCode.ENVIRONMENT, said
    assert "no space left: make the volume larger" in said
    assert "Traceback" not in said
    assert not ready.path("base/model.safetensors").exists()


@pytest.mark.slow
def test_a_process_ends_when_it_is_told(ready: Run, hub: HubServer) -> None:
    hub.faults.busy += [(503, "60")] * 99
    with program("download", "--config", str(ready.config), env={"HF_ENDPOINT": hub.endpoint}) as one:
        assert one.stdout is not None
        while "again in 60 s" not in one.stdout.readline():
            assert one.poll() is None
        os.kill(one.pid, signal.SIGTERM)
        assert one.wait(timeout=50) == ExitCode.TERMINATED
