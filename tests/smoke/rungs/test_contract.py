"""What an image must not be: each rule of the contract, broken."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from images import libraries, spec
from images.plan import ImageFile, ImageFolder, files_layer
from images.receipt import BuiltImage
from lockfiles.model import Artifact, BaseLock, Deb, SetLock, Wheel
from smoke.payload import contents
from smoke.payload import contract as payload
from smoke.rungs import contract
from tests.smoke import layouts

DIGEST = "sha256:" + "0" * 64
SYSTEM: dict[str, Any] = {
    "os": "debian 12",
    "python": "3.11.2",
    "prefix": "/opt/venv",
    "uid": 10001,
    "gid": 10001,
    "groups": [10001],
    "interfaces": ["lo"],
    "writable": ["/tmp", "/workspace"],
    "capabilities": "0000000000000000",
    "no_new_privileges": "1",
}


def test_a_sound_system() -> None:
    assert not list(contract.system(SYSTEM))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("os", "debian 13", "the system: debian 13, not debian 12"),
        ("python", "3.11.7", "Python: 3.11.7, not 3.11.2"),
        ("prefix", "/usr", "the prefix of python: /usr"),
        ("uid", 0, "it runs as user 0, group 10001, groups [10001]: root's"),
        ("gid", 0, "it runs as user 10001, group 0"),
        ("groups", [10001, 0], "groups [10001, 0]: root's"),
        ("interfaces", ["eth0", "lo"], "the network interfaces: ['eth0', 'lo']"),
        ("writable", ["/etc", "/tmp", "/workspace"], "what is writable: ['/etc', '/tmp', '/workspace']"),
        ("capabilities", "00000000a80425fb", "it can gain capabilities 00000000a80425fb"),
        ("no_new_privileges", "0", "no_new_privs: 0, not 1"),
    ],
)
def test_a_system_that_breaks_its_promise(field: str, value: Any, said: str) -> None:
    (problem,) = contract.system({**SYSTEM, field: value})
    assert said in problem


@pytest.fixture
def own() -> spec.ImageSpec:
    return spec.read("train")


@pytest.fixture
def image(tmp_path: Path) -> BuiltImage:
    return layouts.add(tmp_path, "train", [b""])


@pytest.fixture
def config(own: spec.ImageSpec, image: BuiltImage) -> dict[str, Any]:
    """As the engine shows an image that is as its spec says."""
    said = {"title": own.title, "description": own.description, "licenses": own.licenses, "source": own.source}
    said |= {"vendor": own.vendor, "version": image.version, "base.name": "pinwheel-base", "base.digest": DIGEST}
    said |= {"revision": DIGEST, "created": "2026-11-23T00:00:00Z"}
    return {
        "User": "10001:10001",
        "WorkingDir": "/workspace",
        "Cmd": list(own.cmd),
        "Entrypoint": None,
        "ExposedPorts": {"7860/tcp": {}},
        "StopSignal": "SIGTERM",
        "Env": [f"{name}={value}" for name, value in own.env],
        "Labels": {f"org.opencontainers.image.{name}": text for name, text in said.items()},
    }


def test_a_sound_configuration(config: dict[str, Any], own: spec.ImageSpec, image: BuiltImage) -> None:
    assert not list(contract.configuration(config, own, image))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"User": "root"}, "User is root, not 10001:10001"),
        ({"User": ""}, "User is , not 10001:10001"),
        ({"Entrypoint": ["/bin/sh", "-c"]}, "Entrypoint is ['/bin/sh', '-c'], not []"),
        ({"Cmd": ["bash"]}, "Cmd is ['bash']"),
        ({"ExposedPorts": None}, "ExposedPorts is None"),
        ({"Volumes": {"/data": {}}}, "Volumes is {'/data': {}}, not None"),
        ({"StopSignal": "SIGKILL"}, "StopSignal is SIGKILL"),
    ],
)
def test_a_configuration_that_is_not_its_specs(
    config: dict[str, Any], own: spec.ImageSpec, image: BuiltImage, change: dict[str, Any], said: str
) -> None:
    (problem,) = contract.configuration({**config, **change}, own, image)
    assert said in problem


def test_an_entrypoint_that_the_spec_names(config: dict[str, Any], own: spec.ImageSpec, image: BuiltImage) -> None:
    wrapped = replace(own, entrypoint=("tini", "--"))
    assert not list(contract.configuration({**config, "Entrypoint": ["tini", "--"]}, wrapped, image))
    (problem,) = contract.configuration(config, wrapped, image)
    assert problem == "Entrypoint is None, not ['tini', '--'] as its spec says"


@pytest.mark.parametrize("missing", ["entrypoint", "cmd"])
def test_a_program_that_is_not_in_the_image(own: spec.ImageSpec, missing: str) -> None:
    wrapped = replace(own, entrypoint=("tini", "--"))
    there = {"tini": "/usr/bin/tini", own.cmd[0]: f"/opt/venv/bin/{own.cmd[0]}"}
    assert not list(contract.programs({"programs": there}, wrapped))
    name = wrapped.entrypoint[0] if missing == "entrypoint" else own.cmd[0]
    (problem,) = contract.programs({"programs": there | {name: None}}, wrapped)
    assert problem.startswith(f"{name}, the program of `{missing}`, is not in the image")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("EXTRA=1", "the variable EXTRA is '1', not None as its spec says"),
        # The receipt does not tell it once more.
        ("HF_TOKEN=hf_x", "the variable HF_TOKEN holds a secret"),
        ("api_key=x", "the variable api_key holds a secret"),
        ("HTTPS_PROXY=http://user:word@proxy:3128", "the variable HTTPS_PROXY holds a secret"),
    ],
)
def test_an_environment_that_is_not_its_specs(
    config: dict[str, Any], own: spec.ImageSpec, image: BuiltImage, entry: str, said: str
) -> None:
    config["Env"].append(entry)
    assert list(contract.configuration(config, own, image)) == [said]


@pytest.mark.parametrize("label", ["title", "version", "revision", "created", "base.name", "base.digest", "licenses"])
def test_a_label_that_is_wrong_or_missing(config: dict[str, Any], own: spec.ImageSpec, image: BuiltImage, label: str) -> None:
    for labels in ({**config["Labels"], f"org.opencontainers.image.{label}": "x"}, {}):
        problems = list(contract.configuration({**config, "Labels": labels}, own, image))
        assert any(problem.startswith(f"the label {label} is ") for problem in problems)


def wheel(name: str, version: str) -> Wheel:
    return Wheel(name, version, Artifact(f"{name}-{version}-py3-none-any.whl", 1, "0" * 64), None, False, (), "MIT")


LOCK = SetLock("train", "", "", "3.11.2", "2.36", (wheel("a", "1"), wheel("b", "2+cpu")), None)
BASE = BaseLock("", "", (Deb("libc6", "2.36", "amd64", Artifact("libc6.deb", 1, "0" * 64), (), True, "GPL"),))
INSTALLED: dict[str, Any] = {
    "distributions": [["a", "1"], ["b", "2+cpu"]],
    "debs": [["libc6", "2.36", "amd64", "install ok installed"]],
    "unmet": [],
}


def test_installed_as_locked() -> None:
    assert not list(contract.packages(INSTALLED, LOCK, BASE, ()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"distributions": [["a", "1"]]}, ["b 2+cpu is in train.lock, not in the image"]),
        ({"distributions": [["a", "1"], ["b", "2+cpu"], ["pip", "23"]]}, ["pip 23 is in the image, not in train.lock"]),
        (
            {"distributions": [["a", "1.0"], ["b", "2+cpu"]]},
            ["a 1 is in train.lock, not in the image", "a 1.0 is in the image, not in train.lock"],
        ),
        ({"distributions": [["a", "1"], ["a", "1"], ["b", "2+cpu"]]}, ["a 1 is there twice"]),
        ({"debs": []}, ["libc6 2.36 amd64 is in base.lock, not in the image"]),
        (
            {"debs": [["libc6", "2.36", "amd64", "install ok unpacked"]]},
            ["the package libc6 is 'install ok unpacked'"],
        ),
        (
            {"unmet": [["a", "b>=3", "2+cpu"], ["a", "c", ""]]},
            ["a asks for b>=3, and gets 2+cpu", "a asks for c, and gets none"],
        ),
    ],
)
def test_installed_otherwise_than_locked(change: dict[str, Any], said: list[str]) -> None:
    assert list(contract.packages({**INSTALLED, **change}, LOCK, BASE, ())) == said


def test_what_the_input_overrides_may_be_against_what_is_asked_for() -> None:
    unmet = {**INSTALLED, "unmet": [["a", "b>=3", "2+cpu"]]}
    assert not list(contract.packages(unmet, LOCK, BASE, ("B==2",)))


def add(site: Path, name: str, version: str, *needs: str) -> None:
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    needed = "".join(f"Requires-Dist: {need}\n" for need in needs)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}")


def test_what_packages_ask_for_and_do_not_get(tmp_path: Path) -> None:
    add(tmp_path, "Has_All", "1", "needy>=1", 'absent; extra == "more"', 'absent; python_version < "3"', "pre>=2")
    add(tmp_path, "needy", "1.5", "has.all>=2", "Absent[x]<3")
    add(tmp_path, "pre", "2.0rc1+cpu")
    # A pre-release of 2.0 is before 2.0.
    named, unmet = payload.installed([str(tmp_path)])
    assert named == [("has-all", "1"), ("needy", "1.5"), ("pre", "2.0rc1+cpu")]
    assert unmet == [("has-all", "pre>=2", "2.0rc1+cpu"), ("needy", "absent<3", ""), ("needy", "has-all>=2", "1")]


def test_dpkgs_own_book() -> None:
    text = (
        "Package: b\nStatus: install ok installed\nDescription: x\n more: words\nVersion: 2\nArchitecture: all\n\nPackage: a\n"
    )
    text += "Status: deinstall ok config-files\nVersion: 1:1-1\nArchitecture: amd64\n\n"
    assert payload.debs(text) == [
        ("a", "1:1-1", "amd64", "deinstall ok config-files"),
        ("b", "2", "all", "install ok installed"),
    ]


CONTENTS: dict[str, Any] = {
    **{name: [] for name in ("set_id", "world_writable", "own", "secrets", "caches", "closed", "missing", "searched")},
}


def test_sound_contents() -> None:
    found = {**CONTENTS, "set_id": ["/var/mail"], "closed": ["/root"], "world_writable": ["/var/tmp"]}
    found |= {"missing": [["/usr/lib/x.so", "libcuda.so.1", False]]}
    found["closed"].append("/opt/venv/lib/python3.11/site-packages/triton/plugins/libMLIRDialectPlugin.so.22.0")
    assert not list(contract.files(found, {"/root": [".bashrc"], "/tmp": []}))


@pytest.mark.parametrize(
    ("change", "looked", "said"),
    [
        ({"set_id": ["/usr/bin/su"]}, {}, "/usr/bin/su has a set-ID bit"),
        ({"world_writable": ["/etc/passwd"]}, {}, "/etc/passwd can be written by anybody"),
        ({"own": ["/opt/venv/x"]}, {}, "/opt/venv/x belongs to the user"),
        ({"secrets": ["/app/.netrc"]}, {}, "/app/.netrc is or holds a secret"),
        ({"caches": ["/var/log/dpkg.log"]}, {}, "/var/log/dpkg.log is left over: a cache or a log"),
        ({"closed": ["/opt/secret"]}, {}, "/opt/secret cannot be looked into"),
        ({"searched": ["/opt/lib"]}, {}, "/opt/lib is a folder that the dynamic loader searches, too"),
        ({}, {"/root": [".bashrc", ".cache/pip/x"]}, ".cache/pip/x is in /root, which should hold nothing else"),
        ({}, {"/tmp": ["build.log"]}, "build.log is in /tmp, which should hold nothing else"),
        ({"missing": [["/usr/bin/x", "liby.so.1", False]]}, {}, "/usr/bin/x needs liby.so.1, which is not in the image"),
        ({"missing": [["/usr/bin/x", "liby.so.1", True]]}, {}, "/usr/bin/x needs liby.so.1, which is elsewhere in the image"),
    ],
)
def test_contents_that_break_a_promise(change: dict[str, Any], looked: dict[str, list[str]], said: str) -> None:
    assert list(contract.files({**CONTENTS, **change}, looked)) == [said]


def placed(**changes: list[Any]) -> dict[str, Any]:
    """What contents.py says of the files of `PLAN`, with changes by path."""
    state = {
        "/opt/tool": ["folder", "0755", 10001, 10001, ""],
        "/opt/tool/run.py": ["file", "0644", 10001, 10001, "ab" * 32],
    }
    return {"placed": [[path, *rest] for path, rest in {**state, **changes}.items() if rest]}


PLAN = files_layer(
    [ImageFile("opt/tool/run.py", Path("run.py"), 1, "ab" * 32, 0o644, 10001, "tool")],
    [ImageFolder("opt/tool", 0o755, 10001, "tool")],
)


def test_sound_files_of_the_repository() -> None:
    assert not list(contract.repository_files(placed(), PLAN))
    assert not list(contract.repository_files({"placed": []}, None))
    owned = {**CONTENTS, "own": ["/opt/tool", "/opt/tool/run.py"]}
    assert not list(contract.files(owned, {}, contract.users_own(PLAN)))
    assert len(list(contract.files(owned, {}))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"/opt/tool/run.py": []}, "/opt/tool/run.py is named by [[files]], and not in the image"),
        (
            {"/opt/tool/more.py": ["file", "0644", 0, 0, "00"]},
            "/opt/tool/more.py is in the image, and not named by [[files]]",
        ),
        ({"/opt/tool/link": ["link", "0777", 0, 0, ""]}, "/opt/tool/link is in the image, and not named by [[files]]"),
        (
            {"/opt/tool/run.py": ["file", "0644", 10001, 10001, "cd" * 32]},
            "/opt/tool/run.py holds other bytes than the repository's file",
        ),
        (
            {"/opt/tool/run.py": ["file", "0755", 10001, 10001, "ab" * 32]},
            "/opt/tool/run.py is a file with mode 0755 of 10001:10001, not as [[files]] says",
        ),
        (
            {"/opt/tool": ["folder", "0755", 0, 10001, ""]},
            "/opt/tool is a folder with mode 0755 of 0:10001, not as [[files]] says",
        ),
    ],
)
def test_files_of_the_repository_that_are_not_as_stated(change: dict[str, Any], message: str) -> None:
    assert list(contract.repository_files(placed(**change), PLAN)) == [message]


def test_many_problems_are_told_on_one_line() -> None:
    assert contract.told(["a", "b"]) == "a; b"
    assert contract.told(list("abcde")) == "a; b; c; and 2 more"


def test_excuses_are_for_what_they_name_alone() -> None:
    excuses = libraries.read()
    assert not excuses.unexplained("/opt/venv/lib/python3.11/site-packages/x.libs/y.so", "libz.so", elsewhere=True)
    assert excuses.unexplained("/opt/venv/lib/python3.11/site-packages/x.libs/y.so", "libz.so", elsewhere=False)
    assert all(one.reason for one in excuses.excuses)


# --- the walk over files, on real ones


def write(path: Path, data: bytes = b"x", mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


@pytest.mark.parametrize(
    ("place", "mode", "field"),
    [
        ("/usr/bin/su", 0o4755, "set_id"),
        ("/usr/bin/wall", 0o2755, "set_id"),
        ("/etc/open", 0o666, "world_writable"),
        ("/app/.netrc", 0o600, "secrets"),
        ("/app/.docker/config.json", 0o600, "secrets"),
        ("/home/x/.ssh/id_rsa", 0o600, "secrets"),
        ("/var/lib/apt/lists/mirror_Packages", 0o644, "caches"),
        ("/var/cache/apt/archives/a.deb", 0o644, "caches"),
        ("/var/log/dpkg.log", 0o644, "caches"),
        ("/app/.cache/pip/http/x", 0o644, "caches"),
    ],
)
def test_the_walk_finds(tmp_path: Path, place: str, mode: int, field: str) -> None:
    write(tmp_path / place[1:], mode=mode)
    write(tmp_path / "app/harmless")
    found = contents.walk(str(tmp_path))
    assert getattr(found, field) == [place]
    others = {"set_id", "world_writable", "secrets", "caches", "closed", "missing"} - {field}
    assert not any(getattr(found, other) for other in others)
    assert found.files == 2


def test_the_walk_sees_folders_and_empty_files_that_tell_nothing(tmp_path: Path) -> None:
    write(tmp_path / "var/log/wtmp", b"")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o1777)
    (tmp_path / "link").symlink_to("/nowhere")
    found = contents.walk(str(tmp_path))
    assert (found.caches, found.world_writable) == ([], ["/open"])
    assert found.own == (["/open", "/var", "/var/log", "/var/log/wtmp"])


KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + b"b3BlbnNzaC1rZXktdjEAAAAABG5vbmU" * 3 + b"\n"


@pytest.mark.parametrize(
    ("place", "data", "found"),
    [
        ("/app/deploy", KEY, True),
        ("/etc/notes.txt", b"words\n" + KEY.replace(b"OPENSSH ", b""), True),
        ("/app/code.py", b'HEAD = "-----BEGIN PRIVATE KEY-----"\n', False),
        ("/usr/share/doc.md", b"-----BEGIN PRIVATE KEY-----\n...\n", False),
        ("/app/public.pem", KEY.replace(b"PRIVATE", b"PUBLIC"), False),
        # What anybody can download is nobody's secret.
        ("/opt/venv/lib/python3.11/site-packages/test.key", KEY, False),
    ],
)
def test_private_keys_are_found_by_what_they_are(tmp_path: Path, place: str, data: bytes, found: bool) -> None:
    write(tmp_path / place[1:], data)
    assert contents.walk(str(tmp_path)).secrets == ([place] if found else [])


def test_what_may_not_be_looked_into_is_said() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        write(root / "app/x", mode=0)
        write(root / "root/y")
        (root / "root").chmod(0)
        me = os.geteuid()
        try:
            if me == 0:
                # Root may look into everything.
                os.seteuid(65534)
            assert contents.walk(folder).closed == ["/app/x", "/root"]
        finally:
            os.seteuid(me)
            (root / "root").chmod(0o755)


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a program of this machine, among the libraries it needs; each library can be left out."""

    def make(without: str) -> Path:
        shown = subprocess.run(["ldd", sys.executable], capture_output=True, text=True, check=True).stdout
        lib = tmp_path / "usr/lib"
        lib.mkdir(parents=True)
        for line in shown.splitlines():
            name, _, rest = line.strip().partition(" => ")
            if rest and name != without:
                shutil.copy(rest.partition(" (")[0], lib / name)
        (tmp_path / "usr/bin").mkdir()
        shutil.copy(sys.executable, tmp_path / "usr/bin/python3")
        return tmp_path

    return make


