"""`invoke build --plan`: sizes known and estimated, and what a push would send to the registry as it is now."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common import console, host
from common.errors import RegistryError
from images import layer, plan, receipt, spec
from images.forecast import estimate, predict
from images.plan import LayerPlan
from images.recipe import Recipe, recipe_of
from images.spec import Rules
from images.tarball import LayerWriter
from images.wheels.install import Files
from lockfiles import check, images_lock, lockfile
from lockfiles.images_lock import PinnedImage
from lockfiles.model import Artifact, SetLock, Wheel
from oci.descriptor import LAYER, MANIFEST, Descriptor, canonical
from oci.layout import Layout
from tests.images.wheels.wheels import make, stored
from tests.oci.double import Double, digest_of, serving

BASE = lockfile.read_base()


@pytest.fixture
def double() -> Iterator[Double]:
    with serving() as state:
        yield state


@pytest.fixture
def recipes(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Recipe]:
    """Two images of small sets that share some wheels, none of them built."""
    monkeypatch.setattr(plan, "BIG", 1000)
    noise = random.Random(0).randbytes(300_000)
    wheels = {n: stored(make(own_folders, {f"{n}/data.bin": noise}, name=n)) for n in ("shared", "only", "llamafactory")}
    locks = {
        "train": SetLock("train", "", "", "3.11.2", "2.36", (wheels["llamafactory"], wheels["only"], wheels["shared"])),
        "api": SetLock("api", "", "", "3.11.2", "2.36", (wheels["llamafactory"], wheels["shared"])),
    }
    real = spec.read
    monkeypatch.setattr(spec, "roles", lambda: ("api", "train"))
    nothing: dict[str, Any] = dict.fromkeys(("conflicts", "record_errors", "left_out", "files"), ())
    monkeypatch.setattr(spec, "read", lambda role: dataclasses.replace(real(role), **nothing, budget=10**6))
    monkeypatch.setattr(lockfile, "read_set", locks.__getitem__)
    monkeypatch.setattr(check, "check", lambda: "")
    monkeypatch.setattr(images_lock, "path", lambda: own_folders / "images.lock")
    monkeypatch.setattr(console.out, "width", 160)
    base = dataclasses.replace(BASE, debs=BASE.debs[:0])
    monkeypatch.setattr(lockfile, "read_base", lambda: base)
    monkeypatch.setattr(type(base), "version", lambda *_: "3.11.2")
    return {role: recipe_of(spec.read(role), base) for role in locks}


def built(one: LayerPlan, size: int = 300_000) -> layer.Layer:
    """Make a layer of noise in the place of the planned one."""

    def fill(writer: LayerWriter) -> Files:
        writer.file("noise", size, [random.Random(one.key).randbytes(size)])
        writer.end()
        return {}

    layout = Layout(receipt.layout())
    layout.create()
    return layer.make(layout, one, fill)


def rows(said: str) -> dict[str, list[str]]:
    """The table of the last image, by the first word of a line."""
    table = said.rpartition("llama-factory-")[2]
    return {line.split()[0]: line.split() for line in table.splitlines() if line.split()}


def test_a_plan_of_nothing_built_makes_and_sends_all_and_writes_nothing(
    recipes: dict[str, Recipe], double: Double, capsys: pytest.CaptureFixture[str], own_folders: Path
) -> None:
    before = sorted(own_folders.rglob("*"))
    assert predict.show_plan(["train"], double.address) == "5 of 5 layers to make; a push of all would send ~839.2 kB"
    said = capsys.readouterr().out
    assert rows(said)["only"][1:] == ["1.0", "~0.3", "~0.3", "new", "to", "send"]
    assert rows(said)["shared"][1:] == ["1.0", "~0.3", "~0.3", "new", "all", "to", "send"]
    assert f"in the registry: as {double.address} says now" in said
    assert "layers   0 of 5 reused; to make: ~839.2 kB" in said
    assert "size     ~839.2 kB of 1.0 MB (83." in said
    assert double.asked == []
    assert sorted(own_folders.rglob("*")) == before


def test_what_the_registry_holds_is_not_sent_and_the_rest_is_told_to_the_byte(
    recipes: dict[str, Recipe], double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {one.what.split()[0]: built(one) for one in recipes["train"].plans}
    layout = Layout(receipt.layout())
    held = {name: layout.blob(one.digest).read_bytes() for name, one in made.items()}
    double.blobs["team/llama-factory-train"][made["base"].digest] = held["base"]
    double.blobs["team/llama-factory-api"][made["shared"].digest] = held["shared"]
    images_lock.write([PinnedImage("llama-factory-api", digest_of(b"x"), "1")])
    outcome = predict.show_plan(["train"], f"{double.address}/team")
    sent = sum(made[name].size for name in ("only", "llamafactory", "config"))
    assert outcome == f"0 of 5 layers to make; a push of all would send {console.size(sent)}"
    said = capsys.readouterr().out
    short = made["only"].digest.removeprefix("sha256:")[:12]
    assert rows(said)["only"][1:] == ["1.0", "0.3", "0.3", short, "to", "send"]
    assert [rows(said)[name][-1] for name in ("base", "shared", "only")] == ["there", "mounted", "send"]


def test_two_images_of_one_push_send_what_they_share_once(
    recipes: dict[str, Recipe], double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.show_plan(["train", "api"], double.address).endswith("a push of all would send ~839.2 kB")
    said = capsys.readouterr().out
    assert rows(said)["shared"][-2:] == ["all", "mounted"]
    assert "push     ~0 B" not in said
    assert "push     0 B" in said


def test_without_a_registry_what_was_pushed_last_counts_if_it_is_still_here(
    recipes: dict[str, Recipe], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host, "registry_answers", lambda: False)
    predict.show_plan(["train"])
    assert f"nobody knows: as if it were empty (no registry answers at {host.REGISTRY})" in capsys.readouterr().out
    made = built(recipes["train"].base)
    body = {"config": {"digest": made.digest}, "layers": [Descriptor(LAYER, made.digest, made.size).json()]}
    manifest = Layout(receipt.layout()).add(MANIFEST, canonical(body))
    images_lock.write([PinnedImage("llama-factory-train", manifest.digest, "1"), PinnedImage("gone", digest_of(b""), "1")])
    predict.show_plan(["train"])
    said = capsys.readouterr().out
    assert f"as images.lock says was pushed (no registry answers at {host.REGISTRY})" in said
    assert rows(said)["base"][-1] == "there"


def test_a_registry_that_was_named_and_does_not_answer_is_an_error(recipes: dict[str, Recipe]) -> None:
    built(recipes["train"].base)
    with pytest.raises(RegistryError, match=r"asking for llama-factory-train@sha256:\w+ failed"):
        predict.show_plan(["train"], "127.0.0.1:9")


def test_an_image_that_would_exceed_its_budget_is_warned_of(
    recipes: dict[str, Recipe], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host, "registry_answers", lambda: False)
    real = spec.read
    monkeypatch.setattr(spec, "read", lambda role: dataclasses.replace(real(role), budget=500_000))
    predict.show_plan(["train"])
    said = capsys.readouterr()
    assert "size     ~839.2 kB of 500.0 kB (167." in said.out
    assert "llama-factory-train would exceed its budget: `invoke build` would refuse it (images/train/image.toml)" in said.err


def test_files_left_out_are_not_counted_and_a_wheel_not_in_the_store_is_guessed_by_its_size(own_folders: Path) -> None:
    noise = random.Random(0).randbytes(100_000)
    one = stored(make(own_folders, {"one/a.bin": noise, "one/tests/b.bin": noise}))
    layout = Layout(receipt.layout())
    whole = estimate.size(layout, LayerPlan("one", "k", (one,)), None)
    rules = (("one", Rules(left_out=frozenset({"*/tests/*"}))),)
    part = estimate.size(layout, LayerPlan("one", "k", (one,), rules), None)
    assert whole.compressed - part.compressed == pytest.approx(0.93 * 100_000, rel=0.01)
    absent = Wheel("gone", "1", Artifact("gone-1-py3-none-any.whl", 100_000, "ab" * 32))
    both = estimate.size(layout, LayerPlan("two", "k", (one, absent)), None)
    assert both == estimate.Size(whole.compressed + 97_000, 0)


def test_a_bucket_is_shown_by_what_it_holds() -> None:
    wheels = tuple(Wheel(name, "1", Artifact("", 0, "")) for name in ("anyio", "idna", "some-longer-name", "zipp"))
    assert predict._what(LayerPlan("bucket 03: 4 wheels", "", wheels)) == "bucket 03: anyio, idna, +2"
    assert predict._what(LayerPlan("bucket 03: 2 wheels", "", wheels[:2])) == "bucket 03: anyio, idna"
    assert predict._what(LayerPlan("anyio 1", "", wheels[:1])) == "anyio 1"


@pytest.mark.engine
def test_estimates_come_within_five_percent_of_the_images_that_were_built(tmp_path: Path) -> None:
    base, nothing = lockfile.read_base(), Layout(tmp_path / "oci")
    images = receipt.read().images
    assert images
    for image in images:
        sizes = [estimate.size(nothing, one, base) for one in recipe_of(spec.read(image.role), base).plans]
        assert not any(one.digest for one in sizes)
        assert sum(one.compressed for one in sizes) == pytest.approx(image.size, rel=0.05)
