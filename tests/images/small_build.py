"""`invoke build` of a small set, in a process of its own: `python -m tests.images.small_build FOLDER [arguments of build]`.

All of it runs but for what needs a network or takes minutes: the set is the wheels in FOLDER instead of a lock's, and the base
is FOLDER's tar. Where it writes is said by the settings, as ever.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from invoke.collection import Collection
from invoke.program import Program

from lockfiles import check, fetching, lockfile
from lockfiles.debian import rootfs
from lockfiles.debian.rootfs import Rootfs
from lockfiles.model import SetLock
from tests.images.wheels.wheels import make, stored

_ABOUT = "llamafactory"


def prepare(folder: Path, root: Rootfs) -> None:
    """Write what a small build is made of into a folder."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    module = b"'''Doc.'''\nx = {'a', 'b', 'c'}\ndef f(y):\n    return y in {'p', 'q'}, (1, 2), 'p'\n" * 40
    for name in (_ABOUT, *(f"small{number}" for number in range(8))):
        make(wheels, {f"{name}/__init__.py": module}, name=name, entry_points=f"[console_scripts]\n{name} = {name}:x\n")
    long = "/".join(f"folder-number-{number:03d}" for number in range(14))
    awkward = {
        "awkward/__init__.py": b"",
        "awkward/old.py": b"print 'no Python 3'\n",
        "awkward/empty": b"",
        "awkward/grüße-漢字-é.py": "x = 'ü'\n".encode(),
        f"awkward/{long}/module.py": module,
        "awkward/__pycache__/old.cpython-310.pyc": b"of another Python",
        "awkward/run.sh": b"#!/bin/sh\n",
        "space/inner/part.py": module,
        "awkward-1.0.data/scripts/tool": b"#!python\nprint(1)\n",
        "awkward-1.0.data/headers/awkward.h": b"int x;\n",
        "awkward-1.0.data/data/share/awkward/data.txt": b"data\n",
        "awkward-1.0.data/platlib/awkward/native.so": bytes(range(256)) * 64,
    }
    make(wheels, awkward, name="awkward", executable=("awkward/run.sh",))
    # One that is big enough for a layer of its own, and does not compress away.
    make(wheels, {"big/noise.bin": random.Random(1).randbytes(9_000_000), "big/__init__.py": module}, name="big")
    body = {"tar": str(root.tar), "tree": str(root.tree), "digest": root.digest}
    (folder / "base.json").write_text(json.dumps(body))


def main(folder: Path, arguments: list[str]) -> None:
    """Run it; ends the process."""
    # Not at the top: the processes that make layers read this module, too, and need none of it.
    import tasks

    body = json.loads((folder / "base.json").read_text())
    root = Rootfs(Path(body["tar"]), Path(body["tree"]), body["digest"])
    wheels = sorted((stored(file) for file in (folder / "wheels").iterdir()), key=lambda wheel: wheel.name)
    small = SetLock("small", "sha256:0", "2026-01-02", "3.11.2", "2.36", tuple(wheels))
    check.check = lambda: ""
    fetching.fetch = lambda names: None
    lockfile.read_set = lambda set_name: small
    rootfs.made = lambda lock, home=None: root
    Program(namespace=Collection.from_module(tasks)).run(["invoke", "build", "--image", "train", *arguments])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