@pytest.mark.parametrize("without", ["", "libc.so.6"])
def test_libraries_are_found_or_missed(program: Callable[[str], Path], without: str) -> None:
    root = program(without)
    done = subprocess.run([sys.executable, contents.__file__, str(root)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    missing = [[file, name, elsewhere] for file, name, elsewhere in found["missing"] if not name.startswith("ld-linux")]
    if without:
        assert ["/usr/bin/python3", "libc.so.6", False] in missing
    else:
        assert missing == []
    assert found["linked"] >= 2


def test_the_walk_tells_all_of_the_places_it_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "opt/tool/run.py", b"x", 0o755)
    (tmp_path / "opt/tool/link").symlink_to("run.py")
    write(tmp_path / "opt/toolbox/other")
    write(tmp_path / "etc/single")
    done = subprocess.run(
        [sys.executable, contents.__file__, str(tmp_path), "/opt/tool", "/etc/single"],
        capture_output=True,
        text=True,
        check=True,
    )
    digest, uid, gid = hashlib.sha256(b"x").hexdigest(), os.getuid(), os.getgid()
    assert json.loads(done.stdout)["placed"] == [
        ["/etc/single", "file", "0644", uid, gid, digest],
        ["/opt/tool", "folder", f"{(tmp_path / 'opt/tool').stat().st_mode & 0o7777:04o}", uid, gid, ""],
        ["/opt/tool/link", "link", "0777", uid, gid, ""],
        ["/opt/tool/run.py", "file", "0755", uid, gid, digest],
    ]


@pytest.mark.parametrize("data", [b"\x7fELF", b"\x7fELF" + bytes(60), b"\x7fELF\x02\x01" + b"\xff" * 200])
def test_a_broken_library_is_no_reason_to_break_down(tmp_path: Path, data: bytes) -> None:
    write(tmp_path / "lib.so", data)
    found = contents.walk(str(tmp_path))
    assert (found.files, found.linked) == (1, 0)


def test_the_role_of_an_image_does_not_change_the_rules(config: dict[str, Any], own: spec.ImageSpec, image: BuiltImage) -> None:
    other = replace(own, cmd=("vllm",))
    assert list(contract.configuration(config, other, image)) == [
        f"Cmd is {list(own.cmd)}, not ['vllm'] as its spec says",
    ]
