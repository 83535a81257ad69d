"""An engine that does not answer: which was asked, why it is silent, and what helps; no second one is started beside it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from common import engine_address, host
from common.errors import MissingEnvironmentError, UsageError


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)


def said(monkeypatch: pytest.MonkeyPatch, address: str) -> str:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(MissingEnvironmentError) as caught:
        host.engine()
    line = caught.value.line()
    assert address in line
    assert "engine --install" not in line
    return line


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:99999", "tcp://127.0.0.1:port", "docker", "tcp://127.0.0.1:0"])
def test_what_is_no_address_names_its_variable(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", text)
    with pytest.raises(UsageError, match="DOCKER_HOST is not the address of a Docker Engine"):
        host.engine()


def test_ssh_is_told_the_way_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "open a tunnel" in said(monkeypatch, "ssh://ada@127.0.0.1")


def test_missing_certificates_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    assert f"{tmp_path}/ca.pem is missing" in said(monkeypatch, "tcp://127.0.0.1:2376")


def test_an_engine_elsewhere_that_is_not_there_is_not_to_be_installed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "connection refused" in said(monkeypatch, "tcp://127.0.0.1:1")


@pytest.mark.parametrize(
    ("group", "fix"), [("docker", "sudo usermod -aG docker $USER"), ("root", "run it as its owner, or ask who runs the engine")]
)
def test_a_socket_that_may_not_be_opened_says_whose_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: str, fix: str
) -> None:
    """The commonest of all: not in the group `docker`. Root may open everything, so the answer of the system is put."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "e.sock"))
        monkeypatch.setattr("common.engine_address.os.access", lambda *_: False)
        monkeypatch.setattr(Path, "group", lambda _: group)
        line = said(monkeypatch, f"unix://{tmp_path}/e.sock")
    assert f"permission denied: the Docker Engine's socket belongs to root:{group}" in line
    assert fix in line
    assert "usermod -aG root" not in line


def test_the_current_context_is_asked_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from docker.context import ContextAPI

    class Away:
        Name, Host = "away", "http+unix:///nonexistent/away.sock"

    monkeypatch.setattr(ContextAPI, "get_current_context", classmethod(lambda _: Away))
    assert engine_address.address() == "unix:///nonexistent/away.sock"


@pytest.mark.parametrize(("state", "may"), [("missing", True), ("dead", True), ("alive", False)])
def test_an_engine_is_started_only_where_nobody_listens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str, may: bool
) -> None:
    file = tmp_path / "e.sock"
    monkeypatch.setattr(engine_address, "LOCAL", f"unix://{file}")
    with socket.socket(socket.AF_UNIX) as listening:
        if state != "missing":
            listening.bind(str(file))
        if state == "alive":
            listening.listen()
        assert engine_address.installable(f"unix://{file}") is may
    assert not engine_address.installable(f"unix://{tmp_path}/other.sock")


def test_no_second_engine_is_started_beside_one_that_is_asked_for_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setattr(host, "_start_engine", lambda: pytest.fail("a second engine"))
    monkeypatch.setattr(host, "installed", lambda _: "1")
    with pytest.raises(MissingEnvironmentError, match="connection refused"):
        host.install()


# --- Podman, which speaks Docker's API too (podman-container-tools/podman#16721, testcontainers-python#1027) ---

PODMAN = {"Version": "5.4.2", "ApiVersion": "1.41", "Components": [{"Name": "Podman Engine", "Version": "5.4.2"}]}
DOCKER = {"Version": "26.1.5", "Components": [{"Name": "Engine"}, {"Name": "containerd"}, {"Name": "runc"}]}


@pytest.mark.parametrize(
    ("version", "podman"),
    [(PODMAN, True), (DOCKER, False), ({}, False), ({"Components": None}, False), ({"Components": [{}]}, False)],
)
def test_podman_is_known_by_what_it_answers(version: dict[str, Any], podman: bool) -> None:
    assert engine_address.is_podman("unix:///var/run/docker.sock", version) is podman


def test_podman_is_called_podman_and_what_is_needed_is_said() -> None:
    line = engine_address.podman("unix:///run/podman/podman.sock", PODMAN).line()
    assert line.startswith(
        "Podman 5.4.2 answers, and Pinwheel needs a Docker Engine 26 or newer with the containerd image store"
    )
    assert "unix:///run/podman/podman.sock" in line
    assert "too old" not in line
    assert "engine --install" not in line


@pytest.mark.parametrize("path", ["podman.sock", "run/podman/podman.sock"])
def test_podmans_socket_without_podman_is_called_podmans(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str) -> None:
    assert "Podman does not answer" in said(monkeypatch, f"unix://{tmp_path}/{path}")


def test_a_link_to_podmans_socket_is_podmans_and_no_engine_is_started_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As Debian's podman-docker makes it, whether Podman runs or not."""
    file = tmp_path / "docker.sock"
    file.symlink_to(tmp_path / "podman" / "podman.sock")
    monkeypatch.setattr(engine_address, "LOCAL", f"unix://{file}")
    assert not engine_address.installable(f"unix://{file}")
    assert "Podman does not answer" in said(monkeypatch, f"unix://{file}")


# --- where images are kept ---


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of the engine, and one of the system's containerd."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "containerd").mkdir()
    monkeypatch.setattr(engine_address, "_CONTAINERD_ROOT", tmp_path / "containerd")
    monkeypatch.setattr(engine_address, "_CONTAINERD_TOML", tmp_path / "config.toml")
    return tmp_path


SYSTEM = {"Containerd": {"Address": "/run/containerd/containerd.sock"}}
OWN = {"Containerd": {"Address": "/var/run/docker/containerd/containerd.sock"}}


@pytest.mark.parametrize(
    ("more", "own", "config", "kept"),
    [
        (SYSTEM, False, "", "containerd"),
        (SYSTEM, True, "", "containerd"),
        (SYSTEM, False, 'root = "/data/containerd"', "/data/containerd"),
        (SYSTEM, False, "root = [", "containerd"),
        (SYSTEM, False, "version = 2", "containerd"),
        (OWN, True, 'root = "/data/containerd"', "docker/containerd/daemon"),
        ({}, True, "", "docker/containerd/daemon"),
        ({}, False, "", "containerd"),
    ],
)
def test_the_disk_of_images_is_that_of_the_containerd_that_keeps_them(
    root: Path, more: dict[str, Any], own: bool, config: str, kept: str
) -> None:
    if own:
        (root / "docker/containerd/daemon").mkdir(parents=True)
    if config:
        (root / "config.toml").write_text(config)
    assert engine_address.image_store({"DockerRootDir": str(root / "docker"), **more}) == root / kept


def test_an_engine_on_another_machine_keeps_nothing_here(root: Path) -> None:
    assert engine_address.image_store({"DockerRootDir": "/nowhere/docker", **SYSTEM}) == Path("/nowhere/docker")
