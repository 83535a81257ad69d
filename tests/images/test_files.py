"""The files layer: what `[[files]]` may say, what goes into an image, and what the layer's key depends on."""

from __future__ import annotations

import dataclasses
import io
import os
import random
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from common import paths
from common.errors import BuildError, UsageError
from common.reader import Keys
from images import config, files, files_entry, plan, spec
from images.files_entry import FilesEntry
from images.plan import LayerPlan
from images.recipe import recipe_of
from images.tarball import LayerWriter
from lockfiles import lockfile
from lockfiles.debian.rootfs import EPOCH

BASE = lockfile.read_base()
TRAIN = spec.read("train")


def entries(*tables: dict[str, Any]) -> tuple[FilesEntry, ...]:
    return files_entry.read(Keys({"files": list(tables)}, "image.toml"), "/workspace")


def entry(**keys: Any) -> dict[str, Any]:
    return {"from": "tool", "to": "/opt/tool", **keys}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a folder `tool`."""
    root = tmp_path / "repository"
    (root / "tool" / "deep").mkdir(parents=True)
    for name, text in (("run.py", "print(1)\n"), ("settings.toml", "x = 1\n"), ("deep/grüße.txt", "ü\n"), ("empty", "")):
        (root / "tool" / name).write_text(text)
    for name in ("__pycache__/run.cpython-311.pyc", "deep/__pycache__/x.pyc", "old.pyc"):
        (root / "tool" / name).parent.mkdir(exist_ok=True)
        (root / "tool" / name).write_bytes(b"\0")
    monkeypatch.setattr(paths, "ROOT", root)
    return root


def planned(*tables: dict[str, Any]) -> LayerPlan:
    layer = files.layer_plan(dataclasses.replace(TRAIN, files=entries(*tables)))
    assert layer is not None
    return layer


def written(layer: LayerPlan) -> tuple[str, bytes]:
    """The digest of the layer, and its tar."""
    out = io.BytesIO()
    writer = LayerWriter(out)
    files.fill(layer, writer)
    digest, _ = writer.close()
    return digest, zstandard.ZstdDecompressor().decompress(out.getvalue(), max_output_size=1 << 24)


ALL = ["opt/tool/deep/grüße.txt", "opt/tool/empty", "opt/tool/run.py", "opt/tool/settings.toml"]


def test_a_folder_goes_into_the_image_without_bytecode(repository: Path) -> None:
    layer = planned(entry())
    assert [file.path for file in layer.files] == ALL
    assert [(folder.path, folder.mode, folder.uid) for folder in layer.folders] == [
        ("opt/tool", 0o755, 0),
        ("opt/tool/deep", 0o755, 0),
    ]


def test_the_tar_has_parents_first_the_epoch_and_the_entrys_modes_and_owner(repository: Path) -> None:
    own = entry(to="/opt/a/tool", mode="0440", owner="user", include=["run.py"])
    _, tar = written(planned(own, entry(to="/opt/b", mode="0755", include=["deep"])))
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        found = [(m.name, m.mode, m.uid, m.gid, m.uname, m.mtime) for m in archive]
    assert found == [
        ("opt", 0o755, 0, 0, "", EPOCH),
        ("opt/a", 0o755, 0, 0, "", EPOCH),
        ("opt/a/tool", 0o550, 10001, 10001, "", EPOCH),
        ("opt/b", 0o755, 0, 0, "", EPOCH),
        ("opt/b/deep", 0o755, 0, 0, "", EPOCH),
        ("opt/a/tool/run.py", 0o440, 10001, 10001, "", EPOCH),
        ("opt/b/deep/grüße.txt", 0o755, 0, 0, "", EPOCH),
    ]


def test_a_single_file_gets_the_path_of_to(repository: Path) -> None:
    layer = planned({"from": "tool/run.py", "to": "/usr/local/bin/run", "mode": "0755"})
    assert [(file.path, file.mode) for file in layer.files] == [("usr/local/bin/run", 0o755)]
    assert layer.folders == ()
    with tarfile.open(fileobj=io.BytesIO(written(layer)[1])) as archive:
        assert archive.getnames() == ["usr", "usr/local", "usr/local/bin", "usr/local/bin/run"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"include": ["*.py"]}, ["run.py"]),
        ({"include": ["deep", "run.py"]}, ["deep/grüße.txt", "run.py"]),
        ({"include": ["*"], "exclude": ["deep"]}, ["empty", "run.py", "settings.toml"]),
        ({"exclude": ["*.t*"]}, ["empty", "run.py"]),
        ({"exclude": ["matches nothing"]}, ["deep/grüße.txt", "empty", "run.py", "settings.toml"]),
    ],
)
def test_patterns_choose(repository: Path, keys: dict[str, Any], expected: list[str]) -> None:
    assert [file.path.removeprefix("opt/tool/") for file in planned(entry(**keys)).files] == expected


def test_what_this_machine_adds_does_not_count(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned(entry())
    digest = written(before)
    for file in (repository / "tool").rglob("*"):
        os.utime(file, (1, 1))
        file.chmod(0o700 if file.is_dir() else 0o4777)
    moved = repository.parent / "another place"
    shutil.copytree(repository, moved)
    monkeypatch.setattr(paths, "ROOT", moved)
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(sorted(listed(folder), key=lambda _: random.random())))
    after = planned(entry())
    assert after.key == before.key
    assert written(after) == digest


CHANGES: dict[str, dict[str, Any]] = {
    "another path": {"to": "/opt/other"},
    "another mode": {"mode": "0755"},
    "another owner": {"owner": "user"},
    "fewer files": {"exclude": ["empty"]},
}


@pytest.mark.parametrize("keys", CHANGES.values(), ids=CHANGES)
def test_the_key_and_the_bytes_change_with_path_mode_owner_and_choice(repository: Path, keys: dict[str, Any]) -> None:
    before, after = planned(entry()), planned(entry(**keys))
    assert before.key != after.key
    assert written(before)[0] != written(after)[0]


def test_the_key_changes_with_content_and_a_move_within_the_repository_changes_nothing(repository: Path) -> None:
    before = planned(entry())
    (repository / "tool").rename(repository / "moved")
    assert planned(entry(**{"from": "moved"})).key == before.key
    (repository / "moved" / "run.py").write_text("print(2)\n")
    assert planned(entry(**{"from": "moved"})).key != before.key


def test_a_change_of_the_files_changes_one_layer_the_inputs_and_the_version(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = dataclasses.replace(TRAIN, files=entries(entry()))
    before = recipe_of(image, BASE)
    (repository / "tool" / "run.py").write_text("print(2)\n")
    after = recipe_of(image, BASE)
    assert [a.what for a, b in zip(before.plans, after.plans, strict=True) if a.key != b.key] == ["files"]
    assert before.plans[-2].what == "files"
    assert before.inputs != after.inputs
    assert before.version != after.version
    without = recipe_of(dataclasses.replace(image, files=()), BASE)
    assert without.files is None
    assert [one.key for one in without.plans] == [one.key for one in before.plans if one.what != "files"]


def test_two_entries_may_fill_one_folder_and_nest(repository: Path) -> None:
    programs, settings = entry(include=["*.py"], mode="0755"), entry(include=["*.toml", "empty"])
    layer = planned(programs, settings, entry(to="/opt/tool/more", include=["deep"]))
    assert [(file.path, file.mode) for file in layer.files] == [
        ("opt/tool/empty", 0o644),
        ("opt/tool/more/deep/grüße.txt", 0o644),
        ("opt/tool/run.py", 0o755),
        ("opt/tool/settings.toml", 0o644),
    ]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([entry(), entry(include=["run.py"])], r'from = "tool" writes it twice \(/opt/tool/run.py\)'),
        (
            [entry(), {"from": "tool/run.py", "to": "/opt/tool/empty"}],
            r'from = "tool" and \[\[files\]\] from = "tool/run.py" both write it \(/opt/tool/empty\)',
        ),
        ([entry(include=["run.py"]), entry(to="/opt/tool/run.py/x", include=["empty"])], "puts a file where .* needs a folder"),
        ([{"from": "tool/empty", "to": "/opt"}, entry()], r"puts a file where .* needs a folder \(/opt\)"),
        ([entry(include=["run.py"]), entry(include=["empty"], owner="user")], "want another mode or owner for one folder"),
    ],
)
def test_two_entries_that_disagree_are_refused(repository: Path, tables: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(*tables)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"from": "gone"}, r"gone cannot be read: No such file or directory \(image.toml, files\[0\]\)"),
        ({"from": "tool/run.py/x"}, "run.py/x cannot be read: Not a directory"),
        ({"from": "tool/run.py", "include": ["x"]}, "tool/run.py is a file .*leave `include` and `exclude` out"),
        ({"include": ["*.py", "*.md"]}, r"include: '\*.md' matches no file of tool"),
        ({"include": ["*.py"], "exclude": ["run.py"]}, r"include: '\*.py' matches no file"),
        ({"exclude": ["*"]}, "tool holds no file for the image"),
        ({"include": ["*.pyc"]}, "matches no file"),
    ],
)
def test_what_is_not_there_is_one_line_with_the_code_of_usage(repository: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        planned(entry(**keys))
    assert "\n" not in refusal.value.line()
    assert refusal.value.exit_code == 2


def test_a_file_that_may_not_be_read_is_named(repository: Path) -> None:
    (repository / "tool" / "run.py").chmod(0)
    me = os.geteuid()
    try:
        if me == 0:
            for folder in (repository, *repository.parents):
                if folder.owner() == "root" and folder.is_relative_to(repository.parent):
                    folder.chmod(0o755)
            os.seteuid(65534)
        if os.access(repository / "tool", os.X_OK, effective_ids=True):
            with pytest.raises(UsageError, match=r"tool/run.py cannot be read: Permission denied"):
                planned(entry())
    finally:
        os.seteuid(me)


def test_links_devices_sockets_and_odd_names_are_refused_unless_they_are_left_out(repository: Path) -> None:
    folder = repository / "tool" / "odd"
    folder.mkdir()
    outside = repository.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")

    def check(name: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            planned(entry())
        assert [file.path for file in planned(entry(exclude=["odd"])).files] == ALL
        assert [file.path for file in planned(entry(include=["run.py"])).files] == ["opt/tool/run.py"]
        (folder / name).unlink()

    for name, target in (("up", "../.."), ("out", str(outside / "secret")), ("in", "../run.py"), ("nowhere", "gone")):
        (folder / name).symlink_to(target)
        check(name, f"odd/{name} is a symbolic link")
    os.mkfifo(folder / "pipe")
    check("pipe", "odd/pipe is a device, a socket or a pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(folder)
        listening.bind("socket")
        os.chdir(here)
        check("socket", "odd/socket is a device, a socket or a pipe")
    for name, message in ((".wh.run.py", "deletes files of others"), ("a\nb", "control character"), ("a\udcffb", "not UTF-8")):
        (folder / name).write_text("x")
        check(name, message)


@pytest.mark.parametrize("source", ["link", "link/inner", "tool/link/inner"])
def test_a_link_on_the_way_is_refused(repository: Path, source: str) -> None:
    outside = repository.parent / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "inner" / "x").write_text("x")
    for place in (repository / "link", repository / "tool" / "link"):
        place.symlink_to(outside)
    with pytest.raises(UsageError, match="link is a symbolic link"):
        planned({"from": source, "to": "/opt/x"})


def test_a_secret_is_refused_with_file_and_line_and_not_shown(repository: Path) -> None:
    token = "ghp_" + "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyzABCDEFG0123456789", k=36))
    (repository / "tool" / "settings.toml").write_text(f"# two\ntoken = '{token}'\n")
    with pytest.raises(UsageError, match=r"holds a token of GitHub \(tool/settings.toml:2\)") as refusal:
        planned(entry())
    assert token not in refusal.value.line()
    assert planned(entry(exclude=["settings.toml"])).files


def test_a_file_that_is_too_large_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST", 8)
    with pytest.raises(UsageError, match=r"tool/run.py is larger than"):
        planned(entry(include=["run.py"]))


@pytest.mark.parametrize("change", ["longer", "same length", "gone"])
def test_a_file_that_changes_while_the_image_is_built_is_noticed(repository: Path, change: str) -> None:
    layer, file = planned(entry()), repository / "tool" / "run.py"
    file.unlink() if change == "gone" else file.write_text("print(2)\n" if change == "same length" else "print(10)\n")
    with pytest.raises(BuildError, match=r"a file changed while the image was built \(tool/run.py\): build again"):
        written(layer)


def base_tar(folder: Path) -> Path:
    """A base with folders of several rights, a link in the place of a folder, and a file."""
    place = folder / "base.tar"
    with tarfile.open(place, "w") as archive:
        for name, kind, mode, uid in (
            *(("./", tarfile.DIRTYPE, 0o755, 0), ("./etc", tarfile.DIRTYPE, 0o755, 0), ("./opt", tarfile.DIRTYPE, 0o755, 0)),
            *(("./usr", tarfile.DIRTYPE, 0o755, 0), ("./usr/bin", tarfile.DIRTYPE, 0o755, 0)),
            *(
                ("./root", tarfile.DIRTYPE, 0o700, 0),
                ("./var", tarfile.DIRTYPE, 0o755, 5),
                ("./bin", tarfile.SYMTYPE, 0o777, 0),
            ),
            ("./etc/same", tarfile.REGTYPE, 0o644, 0),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid = kind, mode, uid, uid
            data = b"print(1)\n" if kind == tarfile.REGTYPE else b""
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return place


WHEELS = {"opt/venv/lib/x/a.py": ("00", "some-package"), "opt/venv/bin/tool": ("00+x", "some-package")}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"to": "/opt/tool"}, ""),
        ({"to": "/usr/local/tool"}, ""),
        ({"to": "/opt/venv/lib/y"}, ""),
        ({"from": "tool/run.py", "to": "/etc/same"}, ""),
        ({"from": "tool/run.py", "to": "/etc/other"}, ""),
        ({"from": "tool/run.py", "to": "/etc/same", "mode": "0755"}, r"the base both bring it \(/etc/same\)"),
        ({"from": "tool/empty", "to": "/etc/same"}, r'from = "tool/empty" and the base both bring it \(/etc/same\)'),
        ({"to": "/etc"}, "the base both bring it"),
        ({"to": "/usr"}, "the base both bring it"),
        ({"to": "/etc/same/x"}, "needs a folder of root's with mode 0755 where the base brings a file"),
        ({"to": "/bin/tool"}, r"where the base brings a symbolic link \(/bin\)"),
        ({"to": "/root/tool"}, "where the base brings a folder with mode 0700"),
        ({"to": "/var/tool"}, "where the base brings a folder with mode 0755 of user 5"),
        ({"to": "/opt/venv/lib/x"}, r'from = "tool" and some-package both bring it \(/opt/venv/lib/x'),
        ({"to": "/opt/venv/lib"}, "some-package both bring it"),
        ({"from": "tool/run.py", "to": "/opt/venv/bin/tool"}, r"some-package both bring it \(/opt/venv/bin/tool\)"),
        ({"to": "/opt/venv/bin/tool/x"}, "where some-package brings a "),
    ],
    ids=str,
)
def test_what_another_layer_holds_stays(repository: Path, tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    stated = entries(entry(**keys))
    layer = planned(entry(**keys))
    if not message:
        files.check_places(layer, stated, files.of_base(base_tar(tmp_path)), [WHEELS])
        return
    with pytest.raises(BuildError, match=message):
        files.check_places(layer, stated, files.of_base(base_tar(tmp_path)), [WHEELS])


# --- what an entry may say

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/", exclude_categories=["Cc"]), min_size=1, max_size=20
).filter(lambda name: name not in (".", "..") and not name.startswith(".wh."))
PLACES = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
BAD_NAMES = st.sampled_from(["", ".", "..", "a\0b", "a\nb", "\x7f", ".wh.x", ".wh..wh..opq", "x" * 256, "\ud800"])
RESERVED = ("/dev", "/proc", "/run", "/sys", "/tmp", "/workspace", *files_entry.WRITTEN_LATER)


@given(PLACES, PLACES)
def test_any_plain_path_is_taken_as_it_is(source: str, place: str) -> None:
    (taken,) = entries({"from": source, "to": f"/srv/{place}"})
    assert (taken.source, taken.to) == (source, f"/srv/{place}")


@given(st.lists(NAMES, max_size=2), BAD_NAMES, st.lists(NAMES, max_size=2), st.sampled_from(["from", "to"]))
def test_a_path_with_a_part_that_leads_elsewhere_or_cannot_be_is_refused(
    before: list[str], bad: str, after: list[str], key: str
) -> None:
    path = "/".join([*before, bad, *after])
    with pytest.raises(UsageError) as refusal:
        entries(entry(**{key: path if key == "from" else f"/{path}"}))
    assert refusal.value.line().isprintable()


@given(PLACES)
def test_absolute_in_the_repository_and_relative_in_the_image_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match=r"files\[0\].from: expected a path relative to the repository"):
        entries(entry(**{"from": f"/{path}"}))
    with pytest.raises(UsageError, match=r"files\[0\].to: expected an absolute path in the image"):
        entries(entry(to=path))


@given(st.sampled_from(RESERVED), PLACES)
def test_places_that_are_mounted_over_or_written_later_are_refused(folder: str, below: str) -> None:
    for place in (folder, f"{folder}/{below}"):
        if folder == "/app" and place != folder:
            entries(entry(to=place))
            continue
        with pytest.raises(UsageError, match="is mounted over when|is written by the configuration layer"):
            entries(entry(to=place))


@given(st.integers(0, 0o7777), st.sampled_from(["root", "user"]))
def test_a_mode_gives_no_rights_and_lets_the_user_read(mode: int, owner: str) -> None:
    good = not mode & 0o7002 and bool(mode & (0o400 if owner == "user" else 0o004))
    stated = entry(mode=f"{mode:04o}", owner=owner)
    if not good:
        with pytest.raises(UsageError, match=r"files\[0\].mode: "):
            entries(stated)
        return
    (taken,) = entries(stated)
    assert taken.mode == mode
    assert taken.folder_mode & 0o444 == mode & 0o444
    assert taken.folder_mode & 0o111 == (mode | mode >> 2) & 0o111


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mode": 644}, r"files\[0\].mode: expected a string"),
        ({"mode": "rw"}, r"files\[0\].mode: expected permission bits"),
        ({"mode": "4755"}, "no set-ID and no sticky bit"),
        ({"owner": "nobody"}, r"files\[0\].owner: expected root or user"),
        ({"include": "*.py"}, r"files\[0\].include: expected a list of strings"),
        ({"form": "x"}, r"files\[0\].form: unknown key"),
        ({"to": "/opt/x/"}, "is no name of a file"),
        ({"to": "/"}, "is no name of a file"),
        ({"from": "."}, "is no name of a file"),
    ],
)
def test_an_entry_that_says_something_else_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        entries(entry(**keys))


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UsageError, match=r"files\[1\].to: missing \(image.toml\)"):
        entries(entry(), {"from": "tool"})


def test_what_the_configuration_layer_writes_is_what_no_entry_may_write(tmp_path: Path) -> None:
    out = io.BytesIO()
    writer = LayerWriter(out)
    config.fill(TRAIN, config.Accounts("", ""), "3.11.2", tmp_path, writer)
    writer.close()
    with tarfile.open(fileobj=zstandard.ZstdDecompressor().stream_reader(out.getvalue()), mode="r|") as archive:
        paths_written = {f"/{m.name}" for m in archive if not m.isdir()}
    assert paths_written | {"/app"} == set(files_entry.WRITTEN_LATER)


@pytest.mark.parametrize("role", spec.roles())
def test_the_programs_of_pods_are_in_every_image_in_one_and_the_same_layer(role: str) -> None:
    image = spec.read(role)
    layer = files.layer_plan(image)
    assert layer is not None
    shared = files.layer_plan(dataclasses.replace(image, files=tuple(e for e in image.files if "shared" in e.stated)))
    assert shared is not None
    held = {file.path for file in layer.files}
    needed = ("pinwheel_pipeline/__init__.py", "oci/signature.py", "common/errors.py")
    assert {f"opt/pinwheel/{path}" for path in needed} <= held
    assert {file.path for file in shared.files} <= held
    assert len(recipe_of(image, BASE).plans) <= plan.MOST


def test_a_file_that_git_ignores_is_refused_unless_it_is_committed_all_the_same(repository: Path) -> None:
    """The image would hold what no revision names, and its provenance would call the checkout clean."""
    (repository / ".gitignore").write_text("settings.toml\n*.pyc\n")
    table = {"from": "tool", "to": "/opt/tool"}
    planned(table)  # outside git nothing can be said
    subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
    with pytest.raises(UsageError, match=r"takes a file that git ignores.*\(tool/settings\.toml\): commit it"):
        planned(table)
    planned({**table, "exclude": ["settings.toml"]})
    subprocess.run(["git", "add", "-f", "tool/settings.toml"], cwd=repository, check=True)
    planned(table)
