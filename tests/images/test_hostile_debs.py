"""Debs made to harm: refused by name of package and path before anything is unpacked."""

from __future__ import annotations

import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import LockError, PinwheelError
from lockfiles import store
from lockfiles.debian import rootfs
from lockfiles.model import BaseLock, Deb
from tests.lockfiles.conftest import artifact

pytestmark = pytest.mark.host


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"", mode: int = 0o644) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(data), mode
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def tar(*members: bytes) -> bytes:
    return b"".join(members) + bytes(1024)


def deb(data: bytes, control: str = "", name: str = "tool") -> bytes:
    """A .deb by hand (deb(5)): an ar archive of its version and two tars."""
    text = control or f"Package: {name}\nVersion: 1.0\nArchitecture: amd64\nMaintainer: a <a@example.com>\nDescription: made\n"
    parts = (
        ("debian-binary", b"2.0\n"),
        ("control.tar", tar(member("./control", data=text.encode()))),
        ("data.tar", data),
    )
    body = b"!<arch>\n"
    for part, inside in parts:
        body += f"{part:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(inside):<10}`\n".encode() + inside + b"\n" * (len(inside) % 2)
    return body


def lock_of(*files: tuple[str, bytes]) -> BaseLock:
    debs = []
    for name, data in files:
        made = artifact(f"{name}_1.0_amd64.deb", data)
        with store.adding(made) as part:
            part.write(data)
        debs.append(Deb(name, "1.0", "amd64", made))
    return BaseLock("", "2026-01-02", tuple(debs))


def refused(folder: Path, lock: BaseLock) -> PinwheelError:
    """Lay out a base of hostile debs, which must fail before mmdebstrap and leave nothing."""
    home = folder / "rootfs"
    with pytest.raises(PinwheelError) as error:
        rootfs.made(lock, home)
    assert [file.name for file in home.iterdir() if file.is_dir()] == []
    assert "mmdebstrap" not in error.value.line()
    assert error.value.line().isprintable()
    return error.value


OUTSIDE = "/tmp/pinwheel-must-not-be"
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "path_climbs_out": (lambda: deb(tar(member("./../../x"))), r"\./\.\./\.\./x leaves the root"),
    "path_absolute": (lambda: deb(tar(member("/etc/passwd"))), "/etc/passwd leaves the root"),
    "path_with_an_escape": (lambda: deb(tar(member("./x\x1b[2J"))), r"x\\x1b\[2J leaves the root"),
    "written_through_its_own_link": (
        lambda: deb(tar(member("./x", tarfile.SYMTYPE, "/etc"), member("./x/passwd", data=b"x"))),
        "x/passwd would be written through the symbolic link /x of tool",
    ),
    "file_in_place_of_its_own_link": (
        lambda: deb(tar(member("./x", tarfile.SYMTYPE, OUTSIDE), member("./x", data=b"x"))),
        "x stands twice",
    ),
    "hard_link_outside": (
        lambda: deb(tar(member("./x", tarfile.LNKTYPE, "/etc/shadow"))),
        "/etc/shadow leaves the root",
    ),
    "hard_link_climbs_out": (lambda: deb(tar(member("./x", tarfile.LNKTYPE, "./../x"))), r"\./\.\./x leaves the root"),
    "hard_link_to_what_is_not_there": (
        lambda: deb(tar(member("./x", tarfile.LNKTYPE, "./etc/shadow"))),
        "x is a hard link to './etc/shadow', which is no file of the package",
    ),
    "hard_link_to_a_link": (
        lambda: deb(tar(member("./a", tarfile.SYMTYPE, "/etc/shadow"), member("./x", tarfile.LNKTYPE, "./a"))),
        "x is a hard link to './a'",
    ),
    "character_device": (lambda: deb(tar(member("./dev/mem", tarfile.CHRTYPE))), "dev/mem is no file, folder or link"),
    "block_device": (lambda: deb(tar(member("./dev/sda", tarfile.BLKTYPE))), "dev/sda is no file, folder or link"),
    "fifo": (lambda: deb(tar(member("./run/x", tarfile.FIFOTYPE))), "run/x is no file, folder or link"),
    "goes_on_after_its_end": (
        lambda: deb(member("./a") + bytes(512) + tar(member("./../x"))),
        "data.tar goes on after its end",
    ),
    "bad_header_hides_the_rest": (
        lambda: deb(member("./a") + b"\1" * 512 + tar(member("./../x"))),
        "data.tar goes on after its end",
    ),
    "bomb": (
        lambda: deb(tar(_claims("./x", 1 << 40))),
        "x would unpack to more|cannot be read",
    ),
    "data_truncated": (lambda: deb(member("./x", data=bytes(5000))[:2000]), "data.tar cannot be read"),
    "name_of_another": (
        lambda: deb(tar(), "Package: sudo\nVersion: 1.0\nArchitecture: amd64\nMaintainer: a\nDescription: x\n"),
        "control says 'sudo 1.0 amd64', the lock tool 1.0 amd64",
    ),
    "version_of_another": (
        lambda: deb(tar(), "Package: tool\nVersion: 9\nArchitecture: amd64\nMaintainer: a\nDescription: x\n"),
        "control says 'tool 9 amd64'",
    ),
    "speaks_for_another_file": (
        lambda: deb(tar(), "Package: tool\nVersion: 1.0\nArchitecture: amd64\nFilename: ./other.deb\nMaintainer: a\n"),
        "control has a line that does not belong there: 'Filename: ./other.deb'",
    ),
    "file_truncated": (lambda: deb(tar(member("./x")))[:-700], "tool_1.0_amd64.deb"),
    "no_deb": (lambda: b"not a deb", "reading tool_1.0_amd64.deb failed"),
}


def _claims(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_deb_is_refused_by_name(own_folders: Path, name: str) -> None:
    write, says = HOSTILE[name]
    problem = refused(own_folders, lock_of(("tool", write())))
    assert "tool_1.0_amd64.deb" in problem.line()
    with pytest.raises(PinwheelError, match=says):
        raise problem


def test_a_deb_that_writes_through_anothers_link_is_refused_by_both_names(own_folders: Path) -> None:
    """Together they are what tar, run from outside the new root, follows onto this machine."""
    leads = deb(tar(member("./", tarfile.DIRTYPE), member("./opt", tarfile.SYMTYPE, str(own_folders))), name="leads")
    writes = deb(tar(member("./", tarfile.DIRTYPE), member("./opt/x", data=b"outside")), name="writes")
    problem = refused(own_folders, lock_of(("leads", leads), ("writes", writes)))
    assert "writes_1.0_amd64.deb: opt/x would be written through the symbolic link /opt of leads" in problem.line()
    assert not (own_folders / "x").exists()


def test_a_deb_other_than_the_locked_one_is_refused(own_folders: Path) -> None:
    lock = lock_of(("tool", deb(tar(member("./x")))))
    file = store.path(lock.debs[0].artifact)
    file.chmod(0o644)
    file.write_bytes(deb(tar(member("./y"))))
    problem = refused(own_folders, lock)
    assert isinstance(problem, LockError)
    assert "tool_1.0_amd64.deb: the store's bytes are sha256" in problem.line()


def test_no_file_keeps_the_right_to_become_another_user(tmp_path: Path) -> None:
    """Debian's su has it; the hook that takes it away is run here as mmdebstrap runs it."""
    for name, mode in (("su", 0o4755), ("passwd", 0o2755), ("plain", 0o755)):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(mode)
    for hook in rootfs._HOOKS:
        subprocess.run(["sh", "-c", hook, "sh", str(tmp_path)], check=True, capture_output=True)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o755}
