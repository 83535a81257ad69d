"""A program of its own: runs one command in a closed room, and hands back the one file that the command leaves in `/out`.

Started by sandbox.py with its orders as JSON; only the standard library, and Linux on x86-64. The command gets user, mount,
pid, ipc, network, uts and cgroup namespaces of its own; a root of fixed size in memory (pivot_root) with the base's
`/usr` and `/etc`, read-only; no capability, no_new_privs, no further user namespaces; limits. It is nobody, whoever starts
it, root too.

Four processes: this one writes the id maps; `_enter` makes the namespaces; `_reign` is process 1 in them, whose end ends all
others; the last is the command. Exit codes: 0, 1 (the command failed), and those below.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

# The room cannot be made; the command took too long.
NO_ROOM, TOO_LONG = 125, 124
NOBODY = 65534
# unshare(2): mount, cgroup, uts, ipc, user, pid and network namespaces.
_SPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
# mount(2)
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
# Flags that a mount keeps: a namespace of less rights may not take them away (mount_namespaces(7)).
_KEPT = _RDONLY | _NOSUID | _NODEV | _NOEXEC | 1024 | 2048
_DETACH = 2
# prctl(2)
_DEATH_SIGNAL, _DUMPABLE, _DROP_BOUND, _NO_NEW_PRIVILEGES = 1, 4, 24, 38
_CAPABILITY_VERSION = 0x20080522
_DEVICES = ("null", "zero", "full", "random", "urandom")
_CHUNK = 1 << 20
_SHOWN = 20_000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Orders:
    """What is to be done.

    Attributes:
        tree: the base's root file system.
        given: a folder of this machine that the command sees read-only as `/given`.
        argv, env: the command, and all of its environment.
        result: where its file is written to; there is none yet.
        seconds: of wall clock, and of processor time for each process.
        memory, disk: bytes of address space for each process, and of everything it writes.
        files, processes: how many there may be.
    """

    tree: str
    given: str
    argv: list[str]
    env: dict[str, str]
    result: str
    seconds: int
    memory: int
    disk: int
    files: int
    processes: int


def main() -> int:
    """Start the command and wait for it; returns the exit code."""
    orders = Orders(**json.loads(sys.argv[1]))
    # Where memory runs out, this goes first.
    _write("/proc/self/oom_score_adj", "1000")
    result = os.open(orders.result, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    ready, mapped = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(mapped[1])
        _ends(_enter, orders, result, ready[1], mapped[0])
    os.close(ready[1])
    if os.read(ready[0], 1):
        try:
            _map(child)
            os.write(mapped[1], b"x")
        except OSError as problem:
            print(f"the ids of a user namespace: {problem.strerror}", file=sys.stderr)
            os.close(mapped[1])
            os.waitpid(child, 0)
            return NO_ROOM
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _map(child: int) -> None:
    """Make whoever starts this nobody in there. root becomes nobody out here, too: as root it would own the machine's files."""
    user, group = (NOBODY, NOBODY) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    if os.geteuid():
        _write(f"/proc/{child}/setgroups", "deny")
    _write(f"/proc/{child}/gid_map", f"{NOBODY} {group} 1")
    _write(f"/proc/{child}/uid_map", f"{NOBODY} {user} 1")


def _enter(orders: Orders, result: int, ready: int, mapped: int) -> int:
    if os.geteuid() == 0:
        os.setgroups([])
    _call("unshare", _SPACES)
    _call("prctl", _DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    os.write(ready, b"x")
    if not os.read(mapped, 1):
        return NO_ROOM
    first = os.fork()
    if first == 0:
        os.close(ready)
        os.close(mapped)
        _ends(_reign, orders, result)
    return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])


def _reign(orders: Orders, result: int) -> int:
    _furnish(orders)
    _renounce()
    log = os.open("/tmp", os.O_TMPFILE | os.O_RDWR | os.O_APPEND, 0o600)  # noqa: S108 - the room's own
    _limit(resource.RLIMIT_FSIZE, orders.disk)
    command = os.fork()
    if command == 0:
        _ends(_run, orders, log)
    state = _wait(command, orders.seconds)
    # Whatever it left running must not change what is read now.
    _quietly_kill_all()
    sys.stderr.write(_tail(log))
    if state == TOO_LONG:
        print(f"it took longer than {orders.seconds} s", file=sys.stderr)
        return TOO_LONG
    if state:
        if state < 0:
            print(f"killed by {signal.Signals(-state).name}", file=sys.stderr)
        # There was no place for its own last words then.
        if not (os.statvfs("/").f_bfree and os.statvfs("/").f_ffree):
            print("No space left on device", file=sys.stderr)
        return 1
    try:
        return _hand_over(result)
    except OSError as problem:
        print(f"its file cannot be read: {problem}", file=sys.stderr)
        return 1


