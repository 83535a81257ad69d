"""Runs in an image, by its own interpreter: imports every submodule of packages and says which cannot be imported, and why.

Usage: `python -c <this file> PACKAGE…`. Prints one JSON object: module → [exception's type, message].

Modules are found as `pkgutil.walk_packages` finds them. They are imported in as many processes as there are cores, each forked
after the package itself was imported; one that dies is followed by another, which goes on after the module that killed it.
`__main__` modules are programs and left out.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import signal
import sys
import warnings
from collections.abc import Iterator
from importlib.machinery import FileFinder
from typing import NoReturn

_SECONDS = 120


def submodules(name: str, paths: list[str]) -> Iterator[str]:
    """The names of all modules below a package."""
    for found in pkgutil.iter_modules(paths):
        if found.name == "__main__":
            continue
        full = f"{name}.{found.name}"
        yield full
        if found.ispkg and isinstance(found.module_finder, FileFinder):
            yield from submodules(full, [f"{found.module_finder.path}/{found.name}"])


def attempt(name: str) -> list[str] | None:
    """Import a module; what went wrong, or nothing."""
    signal.alarm(_SECONDS)
    try:
        importlib.import_module(name)
    except BaseException as problem:  # noqa: BLE001 - a module may raise anything, SystemExit too
        return [type(problem).__name__, str(problem)]
    finally:
        signal.alarm(0)
    return None


def work(names: list[str], pipe: int) -> NoReturn:
    """Import modules one after the other in a forked process; each is announced, then its outcome told."""
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    with os.fdopen(pipe, "w") as out:
        for name in names:
            print(json.dumps([name]), file=out, flush=True)
            print(json.dumps([name, attempt(name)]), file=out, flush=True)
    os._exit(0)


def tell(names: list[str]) -> Iterator[tuple[str, list[str] | None]]:
    """Import modules in a forked process, and in another what is left when it dies; yields (module, what went wrong)."""
    while names:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            work(names, writer)
        os.close(writer)
        begun = ""
        with os.fdopen(reader) as lines:
            for line in lines:
                begun, *outcome = json.loads(line)
                if outcome:
                    yield begun, outcome[0]
        status = os.waitpid(child, 0)[1]
        if not status:
            return
        yield begun, ["Died", f"by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"with code {status >> 8}"]
        names = names[names.index(begun) + 1 :]


def main(packages: list[str]) -> None:
    """Import all and print what failed."""
    sys.path.insert(0, "")
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    failures: dict[str, list[str]] = {}
    count = 0
    for package in packages:
        names = sorted(submodules(package, list(importlib.import_module(package).__path__)))
        count += len(names)
        helpers = []
        cores = len(os.sched_getaffinity(0))
        for number in range(cores):
            reader, writer = os.pipe()
            if os.fork() == 0:
                os.close(reader)
                with os.fdopen(writer, "w") as out, contextlib.redirect_stdout(None):
                    json.dump(dict(tell(names[number::cores])), out)
                os._exit(0)
            os.close(writer)
            helpers.append(os.fdopen(reader))
        for helper in helpers:
            with helper:
                failures |= {name: problem for name, problem in json.load(helper).items() if problem}
        while helpers:
            os.wait()
            helpers.pop()
    print(json.dumps({"imported": count - len(failures), "failures": failures}, sort_keys=True))


if __name__ == "__main__":
    main(sys.argv[1:])
