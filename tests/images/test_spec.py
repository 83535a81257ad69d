"""What image.toml and shared.toml may say: a wrong value is refused with file and key."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from common import paths
from common.errors import BuildError, UsageError
from images import config, recipe, spec
from images.config import Accounts
from images.tarball import LayerWriter


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped specs, in a folder of the test's own."""
    folder = tmp_path / "images"
    for name in ("shared.toml", "train/image.toml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(paths.IMAGES / name, folder / name)
    monkeypatch.setattr(paths, "IMAGES", folder)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return folder


def change(file: Path, key: str, line: str) -> None:
    """Replace the line of a key, or put one in front."""
    lines = file.read_text().splitlines()
    kept = [text for text in lines if not text.startswith(f"{key} =")]
    file.write_text("\n".join([line, *kept]) + "\n")


@pytest.mark.parametrize(
    ("file", "key", "line"),
    [
        ("train/image.toml", "name", 'name = "Acme/Probe:1"'),
        ("train/image.toml", "name", 'name = "registry.example.com/probe"'),
        ("train/image.toml", "name", 'name = "probe:1"'),
        ("train/image.toml", "name", 'name = "a@sha256:0"'),
        ("train/image.toml", "set", 'set = "../train"'),
        ("train/image.toml", "set", "set = 1"),
        ("train/image.toml", "about", 'about = "Llama_Factory"'),
        ("train/image.toml", "title", 'title = "a\\nb"'),
        ("train/image.toml", "title", 'title = ""'),
        ("train/image.toml", "description", 'description = "\\u0007"'),
        ("train/image.toml", "licenses", 'licenses = "free, as in beer"'),
        ("train/image.toml", "budget", 'budget = "3 apples"'),
        ("train/image.toml", "cmd", 'cmd = ["python", 1]'),
        ("train/image.toml", "cmd", 'cmd = "python"'),
        ("train/image.toml", "cmd", "cmd = []"),
        ("train/image.toml", "cmd", 'cmd = [""]'),
        ("train/image.toml", "cmd", 'cmd = ["a\\u0000"]'),
        ("train/image.toml", "entrypoint", 'entrypoint = "sh -c"'),
        ("train/image.toml", "entrypoint", 'entrypoint = [""]'),
        ("train/image.toml", "ports", 'ports = ["8000/udp"]'),
        ("train/image.toml", "ports", "ports = [0]"),
        ("train/image.toml", "ports", "ports = [65536]"),
        ("train/image.toml", "ports", "ports = [true]"),
        ("train/image.toml", "ports", "ports = [80, 80]"),
        ("train/image.toml", "env.DEBUG", "env.DEBUG = true"),
        ("train/image.toml", "env.LIST", 'env.LIST = ["a"]'),
        ("train/image.toml", "env", 'env."BAD NAME=1" = "x"'),
        ("train/image.toml", "env", 'env."1A" = "x"'),
        ("train/image.toml", "env.A", 'env.A = "x\\u0000"'),
        ("train/image.toml", "labels", 'labels."Bad Label" = "x"'),
        ("train/image.toml", "labels.a", "labels.a = 1"),
        ("train/image.toml", "labels.a", 'labels.a = "x\\ny"'),
        ("train/image.toml", "labels.org.opencontainers.image.title", 'labels."org.opencontainers.image.title" = "x"'),
        ("train/image.toml", "colour", 'colour = "red"'),
        ("train/image.toml", "conflicts[0].path", 'conflicts = [{path = "/a", keep = "a", drop = "b", reason = "x"}]'),
        ("train/image.toml", "conflicts[0].path", 'conflicts = [{path = "a/../b", keep = "a", drop = "b", reason = "x"}]'),
        ("train/image.toml", "conflicts[0].drop", 'conflicts = [{path = "a", keep = "a", drop = "a", reason = "x"}]'),
        ("train/image.toml", "conflicts[0].reason", 'conflicts = [{path = "a", keep = "a", drop = "b", reason = ""}]'),
        ("train/image.toml", "certificates", 'certificates = ["none.crt"]'),
        ("train/image.toml", "certificates", 'certificates = ["../up.crt"]'),
        ("train/image.toml", "certificates", 'certificates = ["images/shared.toml"]'),
        ("shared.toml", "user", 'user = "a:b c"'),
        ("shared.toml", "user", 'user = "Root"'),
        ("shared.toml", "user", 'user = "x\\nroot"'),
        ("shared.toml", "uid", "uid = 0"),
        ("shared.toml", "uid", "uid = 999"),
        ("shared.toml", "uid", "uid = 4294967295"),
        ("shared.toml", "uid", 'uid = "10001"'),
        ("shared.toml", "workdir", 'workdir = "work"'),
        ("shared.toml", "workdir", 'workdir = "/"'),
        ("shared.toml", "workdir", 'workdir = "/etc"'),
        ("shared.toml", "workdir", 'workdir = "/usr/work"'),
        ("shared.toml", "workdir", 'workdir = "/opt/venv/../../etc"'),
        ("shared.toml", "workdir", 'workdir = "/opt/venv/work"'),
        ("shared.toml", "workdir", 'workdir = "/opt"'),
        ("shared.toml", "workdir", 'workdir = "/work space"'),
        ("shared.toml", "workdir", 'workdir = "/work:space"'),
        ("shared.toml", "source", 'source = "pinwheel"'),
        ("shared.toml", "vendor", 'vendor = ""'),
        ("shared.toml", "leave_out[0].paths", 'leave_out = [{package = "a", paths = [], reason = "x"}]'),
    ],
)
def test_a_wrong_value_is_refused_with_file_and_key(file: str, key: str, line: str, images: Path) -> None:
    top = key.partition(".")[0].partition("[")[0]
    if top in ("env", "leave_out"):
        text = (images / file).read_text()
        (images / file).write_text(text.partition("[env]")[0])
    change(images / file, top, line)
    with pytest.raises(UsageError) as error:
        spec.read("train")
    assert error.value.where == f"images/{file}"
    assert error.value.what.startswith(f"{key}: "), error.value.what
    assert error.value.fix


@pytest.mark.parametrize(
    ("file", "key", "line", "field", "value"),
    [
        ("train/image.toml", "name", 'name = "acme/probe-1"', "name", "acme/probe-1"),
        ("train/image.toml", "entrypoint", 'entrypoint = ["tini", "--"]', "entrypoint", ("tini", "--")),
        ("train/image.toml", "labels", 'labels."com.acme.team" = "ml"', "labels", (("com.acme.team", "ml"),)),
        ("train/image.toml", "ports", "ports = []", "ports", ()),
        ("shared.toml", "user", 'user = "_ml-1"', "user", "_ml-1"),
        ("shared.toml", "workdir", 'workdir = "/home/ml/work"', "workdir", "/home/ml/work"),
    ],
)
def test_a_right_value_is_taken(file: str, key: str, line: str, field: str, value: object, images: Path) -> None:
    change(images / file, key, line)
    assert getattr(spec.read("train"), field) == value


def test_what_is_not_used_stands_in_no_digest() -> None:
    meaning = recipe._meaning(spec.read("train"))
    assert not {"entrypoint", "labels", "certificates"} & set(meaning)


@pytest.mark.parametrize(
    ("passwd", "group"),
    [
        ("pinwheel:x:33:33::/:/bin/sh\n", ""),
        ("other:x:10001:10001::/:/bin/sh\n", ""),
        ("", "pinwheel:x:33:\n"),
        ("", "other:x:10001:\n"),
    ],
)
def test_a_user_that_the_base_has_already_is_refused(passwd: str, group: str, tmp_path: Path) -> None:
    with (
        (tmp_path / "layer").open("wb") as out,
        pytest.raises(UsageError, match=r"the base has .* already, .*images/shared.toml"),
    ):
        config.fill(spec.read("train"), Accounts(passwd, group), "3.11.2", tmp_path, LayerWriter(out))


def test_a_certificate_without_a_bundle_in_the_base_is_refused(images: Path, tmp_path: Path) -> None:
    from tests.images.test_certificates import authority

    (tmp_path / "acme.crt").write_text(authority("Acme"))
    change(images / "shared.toml", "certificates", 'certificates = ["acme.crt"]')
    with (tmp_path / "layer").open("wb") as out, pytest.raises(BuildError, match="name ca-certificates in base.in"):
        config.fill(spec.read("train"), Accounts("", ""), "3.11.2", tmp_path, LayerWriter(out))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
@pytest.mark.parametrize("uid", [10001, 54321])
def test_a_user_whom_no_file_names_has_a_name_and_a_home_to_write_to(uid: int) -> None:
    """As OpenShift and others start containers; getpass fails for a uid without an entry, and torch asks it."""
    env = {name: value for name, value in spec.read("train").env if name not in ("PATH", "VIRTUAL_ENV")}
    code = "import getpass, pathlib, os, tempfile\nprint(getpass.getuser(), os.environ['LOGNAME'])\n"
    code += "tempfile.NamedTemporaryFile(dir=pathlib.Path.home()).close()"
    argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "/usr/bin/python3", "-I", "-c", code]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("pinwheel pinwheel\n", "")


def test_the_documentation_has_every_key() -> None:
    text = (Path(__file__).parents[2] / "docs/images.md").read_text()
    named = {"left_out": "leave_out"}
    keys = {named.get(field.name, field.name) for field in dataclasses.fields(spec.ImageSpec)} - {"role"}
    assert [key for key in sorted(keys) if f"`{key}`" not in text and f"[{key}]" not in text] == []