def _furnish(orders: Orders) -> None:
    """Make the new root, and move into it."""
    _call("mount", None, b"/", None, _REC | _PRIVATE, None)
    tree, given = os.open(orders.tree, os.O_PATH), os.open(orders.given, os.O_PATH)
    place = f"{orders.tree}/mnt"
    rights = f"mode=755,uid={NOBODY},gid={NOBODY},size={orders.disk},nr_inodes={orders.files}"
    _call("mount", b"tmpfs", place.encode(), b"tmpfs", _NOSUID | _NODEV, rights.encode())
    os.chdir(place)
    # From here on as nobody, who owns the tmpfs; it still has all capabilities over the room.
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    for name in ("usr", "etc", "bin", "sbin", "lib", "lib64"):
        source = Path(f"/proc/self/fd/{tree}/{name}")
        if source.is_symlink():
            Path(name).symlink_to(source.readlink())
        else:
            Path(name).mkdir()
            _bind(str(source), name, _RDONLY | _NOSUID | _NODEV)
    for name in ("dev", "given", "home", "out", "proc", "source", "tmp"):
        Path(name).mkdir()
    _bind(f"/proc/self/fd/{given}", "given", _RDONLY | _NOSUID | _NODEV)
    for name in _DEVICES:
        os.close(os.open(f"dev/{name}", os.O_CREAT, 0o600))
        _bind(f"/dev/{name}", f"dev/{name}", _NOSUID | _NOEXEC)
    Path("dev/shm").symlink_to("/tmp")  # noqa: S108 - the room's own
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        Path(f"dev/{name}").symlink_to(f"/proc/self/fd{target}")
    _call("mount", b"proc", b"proc", b"proc", _NOSUID | _NODEV | _NOEXEC, None)
    os.close(tree)
    os.close(given)
    # No room within the room: whoever makes a user namespace has all capabilities in it.
    _write("proc/sys/user/max_user_namespaces", "0")
    socket.sethostname("pinwheel")
    _call("pivot_root", b".", b".")
    _call("umount2", b".", _DETACH)
    os.chdir("/")


def _bind(source: str, target: str, flags: int) -> None:
    _call("mount", source.encode(), target.encode(), None, _BIND | _REC, None)
    kept = os.statvfs(target).f_flag & _KEPT
    _call("mount", None, target.encode(), None, _BIND | _REMOUNT | flags | kept, None)


def _renounce() -> None:
    """Give up all capabilities, for good."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        _call("prctl", _DROP_BOUND, capability, 0, 0, 0)
    _call("capset", (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)())
    _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _call("prctl", _DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    # Process 1 is of the same user as the command, which may not look into it.
    _call("prctl", _DUMPABLE, 0, 0, 0, 0)


def _run(orders: Orders, log: int) -> int:
    os.setsid()
    os.umask(0o022)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    _limit(resource.RLIMIT_CPU, orders.seconds)
    _limit(resource.RLIMIT_AS, orders.memory)
    _limit(resource.RLIMIT_NPROC, orders.processes)
    _limit(resource.RLIMIT_CORE, 0)
    # Python ignores these, and programs that it starts would, too.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execve(orders.argv[0], orders.argv, orders.env)  # noqa: S606


def _limit(kind: int, most: int) -> None:
    """Set a limit; nobody may raise one that this machine has set lower already."""
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _wait(command: int, seconds: int) -> int:
    """The command's exit code, negative for a signal; everybody else who ends here is only buried."""

    def late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        while True:
            ended, status = os.wait()
            if ended == command:
                signal.alarm(0)
                return os.waitstatus_to_exitcode(status)
    except TimeoutError:
        return TOO_LONG


def _quietly_kill_all() -> None:
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.wait()
    except (ProcessLookupError, ChildProcessError):
        pass


def _tail(log: int) -> str:
    size = os.fstat(log).st_size
    return os.pread(log, _SHOWN, max(0, size - _SHOWN)).decode(errors="replace")


def _hand_over(result: int) -> int:
    """Copy the one file of `/out` to the outside, and print its name."""
    names = [path.name for path in Path("/out").iterdir()]
    if len(names) != 1:
        print(f"it made {len(names)} files where one is expected", file=sys.stderr)
        return 1
    # What is no file is not waited for, and no link is followed.
    made = os.open(f"/out/{names[0]}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(made).st_mode):
        print(f"{names[0]} is no file", file=sys.stderr)
        return 1
    while chunk := os.read(made, _CHUNK):
        while chunk:
            chunk = chunk[os.write(result, chunk) :]
    print(json.dumps(names[0]))
    sys.stdout.flush()
    return 0


def _ends(step: object, *arguments: object) -> None:
    """Do a step in this process, and end it; whatever fails before the command runs, fails for want of a room."""
    code = NO_ROOM
    try:
        code = step(*arguments)  # type: ignore[operator]
    except OSError as problem:
        print(f"{step.__name__.strip('_')}: {problem}", file=sys.stderr)  # type: ignore[attr-defined]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _call(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _write(file: str, text: str) -> None:
    with open(file, "w") as opened:
        opened.write(text)


if __name__ == "__main__":
    sys.exit(main())
