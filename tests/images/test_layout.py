"""Layers, plans and the layout."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BuildError, MissingEnvironmentError, UsageError
from common.run import run
from images import config, layer, plan, spec
from images.plan import LayerPlan
from images.tarball import LayerWriter
from images.wheels.install import Files
from lockfiles import lockfile
from lockfiles.model import Artifact, SetLock, Wheel
from oci.layout import Layout
from tests.images.wheels.wheels import members

# See test_golden_digests.
GOLDEN_LAYER = "sha256:672468e2f4b4bf7ff5038217813362d1c10c9ed781012be65d7ee65adec8355d"
GOLDEN_MANIFEST = "sha256:fca3a94bc13abfa98b48e1d55e31e0f28176701d7359f2465db427cac99588ad"


def write(fill: list[tuple[str, bytes]]) -> tuple[str, str, bytes]:
    out = io.BytesIO()
    writer = LayerWriter(out)
    for path, data in fill:
        writer.file(path, len(data), [data])
    writer.end()
    digest, diff_id = writer.close()
    return digest, diff_id, out.getvalue()


@given(st.lists(st.integers(1, 3_000_000), max_size=4), st.integers(1, 100_000))
@settings(max_examples=25, deadline=None)
def test_a_layers_bytes_do_not_depend_on_how_its_content_arrives(sizes: list[int], piece: int) -> None:
    results = set()
    for step in (piece, 1 << 22):
        out = io.BytesIO()
        writer = LayerWriter(out)
        for number, size in enumerate(sizes):
            data = bytes(number % 7 for _ in range(16)) * (size // 16 + 1)
            data = data[:size]
            writer.file(f"f{number}", size, (data[at : at + step] for at in range(0, size, step)))
        writer.end()
        results.add((*writer.close(), out.getvalue()))
    assert len(results) == 1


def test_a_file_of_another_size_than_said_is_refused() -> None:
    writer = LayerWriter(io.BytesIO())
    with pytest.raises(ValueError, match="a: 2 bytes instead of 3"):
        writer.file("a", 3, [b"ab"])


def test_digests_are_those_of_the_bytes_on_both_sides_of_the_compressor() -> None:
    from common.files import sha256_bytes

    digest, diff_id, blob = write([("a/b/c", b"x" * 5000), ("a/d", b"")])
    tar = zstandard.ZstdDecompressor().decompress(blob, max_output_size=1 << 20)
    assert (digest, diff_id) == (sha256_bytes(blob), sha256_bytes(tar))
    assert list(members(tar)) == ["a", "a/b", "a/b/c", "a/d"]


@pytest.fixture
def layout(own_folders: Path) -> Layout:
    made = Layout(own_folders / "dist" / "oci")
    made.create()
    return made


PLAN = LayerPlan("one", "k" * 64)


def _fill(writer: LayerWriter) -> dict[str, tuple[str, str]]:
    writer.file("a", 1, [b"a"])
    writer.end()
    return {"a": ("00", "one")}


def test_a_layer_is_made_once_and_found_again(layout: Layout) -> None:
    assert layer.noted(layout, PLAN) is None
    made = layer.make(layout, PLAN, _fill)
    found = layer.noted(layout, PLAN)
    assert found is not None
    assert (found.digest, found.diff_id, found.size) == (made.digest, made.diff_id, made.size)


@pytest.mark.parametrize("damage", ["blob_gone", "blob_truncated", "note_truncated", "note_of_another"])
def test_a_damaged_layer_is_not_reused(layout: Layout, damage: str) -> None:
    made = layer.make(layout, PLAN, _fill)
    note = layout.root.parent / "layers" / f"{PLAN.key}.json"
    match damage:
        case "blob_gone":
            layout.blob(made.digest).unlink()
        case "blob_truncated":
            layout.blob(made.digest).write_bytes(b"x")
        case "note_truncated":
            note.write_text(note.read_text()[:40])
        case "note_of_another":
            note.write_text(note.read_text().replace("k" * 64, "j" * 64))
    assert layer.noted(layout, PLAN) is None
    assert layer.make(layout, PLAN, _fill).digest == made.digest


def test_a_full_disk_is_one_line_and_leaves_nothing(layout: Layout) -> None:
    def full(writer: LayerWriter) -> dict[str, tuple[str, str]]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MissingEnvironmentError, match="a layer cannot be written: No space left on device"):
        layer.make(layout, PLAN, full)
    assert not list(layout.blobs.iterdir())


@pytest.mark.host
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(own_folders: Path) -> None:
    small = own_folders / "dist"
    small.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], error=BuildError)
    try:
        layout = Layout(small / "oci")
        layout.create()

        def big(writer: LayerWriter) -> dict[str, tuple[str, str]]:
            writer.file("a", 8_000_000, [os.urandom(8_000_000)])
            return {}

        with pytest.raises(MissingEnvironmentError, match=r"a layer cannot be written: No space left on device .*free some"):
            layer.make(layout, PLAN, big)
        assert not list(layout.blobs.iterdir())
        assert layer.make(layout, PLAN, _fill).size < 1000
    finally:
        run(["umount", small], error=BuildError)


def test_a_failure_in_the_middle_leaves_nothing(layout: Layout) -> None:
    def broken(writer: LayerWriter) -> dict[str, tuple[str, str]]:
        writer.file("a", 5_000_000, [os.urandom(5_000_000)])
        raise BuildError("stop")

    with pytest.raises(BuildError, match="stop"):
        layer.make(layout, PLAN, broken)
    assert not list(layout.blobs.iterdir())
    assert layer.noted(layout, PLAN) is None


def test_sweeping_keeps_what_a_listed_image_needs(layout: Layout) -> None:
    kept = layer.make(layout, PLAN, _fill)

    def other(writer: LayerWriter) -> dict[str, tuple[str, str]]:
        writer.file("b", 1, [b"b"])
        return {}

    gone = layer.make(layout, LayerPlan("other", "o" * 64), other)
    layout.publish(config.base_image(layout, kept, "3.11.2", "2026-01-02"), "pinwheel-base", "3.11.2")
    assert layer.sweep(layout) == gone.size
    assert layout.has(kept.digest, kept.size)
    assert layer.noted(layout, PLAN) is not None
    assert layer.noted(layout, LayerPlan("other", "o" * 64)) is None


def test_an_altered_manifest_is_noticed(layout: Layout) -> None:
    described = config.base_image(layout, layer.make(layout, PLAN, _fill), "3.11.2", "2026-01-02")
    layout.blob(described.digest).write_bytes(b"{}")
    with pytest.raises(BuildError, match="a blob was altered"):
        layout.read(described.digest)


def wheel(name: str, size: int, digest: str = "ab") -> Wheel:
    return Wheel(name, "1.0", Artifact(f"{name.replace('-', '_')}-1.0-py3-none-any.whl", size, digest * 32))


def _keys(wheels: list[Wheel]) -> dict[str, str]:
    lock = SetLock("x", "", "", "3.11.2", "2.36", tuple(sorted(wheels, key=lambda w: w.name)))
    return {one.what.partition(":")[0]: one.key for one in plan.wheel_layers(lockfile.read_base(), lock, spec.read("train"))}


@given(
    st.lists(st.from_regex(r"[a-z]{1,8}(-[a-z]{1,4})?", fullmatch=True), unique=True, min_size=2, max_size=40),
    st.integers(0, 39),
)
@settings(deadline=None)
@pytest.mark.slow
def test_a_package_that_comes_goes_or_is_bumped_touches_one_layer(names: list[str], index: int) -> None:
    wheels = [wheel(name, plan.BIG + 1 if number % 5 == 0 else 100) for number, name in enumerate(names)]
    before = _keys(wheels)
    changed = index % len(wheels)
    bumped = [*wheels[:changed], wheel(names[changed], wheels[changed].artifact.size, "cd"), *wheels[changed + 1 :]]
    without = [*wheels[:changed], *wheels[changed + 1 :]]
    for other in (_keys(bumped), _keys(without)):
        assert sum(before.get(what) != other.get(what) for what in set(before) | set(other)) == 1


def _image(**changes: object) -> spec.ImageSpec:
    return dataclasses.replace(spec.read("train"), **changes)  # type: ignore[arg-type]


def test_a_stated_conflict_of_packages_that_are_not_there_is_refused() -> None:
    lock = SetLock("x", "", "", "3.11.2", "2.36", (wheel("one", 1), wheel("two", 1)))
    stale = _image(conflicts=(spec.Conflict("a", "one", "gone", "why"),))
    with pytest.raises(UsageError, match=r"a conflict of one and gone is stated, but train.lock does not hold that"):
        plan.wheel_layers(lockfile.read_base(), lock, stale)
    bumped = _image(record_errors=(spec.RecordError("one", "0.9", "a", "why"),))
    with pytest.raises(UsageError, match=r"a wrong RECORD of one 0.9 is stated"):
        plan.wheel_layers(lockfile.read_base(), lock, bumped)


def test_a_conflict_touches_the_layer_that_loses_and_no_other() -> None:
    lock = SetLock("x", "", "", "3.11.2", "2.36", (wheel("one", plan.BIG), wheel("two", plan.BIG), wheel("three", 1)))
    before = {p.what: p for p in plan.wheel_layers(lockfile.read_base(), lock, _image())}
    stated = _image(conflicts=(spec.Conflict("a", "one", "two", "why"),))
    after = {p.what: p for p in plan.wheel_layers(lockfile.read_base(), lock, stated)}
    assert [what for what in before if before[what].key != after[what].key] == ["two 1.0"]
    assert after["two 1.0"].rules == (("two", spec.Rules(dropped=frozenset({"a"}))),)


def _holding(**files: tuple[str, str]) -> Files:
    return {name.replace("_", "/"): value for name, value in files.items()}


def test_layers_that_disagree_about_a_path_are_refused() -> None:
    layer.check_conflicts([_holding(a=("00", "one")), _holding(a=("00", "two"))])
    with pytest.raises(BuildError, match=r"one and two install different bytes at one path \(a\)"):
        layer.check_conflicts([_holding(a=("00", "one")), _holding(a=("01", "two"))])
    with pytest.raises(BuildError, match="one and two install different bytes"):
        layer.check_conflicts([_holding(a=("00", "one")), _holding(a=("00+x", "two"))])
    with pytest.raises(BuildError, match=r"one and two install different bytes at one path \(a\)"):
        layer.check_conflicts([_holding(a=("00", "one")), _holding(a_b_c=("00", "two"))])


def test_a_conflict_whose_winner_brings_no_such_file_is_refused() -> None:
    layers = [_holding(a=("00", "one"))]
    layer.check_conflicts(layers, [spec.Conflict("a", "one", "two", "why")])
    with pytest.raises(BuildError, match=r"two does not bring the file it is to keep \(a\)"):
        layer.check_conflicts(layers, [spec.Conflict("a", "two", "three", "why")])


def test_what_a_killed_build_left_is_swept_and_a_damaged_note_is_no_obstacle(layout: Layout) -> None:
    kept = layer.make(layout, PLAN, _fill)
    layout.publish(config.base_image(layout, kept, "3.11.2", "2026-01-02"), "pinwheel-base", "3.11.2")
    (layout.blobs / ".layer-abc").write_bytes(b"half")
    (layout.root.parent / "layers" / "bad.json").write_text("{")
    (layout.blobs / ("0" * 64)).write_bytes(b"of no image")
    layer.clear(layout)
    layer.sweep(layout)
    assert not (layout.blobs / ".layer-abc").exists()
    assert not (layout.root.parent / "layers" / "bad.json").exists()
    assert layer.noted(layout, PLAN) is not None


def test_a_base_altered_on_disk_is_refused(layout: Layout, tmp_path: Path) -> None:
    tar = tmp_path / "base.tar"
    tar.write_bytes(b"other")
    with pytest.raises(BuildError, match="the base was altered on disk"):
        layer.make_from_tar(layout, PLAN, tar, "sha256:" + "0" * 64)
    assert layer.noted(layout, PLAN) is None


@pytest.mark.parametrize("role", spec.roles())
def test_every_image_stays_below_a_hundred_layers(role: str) -> None:
    image = spec.read(role)
    layers = plan.wheel_layers(lockfile.read_base(), lockfile.read_set(image.set), image)
    assert len(layers) + 2 <= 100
    assert sorted(w.name for one in layers for w in one.wheels) == [w.name for w in lockfile.read_set(image.set).wheels]


def test_train_and_api_share_their_big_layers() -> None:
    keys = []
    for role in ("train", "api", "api-cpu"):
        image = spec.read(role)
        keys.append({p.key: p.weight for p in plan.wheel_layers(lockfile.read_base(), lockfile.read_set(image.set), image)})
    shared = set(keys[0]) & set(keys[1]) & set(keys[2])
    assert sum(keys[0][key] for key in shared) > 0.9 * sum(keys[0].values())


def test_an_unknown_image_names_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no such image: tarin .*there are: api, api-cpu, api-cu128, train"):
        spec.read("tarin")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('set = "train"', 'sett = "train"', "set: missing"),
        ("ports = [7860]", "ports = 7860", "ports: expected a list of ports, got 7860"),
        ("name =", "name", "not TOML: "),
        ("ports = [7860]", 'ports = ["7860"]', "ports: expected numbers"),
        ("ports = [7860]", "ports = [70000]", "ports: expected numbers"),
        ('title = "LLaMA-Factory training"\n', "", "title: missing"),
        ("ports = [7860]", "ports = [7860]\nport = 1", "port: unknown key"),
        ("ports = [7860]", "ports = [7860]\nenv.NAME = 1", "env.NAME: expected a string, got 1"),
        ("ports = [7860]", 'ports = [7860]\n[[conflicts]]\npath = "x"', r"conflicts\[0\].keep: missing"),
    ],
)
def test_a_misspelt_spec_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str) -> None:
    from common import paths

    for name in ("shared.toml", "train/image.toml"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        text = (paths.IMAGES / name).read_text()
        target.write_text(text.replace(old, new, 1) if name != "shared.toml" else text)
    monkeypatch.setattr(paths, "IMAGES", tmp_path)
    with pytest.raises(UsageError, match=message):
        spec.read("train")


def test_golden_digests(layout: Layout) -> None:
    """A change here is a change of every image's bytes: it must be meant, and plan.FORMAT raised with it."""
    accounts = config.Accounts("root:x:0:0::/root:/bin/sh\n", "root:x:0:\n")
    made = layer.make(layout, PLAN, lambda w: config.fill(spec.read("train"), accounts, "3.11.2", layout.root, w))
    image = config.base_image(layout, made, "3.11.2", "2026-01-02")
    assert made.diff_id == GOLDEN_LAYER
    assert image.digest == GOLDEN_MANIFEST
    blob = io.BytesIO(layout.blob(made.digest).read_bytes())
    with tarfile.open(fileobj=zstandard.ZstdDecompressor().stream_reader(blob), mode="r|") as tar:
        owners = {m.name: m.uid for m in tar}
    assert owners["workspace"] == 10001
    assert owners["etc/passwd"] == 0
