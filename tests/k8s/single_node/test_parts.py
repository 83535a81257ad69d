"""Settings, certificates, images, locks and addresses of the cluster: all that needs no cluster."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import ssl
import tarfile
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from common import paths
from common.errors import LockError, MissingEnvironmentError, UsageError
from common.single_node import API_SERVICE, HOST_ADDRESS, NODE_ADDRESS
from k8s.single_node import addons, certificates, network, parts, programs, scratch
from k8s.single_node.cluster import Settings
from k8s.single_node.places import NETWORK, PODS, SERVICES, Home
from k8s.single_node.programs import Programs
from k8s.single_node.scratch import ScratchImage


def test_settings_grow_and_stay() -> None:
    settings = Settings().changed("metrics", "2")
    assert settings == Settings(("metrics",), 2)
    assert settings.changed("policies, metrics", "") == Settings(("metrics", "policies"), 2)
    assert settings.changed("", "0") == Settings(("metrics",), 0)


@pytest.mark.parametrize(
    ("extras", "gpus", "message"), [("mesh", "", "mesh"), ("", "-1", "-1"), ("", "two", "two"), ("", "٣", "٣")]
)
def test_a_setting_that_there_is_not_is_refused(extras: str, gpus: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Settings().changed(extras, gpus)


def test_settings_are_read_back_and_rubbish_is_the_default(tmp_path: Path) -> None:
    home = Home(tmp_path)
    Settings(("policies",), 3).write(home)
    assert Settings.read(home) == Settings(("policies",), 3)
    home.settings.write_text('{"extras": 7}')
    assert Settings.read(home) == Settings()


def test_the_networks_do_not_overlap() -> None:
    nets = (HOST_ADDRESS.network, PODS, SERVICES)
    assert all(net.subnet_of(NETWORK) for net in nets)
    assert not any(one.overlaps(other) for one in nets for other in nets if one is not other)
    assert HOST_ADDRESS.network == NODE_ADDRESS.network


@pytest.mark.parametrize(
    ("route", "refused"),
    [("10.233.7.0/24", True), ("10.0.0.0/8", True), ("10.232.0.0/16", False), ("default", False), ("10.233.0.9", True)],
)
def test_an_address_in_use_is_refused(monkeypatch: pytest.MonkeyPatch, route: str, refused: bool) -> None:
    answers = {"address": [{"ifname": "eth0", "addr_info": [{"local": "192.0.2.1"}, {"local": "fe80::1"}]}]}
    monkeypatch.setattr(network, "_ip", lambda *argv: answers.get(argv[0], [{"dev": "eth7", "dst": route}]))
    if refused:
        with pytest.raises(MissingEnvironmentError, match=f"in use .{re.escape(route)} of eth7"):
            network.check()
    else:
        network.check()


def test_certificates_hold_and_are_made_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert certificates.make(home)
    first = (home.certificates / "ca.crt").read_bytes()
    assert not certificates.make(home)
    names = {
        "apiserver": ("ca", str(API_SERVICE)),
        "kubelet": ("ca", str(NODE_ADDRESS.ip)),
        "registry": ("registry-ca", str(HOST_ADDRESS.ip)),
    }
    for name, (authority, address) in names.items():
        own = x509.load_pem_x509_certificate((home.certificates / f"{name}.crt").read_bytes())
        issuer = x509.load_pem_x509_certificate((home.certificates / f"{authority}.crt").read_bytes())
        own.verify_directly_issued_by(issuer)
        alternative = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert address in map(str, alternative.get_values_for_type(x509.IPAddress))
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            home.certificates / f"{name}.crt", home.certificates / f"{name}.key"
        )
    for secret in [*home.certificates.glob("*.key"), *home.certificates.glob("*.kubeconfig"), home.kubeconfig]:
        assert secret.stat().st_mode & 0o077 == 0
    context = json.loads(home.kubeconfig.read_text())
    assert context["clusters"][0]["cluster"]["server"] == f"https://{NODE_ADDRESS.ip}:6443"
    (home.certificates / "kubelet.crt").unlink()
    accounts = (home.certificates / "service-accounts.key").read_bytes()
    assert certificates.make(home)
    assert (home.certificates / "ca.crt").read_bytes() != first
    assert (home.certificates / "service-accounts.key").read_bytes() == accounts


def test_certificates_that_expire_soon_are_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    monkeypatch.setattr(certificates, "_DAYS", 20)
    assert certificates.make(home)
    monkeypatch.setattr(certificates, "_DAYS", 365)
    assert certificates.make(home)
    own = x509.load_pem_x509_certificate((home.certificates / "admin.crt").read_bytes())
    assert own.not_valid_after_utc > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=300)


def test_an_image_of_one_program_is_the_same_each_time(tmp_path: Path) -> None:
    program = tmp_path / "true"
    shutil.copy("/bin/true", program)
    image = ScratchImage("localhost/pinwheel/true:1", program, 7, (("etc/mime.types", "a b\n"),))
    for name in ("one.tar", "two.tar"):
        scratch.write(tmp_path / name, [image])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        index_file = tar.extractfile("index.json")
        assert index_file
        entry = json.load(index_file)["manifests"][0]
        members = tar.getnames()
    assert entry["annotations"] == {"io.containerd.image.name": "localhost/pinwheel/true:1"}
    assert f"blobs/sha256/{entry['digest'].removeprefix('sha256:')}" in members


def test_the_programs_are_those_of_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(programs.source(), tmp_path / "locks")
    assert programs._hash(tmp_path / "locks") == programs._hash(programs.source())
    (tmp_path / "locks" / "etcd" / "go.sum").write_text("other")
    assert programs._hash(tmp_path / "locks") != programs._hash(programs.source())
    monkeypatch.setattr(paths, "LOCKFILES", tmp_path)
    (tmp_path / "locks").rename(tmp_path / "single-node")
    (tmp_path / "single-node" / "go.toml").write_text("file = 'x'\n")
    with pytest.raises(LockError, match="not a lock of the Go toolchain: 'size'"):
        toolchain.artifact()


def test_a_disk_too_full_to_build_is_said_first(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_ROOM", 1 << 60)
    with pytest.raises(MissingEnvironmentError, match="of disk are free .*building needs .* or set PINWHEEL_CACHE"):
        programs.check_disk()


def test_every_module_says_what_it_needs_by_hash() -> None:
    for module in programs._modules():
        folder = programs.source() / module.name
        required = re.findall(r"^\s+(\S+) (v\S+)(?: // indirect)?$", (folder / "go.mod").read_text(), re.MULTILINE)
        replaced = dict(re.findall(r"^\s+(\S+) => \S+ (v\S+)$", (folder / "go.mod").read_text(), re.MULTILINE))
        sums = set((folder / "go.sum").read_text().splitlines())
        hashed = {tuple(line.split()[:2]) for line in sums}
        missing = [name for name, version in required if (name, f"{replaced.get(name, version)}/go.mod") not in hashed]
        assert not missing


def test_manifests_are_whole_once_filled_in(tmp_path: Path) -> None:
    cluster = addons.Cluster(Home(tmp_path), Programs(tmp_path / ("a" * 64)))
    for file in addons._MANIFESTS.glob("*.yaml"):
        text = cluster._filled(file.read_text())
        assert "${" not in text
        assert all(document["kind"] for document in yaml.safe_load_all(text))


def test_extras_are_parts_and_everything_lies_in_the_home(tmp_path: Path) -> None:
    home, made = Home(tmp_path / "home"), Programs(tmp_path / "programs")
    plain = parts.prepare(home, made, [])
    names = [part["name"] for part in plain["parts"]]
    assert names[:2] == ["etcd", "containerd"]
    more = parts.prepare(home, made, ["policies"])
    assert [part["name"] for part in more["parts"]] == [*names, "kube-router"]
    assert "nonsense" not in json.dumps(more)
    for file in (home.config).rglob("*.json"):
        assert json.loads(file.read_text())["kind"]
