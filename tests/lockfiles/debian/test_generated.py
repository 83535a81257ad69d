"""What packages make while they are installed stays in no base."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from common.errors import BuildError
from common.files import sha256_file
from lockfiles import inputs, lockfile
from lockfiles.debian import generated, resolver, rootfs
from lockfiles.model import BaseLock
from tests.lockfiles.conftest import artifact


def key(form: PrivateFormat = PrivateFormat.OpenSSH, encoding: Encoding = Encoding.PEM) -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(encoding, form, NoEncryption())


def base(folder: Path, files: dict[str, bytes]) -> Path:
    """A base's tar by hand."""
    tar = folder / "base.tar"
    with tarfile.open(tar, "w") as archive:
        for name, data in files.items():
            (folder / "file").write_bytes(data)
            archive.add(folder / "file", f"./{name}")
    return tar


INFO = "var/lib/dpkg/info/"


@pytest.mark.parametrize(
    ("path", "info", "package"),
    [
        ("etc/tool/host.key", {"tool.postinst": b"#!/bin/sh\nmake-key /etc/tool/host.key\n"}, "tool"),
        ("etc/tool/host.key", {"tool:amd64.postinst": b"cd /etc/tool; make-key host.key\n"}, "tool"),
        ("etc/tool/host.key", {"tool.postinst": b"tool-setup --folder /etc/tool\n"}, "tool"),
        ("etc/tool/host.key", {"tool.list": b"/.\n/etc\n/etc/tool\n", "other.list": b"/.\n/etc\n"}, "tool"),
        ("srv/host.key", {"other.list": b"/.\n/etc\n"}, "some package"),
    ],
)
def test_a_private_key_in_the_base_is_refused_and_the_package_named(
    path: str, info: dict[str, bytes], package: str, tmp_path: Path
) -> None:
    tar = base(tmp_path, {path: key(), **{INFO + name: text for name, text in info.items()}})
    with pytest.raises(BuildError, match=rf"^{package} makes a private key .* \(/{path} of the base\)"):
        generated.check(tar)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(key(PrivateFormat.PKCS8), id="PKCS8"),
        pytest.param(key(PrivateFormat.PKCS8, Encoding.DER), id="DER"),
        pytest.param(b"# made for this host\n" + key(), id="OpenSSH"),
    ],
)
def test_keys_of_every_form_are_found(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="a private key"):
        generated.check(base(tmp_path, {"etc/x": data}))


def test_a_key_that_a_deb_brings_is_no_secret_and_one_that_replaced_it_is(tmp_path: Path) -> None:
    example = key()
    sums = {f"{INFO}tool.md5sums": f"{hashlib.md5(example).hexdigest()}  usr/share/tool/example.key\n".encode()}
    generated.check(base(tmp_path, {"usr/share/tool/example.key": example, **sums}))
    with pytest.raises(BuildError, match="a private key"):
        generated.check(base(tmp_path, {"usr/share/tool/example.key": key(), **sums}))


def test_public_keys_certificates_and_words_pass(tmp_path: Path) -> None:
    generated.check(base(tmp_path, {"etc/a": b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA", "etc/b": b"-----BEGIN PRIVATE KEY-----"}))


def test_the_shipped_base_needs_nothing_taken_out_and_keeps_its_key() -> None:
    lock = lockfile.read_base()
    assert rootfs._own_hooks(lock) == ()
    more = BaseLock("", "", (*lock.debs, lock.debs[0].__class__("dbus", "1", "amd64", artifact("dbus_1_amd64.deb"))))
    assert rootfs._own_hooks(more) == ('rm -f "$1"/var/lib/dbus/machine-id',)


@pytest.mark.host
def test_a_base_with_a_ssh_server_holds_no_host_key_and_is_the_same_twice(tmp_path: Path) -> None:
    wanted = inputs.BaseInput(
        (*inputs.read_base().packages, "openssh-server", "ssl-cert", "dbus"), inputs.read_base().without, ""
    )
    debs, _ = resolver.resolve(wanted, lockfile.read_base().debs)
    resolver.fetch(debs)
    made = [rootfs.made(BaseLock("", "2026-01-02", debs), tmp_path / number) for number in ("1", "2")]
    names = {str(path.relative_to(made[0].tree)) for path in (made[0].tree / "etc").rglob("*")}
    assert "etc/ssh/sshd_config" in names
    assert not {name for name in names if "ssh_host" in name or "snakeoil" in name}
    assert not (made[0].tree / "var/lib/dbus/machine-id").exists()
    assert sha256_file(made[0].tar) == sha256_file(made[1].tar)
