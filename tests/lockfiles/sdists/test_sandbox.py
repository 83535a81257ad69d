"""What a package's own code may not do while its wheel is built."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.errors import BuildError, MissingEnvironmentError
from common.run import Result
from lockfiles.sdists import cell, sandbox

# The room's `/usr` and `/etc` are this machine's own here: what holds in it does not depend on the base.
MACHINE = Path("/")
PYTHON = "/usr/bin/python3"
LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"


def attempt(folder: Path, code: str) -> str:
    """Run code in a room; returns what it wrote to `/out/said`."""
    given = folder / "given"
    given.mkdir(exist_ok=True)
    result = folder / "result"
    name = sandbox.run_in(MACHINE, given, [PYTHON, "-c", code], result, what="trying")
    text = result.read_text()
    result.unlink()
    return f"{name}: {text}"


def refused(folder: Path, attack: str) -> str:
    """Try what must fail in the room; returns the error that it met there."""
    indented = "".join(f"    {line}\n" for line in attack.splitlines())
    code = f"{LIBC}try:\n{indented}    said = 'it worked'\nexcept Exception as e:\n    said = repr(e)\n"
    code += "open('/out/said', 'w').write(said)\n"
    return attempt(folder, code).removeprefix("said: ")


@pytest.mark.host
@pytest.mark.parametrize(
    "attack",
    [
        pytest.param("os.chroot('/tmp')", id="chroot"),
        pytest.param("assert libc.mount(b'/usr', b'/tmp', None, 4096, None) == 0", id="bind mount"),
        pytest.param("assert libc.mount(b'tmpfs', b'/usr', b'tmpfs', 0, None) == 0", id="mount over /usr"),
        pytest.param("assert libc.mount(None, b'/usr', None, 4096 | 32, None) == 0", id="make /usr writable"),
        pytest.param("assert libc.umount2(b'/proc', 2) == 0", id="unmount"),
        pytest.param("assert libc.unshare(0x10000000) == 0", id="a user namespace with all capabilities"),
        pytest.param("assert libc.unshare(0x00020000) == 0", id="a mount namespace"),
        pytest.param("assert libc.setns(os.open('/proc/1/ns/mnt', os.O_RDONLY), 0) == 0", id="another's namespace"),
        pytest.param("os.mknod('/tmp/disk', 0o60666, os.makedev(254, 0))", id="device node"),
        pytest.param("open('/proc/1/root/etc/hostname').read()", id="/proc/1/root"),
        pytest.param("os.listdir('/proc/1/fd')", id="/proc/1/fd"),
        pytest.param("open('/proc/1/mem', 'wb')", id="/proc/1/mem"),
        pytest.param("assert libc.ptrace(16, 1, None, None) == 0", id="ptrace of process 1"),
        pytest.param("os.kill(1, 9) or os.stat('/nonexistent')", id="kill process 1"),
        pytest.param("os.setuid(0)", id="root"),
        pytest.param("open('/usr/bin/evil', 'w')", id="write into the base"),
        pytest.param("open('/given/evil', 'w')", id="write into what is given"),
        pytest.param("open('/etc/passwd', 'a')", id="write into /etc"),
        pytest.param("open('/proc/sys/kernel/core_pattern', 'w').write('|/evil')", id="core_pattern"),
        pytest.param("open('/proc/sysrq-trigger', 'w').write('c')", id="sysrq"),
        pytest.param("open('/proc/sys/user/max_user_namespaces', 'w').write('9')", id="allow itself namespaces"),
        pytest.param("import socket\nsocket.socketpair()\nsocket.create_connection(('127.0.0.1', {port}), 2)", id="loopback"),
        pytest.param("import socket\nsocket.create_connection(('192.0.2.1', 80), 2)", id="network"),
        pytest.param("import socket\nsocket.gethostbyname('example.com')", id="name service"),
        pytest.param("import socket\nsocket.sethostname('evil')", id="hostname"),
        pytest.param("open('{secret}').read()", id="a file of this machine"),
        pytest.param("os.kill({pid}, 9)", id="kill a process of this machine"),
    ],
)
def test_a_build_cannot(attack: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as server:
        met = refused(tmp_path, attack.format(port=server.getsockname()[1], secret=secret, pid=os.getpid()))
    assert met.partition("(")[0].endswith(("Error", "gaierror")), met


@pytest.mark.host
def test_a_build_sees_no_process_name_or_secret_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    code = "import os\nopen('/out/said', 'w').write(' '.join([*os.environ.values(), os.uname().nodename, *os.listdir('/'),"
    said = attempt(tmp_path, f"{code} *[p for p in os.listdir('/proc') if p.isdigit()], *map(str, os.getgroups())]))")
    assert "hunter2" not in said
    assert os.uname().nodename not in said.split()
    assert not {str(os.getpid()), "root", "home/root", "var"} & set(said.split())
    assert {"1", "2"} >= {word for word in said.split() if word.isdigit() and word not in ("0", "1686355200", "65534")}


@pytest.mark.host
@pytest.mark.parametrize(
    "user", [pytest.param(None, id="root or whoever runs this"), pytest.param(1234, id="an ordinary user")]
)
def test_who_builds_is_nobody_without_any_capability(user: int | None, tmp_path: Path) -> None:
    if user and os.geteuid():
        pytest.skip("only root may become somebody else")
    given = tmp_path / "given"
    given.mkdir()
    code = "import os\nopen('/out/said', 'w').write(str(os.getresuid()) + open('/proc/self/status').read())"
    orders = (
        '{"tree": "/", "given": "%s", "argv": ["/usr/bin/python3", "-c", %s], "env": {}, "result": "%s", "seconds": 60, '
        '"memory": 1000000000, "disk": 100000000, "files": 1000, "processes": 20}'
    )
    text = orders % (given, f'"{code}"'.replace("\n", "\\n"), tmp_path / "result")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o777)
    copy = tmp_path / "cell.py"
    copy.write_bytes(Path(cell.__file__).read_bytes())
    argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    done = subprocess.run([*argv, PYTHON, "-I", "-S", copy, text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "result").read_text()
    assert said.startswith("(65534, 65534, 65534)")
    for line in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{line}:\t0000000000000000" in said
    assert "NoNewPrivs:\t1" in said


@pytest.mark.host
@pytest.mark.parametrize(
    ("setting", "value", "attack"),
    [
        pytest.param("PROCESSES", 30, "import os\nwhile True: os.fork()", id="fork bomb"),
        pytest.param("MEMORY", 200 << 20, "x = bytearray(400 << 20)", id="memory"),
        pytest.param("DISK", 20 << 20, "open('/tmp/full', 'wb').write(bytes(40 << 20))", id="one large file"),
        pytest.param("DISK", 20 << 20, "for n in range(40): open(f'/tmp/{n}', 'wb').write(bytes(1 << 20))", id="many files"),
        pytest.param("DISK", 20 << 20, "while True: print('x' * 1000)", id="endless output"),
        pytest.param("FILES", 100, "for n in range(200): open(f'/tmp/{n}', 'w')", id="empty files"),
    ],
)
def test_a_build_that_takes_too_much_ends_and_the_limits_are_said(
    setting: str, value: int, attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, setting, value)
    monkeypatch.setattr(sandbox, "SECONDS", 20)
    with pytest.raises(BuildError, match="trying .*a build may take 120 minutes, 16 GiB of memory"):
        attempt(tmp_path, attack)


@pytest.mark.host
def test_a_build_that_never_ends_is_ended_with_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    start = "import os, time\nfor _ in range(5):\n    if os.fork() == 0: os.setsid(); time.sleep(3600)\ntime.sleep(3600)"
    with pytest.raises(BuildError, match="it took longer than 1 s"):
        attempt(tmp_path, start + f"  # {tmp_path.name}")
    assert not _running(tmp_path.name)


@pytest.mark.host
def test_a_room_ends_with_the_process_that_asked_for_it(tmp_path: Path) -> None:
    code = f"import time; time.sleep(3600)  # {tmp_path.name}"
    script = (
        "import sys; from pathlib import Path; from lockfiles.sdists import sandbox; here = Path(sys.argv[1])\n"
        "sandbox.run_in(Path('/'), here, ['/usr/bin/python3', '-c', sys.argv[2]], here / 'r', what='x')"
    )
    asker = subprocess.Popen([sys.executable, "-c", script, tmp_path, code], start_new_session=True)
    _until(lambda: len(_running(code)) >= 4)
    room = [pid for pid in _running(code) if b"cell.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(min(room), 9)
    _until(lambda: not [pid for pid in _running(code) if pid != asker.pid])
    asker.wait()


@pytest.mark.host
def test_what_a_build_leaves_running_cannot_change_what_it_made(tmp_path: Path) -> None:
    code = (
        "import os, time\nopen('/out/said', 'w').write('x' * 50_000_000)\nif os.fork() == 0:\n    os.setsid()\n"
        f"    while True:\n        os.truncate('/out/said', 50_000_000)\n        os.truncate('/out/said', 0)  # {tmp_path.name}"
    )
    said = attempt(tmp_path, code)
    assert len(said) in (len("said: "), len("said: ") + 50_000_000)
    assert not _running(tmp_path.name)


@pytest.mark.host
@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("import os; os.symlink('/etc/passwd', '/out/a.whl')", "its file cannot be read: .*Too many levels of symbolic links"),
        ("import os; os.mkfifo('/out/a.whl')", "a.whl is no file"),
        ("import os; os.mkdir('/out/a.whl')", "a.whl is no file"),
        ("pass", "it made 0 files where one is expected"),
        ("open('/out/a', 'w'); open('/out/b', 'w')", "it made 2 files where one is expected"),
        ("import os; os.rmdir('/out'); os.symlink('/etc', '/out')", "files where one is expected"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("raise SystemExit('broken')", "broken"),
    ],
)
def test_only_one_plain_file_comes_out_of_a_room(left: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=f"trying failed .*{said}"):
        attempt(tmp_path, left)


def test_a_machine_without_namespaces_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = Result(cell.NO_ROOM, "", "enter: [Errno 1] unshare: Operation not permitted\n")
    monkeypatch.setattr(sandbox, "run", lambda *_, **__: done)
    with pytest.raises(MissingEnvironmentError, match=r"^trying needs namespaces .* \(enter: .*not permitted\): allow user"):
        attempt(tmp_path, "pass")


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("OSError: CUDA_HOME environment variable is not set.", r"needs CUDA's compiler \(nvcc\).*take a ready wheel"),
        ("/bin/sh: 1: nvcc: not found", r"needs CUDA's compiler \(nvcc\).*take a ready wheel"),
        ("ModuleNotFoundError: No module named 'torch'", r"its build needs torch: state all that it needs, `build = "),
        ("urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>", "a build has no network"),
        ("ModuleNotFoundError: No module named 'pkg_resources'", r'`build = \["setuptools<81"\]`'),
        ("a broken or hostile archive: '../x' leads outside", "take another version, or a ready wheel"),
        ("License :: OSI Approved :: Apache Software License", "the package's own build failed"),
    ],
)
def test_a_failed_build_says_what_is_missing(said: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "run", lambda *_, **__: Result(1, "", f"Traceback\n{said}\n"))
    with pytest.raises(BuildError, match=advice) as error:
        attempt(tmp_path, "pass")
    assert "\n" not in error.value.line()


def _running(text: str) -> list[int]:
    """The processes of this machine whose command line holds a text."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and int(folder.name) != os.getpid() and text.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _until(holds: object) -> None:
    for _ in range(200):
        if holds():  # type: ignore[operator]
            return
        time.sleep(0.05)
    pytest.fail("it did not come about")
