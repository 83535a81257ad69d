"""Where the processor time of `invoke build` goes, by kind of work.

Every Python process of the build is watched: a module that Python imports at its start (`sitecustomize`) puts a profiler into
each thread. It counts time by function; functions that wait or read are left out, so that what remains is work. What the
interpreter uses that compiles bytecode is the kernel's account. Watching costs time itself, most of it where functions are
short: shares are what is read from it, not seconds.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

from bench.images.contenders import Product
from common.errors import BuildError

# Dumped when a process ends: a worker of multiprocessing ends without atexit, but runs its finalizers.
_HOOK = """
import atexit, cProfile, json, multiprocessing.util, os, resource, threading
_profiles = []
def _watch(*_):
    one = cProfile.Profile()
    _profiles.append(one)
    one.enable()
def _dump():
    found = {}
    for one in _profiles:
        try:
            one.disable()
        except ValueError:
            pass
        for entry in one.getstats():
            code = entry.code
            name = code if isinstance(code, str) else f"{code.co_filename}:{code.co_name}"
            found[name] = found.get(name, 0) + entry.inlinetime
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    body = {"children": children.ru_utime + children.ru_stime, "worker": bool(multiprocessing.process.parent_process())}
    with open(os.path.join(os.environ["PINWHEEL_BENCH_PROFILE"], f"{os.getpid()}.json"), "w") as file:
        json.dump({**body, "functions": found}, file)
_done = []
def _once():
    if not _done:
        _done.append(True)
        _dump()
threading.setprofile(_watch)
_watch()
atexit.register(_once)
multiprocessing.util.Finalize(None, _once, exitpriority=100)
"""
_WAITING = "waiting"
# What a function's name says of its work; the first that fits.
_KINDS = (
    ("zstd", ("zstd", "zstandard")),
    ("sha256", ("HASH", "openssl_sha256", "file_digest")),
    ("inflate", ("isal", "zlib", "Decompress")),
    (_WAITING, ("acquire", "poll", "select", "'wait", "waitpid", "'read", "recv", "sleep", "flock")),
    ("files", ("posix.", "_io.", "fsync", "'write")),
)


def shares(product: Product, folder: Path) -> dict[str, float]:
    """Build once more, watched; the share of each kind of work in the processor time, the largest first.

    Raises:
        BuildError: the build fails, or no process told anything.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_HOOK)
    product.reset()
    product.build(PYTHONPATH=str(folder), PINWHEEL_BENCH_PROFILE=str(folder))
    spent: Counter[str] = Counter()
    for file in folder.glob("*.json"):
        try:
            body = json.loads(file.read_text())
        except ValueError:
            # A worker that was ended while it wrote.
            continue
        for name, seconds in body["functions"].items():
            spent[kind(name)] += seconds
        if body["worker"]:
            spent["bytecode, by the image's interpreter"] += body["children"]
    del spent[_WAITING]
    total = sum(spent.values())
    if not total:
        raise BuildError("no process of the build told where its time went", where=str(folder))
    return {name: seconds / total for name, seconds in spent.most_common()}


def kind(function: str) -> str:
    """The kind of work that a function does."""
    return next((name for name, marks in _KINDS if any(mark in function for mark in marks)), "Python: tar, RECORD, start")
