"""What every image promises, as rules over what was found of it; each rule names what breaks it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from images import libraries
from images.config import BASE
from images.plan import LayerPlan
from images.receipt import BuiltImage
from images.spec import ImageSpec
from images.wheels.install import SITE
from lockfiles.model import BaseLock, SetLock

# Folders that Debian makes so (policy 10.9; base-files): new files in them get the folder's group. No program is among them.
_SET_ID = frozenset({"/var/local", "/var/mail"})
# For everybody, and each file there for its owner alone (the sticky bit is Debian's).
_WORLD_WRITABLE = frozenset({"/run/lock", "/var/tmp"})  # noqa: S108 - in the image
# What root alone may look into, and what is mounted over when a container runs; the engine shows what is in there.
CLOSED = frozenset(
    {
        *("/etc/ssl/private", "/root", "/var/cache/apt/archives/partial", "/var/cache/ldconfig"),
        *("/var/lib/apt/lists/partial", "/tmp", "/workspace"),  # noqa: S108 - in the image
    }
)
# Triton's wheel keeps these from all but their owner: a plugin for MLIR's own tools, which nothing here loads.
_FOR_ROOT = f"/{SITE}/triton/plugins/libMLIRDialectPlugin.so"
# What Debian puts there (base-files).
_MAY_BE = {"/root": {".bashrc", ".profile"}}
_SECRET = re.compile(r"(?:^|_)(?:TOKEN|PASSWORD|PASSWD|SECRET|KEY|CREDENTIALS)$", re.IGNORECASE)
_WITH_PASSWORD = re.compile(r"://[^/@\s]+:[^/@\s]+@")
_LABEL = "org.opencontainers.image."
_SOME = 3


def system(result: Mapping[str, Any]) -> Iterator[str]:
    """The system, the interpreter, the user, and what a container of the image may do."""
    expected: dict[str, tuple[object, str]] = {
        "os": ("debian 12", "the system"),
        "python": ("3.11.2", "Python"),
        "prefix": ("/opt/venv", "the prefix of python"),
        "interfaces": (["lo"], "the network interfaces"),
        # The workspace is a fresh volume, which takes its owner from the image.
        "writable": (["/tmp", "/workspace"], "what is writable"),  # noqa: S108 - inside the container
        "no_new_privileges": ("1", "no_new_privs"),
    }
    for name, (value, what) in expected.items():
        if result[name] != value:
            yield f"{what}: {result[name]}, not {value}"
    if not result["uid"] or not result["gid"] or 0 in result["groups"]:
        yield f"it runs as user {result['uid']}, group {result['gid']}, groups {result['groups']}: root's"
    if int(result["capabilities"], 16):
        yield f"it can gain capabilities {result['capabilities']}"


def programs(result: Mapping[str, Any], spec: ImageSpec) -> Iterator[str]:
    """What starts when nothing is asked for is in the image: `entrypoint` and `cmd` of its spec."""
    for key, argv in (("entrypoint", spec.entrypoint), ("cmd", spec.cmd)):
        if argv and not result["programs"].get(argv[0]):
            yield f"{argv[0]}, the program of `{key}`, is not in the image, or cannot be run by its user"


def configuration(config: Mapping[str, Any], spec: ImageSpec, image: BuiltImage) -> Iterator[str]:
    """User, command, environment and labels are what the image's spec says, in the engine's own words."""
    expected: dict[str, object] = {
        "User": f"{spec.uid}:{spec.uid}",
        "WorkingDir": spec.workdir,
        "Cmd": list(spec.cmd),
        "Entrypoint": list(spec.entrypoint),
        "ExposedPorts": {f"{port}/tcp": {} for port in spec.ports} or None,
        "StopSignal": "SIGTERM",
        "Volumes": None,
    }
    for name, value in expected.items():
        if (config.get(name) or None) != (value or None):
            yield f"{name} is {config.get(name)}, not {value} as its spec says"
    env = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
    variables = dict(spec.env)
    for name in sorted(env.keys() | variables.keys()):
        if (_SECRET.search(name) and env.get(name)) or _WITH_PASSWORD.search(env.get(name) or ""):
            # It is in the image; it need not be in the receipt, too.
            yield f"the variable {name} holds a secret"
        elif env.get(name) != variables.get(name):
            yield f"the variable {name} is {env.get(name)!r}, not {variables.get(name)!r} as its spec says"
    labels = config.get("Labels") or {}
    stated = {"title": spec.title, "description": spec.description, "licenses": spec.licenses, "source": spec.source}
    stated |= {"vendor": spec.vendor, "version": image.version, "base.name": BASE}
    for name, text in stated.items():
        if labels.get(_LABEL + name) != text:
            yield f"the label {name} is {labels.get(_LABEL + name)!r}, not {text!r}"
    shapes = {
        "revision": r"sha256:[0-9a-f]{64}",
        "base.digest": r"sha256:[0-9a-f]{64}",
        "created": r"\d{4}-\d\d-\d\dT00:00:00Z",
    }
    for name, shape in shapes.items():
        if not re.fullmatch(shape, labels.get(_LABEL + name) or ""):
            yield f"the label {name} is {labels.get(_LABEL + name)!r}"


def packages(result: Mapping[str, Any], held: SetLock, base: BaseLock, overrides: Sequence[str]) -> Iterator[str]:
    """What is installed is what is locked, both ways; and every package gets what it asks for.

    Args:
        result: by payload/contract.py.
        held: the lock of the image's set.
        base: the lock of the base.
        overrides: requirements that replace what packages ask for, and so may be against it.
    """
    locked: set[tuple[str, ...]] = {(wheel.name, wheel.version) for wheel in held.wheels}
    installed = [(name, version) for name, version in result["distributions"]]
    yield from _both_ways(f"{held.name}.lock", locked, set(installed))
    yield from (f"{name} {version} is there twice" for name, version in sorted(_twice(installed)))
    debs: set[tuple[str, ...]] = {(deb.name, deb.version, deb.arch) for deb in base.debs}
    yield from _both_ways("base.lock", debs, {(name, version, arch) for name, version, arch, _ in result["debs"]})
    yield from (f"the package {name} is {state!r}" for name, _, _, state in result["debs"] if state != "install ok installed")
    replaced = {canonicalize_name(Requirement(text).name) for text in overrides}
    for package, asked, version in result["unmet"]:
        if canonicalize_name(Requirement(asked).name) not in replaced:
            yield f"{package} asks for {asked}, and gets {version or 'none'}"


def repository_files(result: Mapping[str, Any], plan: LayerPlan | None) -> Iterator[str]:
    """At and below the places that `[[files]]` names is what the repository holds, both ways, with its mode and owner.

    Args:
        result: by payload/contents.py, which was given `places` of the image.
        plan: of the files layer; None where the image has none.
    """
    expected: dict[str, tuple[str, str, int, int, str]] = {}
    if plan:
        expected |= {f"/{folder.path}": ("folder", f"{folder.mode:04o}", folder.uid, folder.uid, "") for folder in plan.folders}
        expected |= {f"/{file.path}": ("file", f"{file.mode:04o}", file.uid, file.uid, file.sha256) for file in plan.files}
    real = {path: tuple(state) for path, *state in result["placed"]}
    yield from (f"{path} is named by [[files]], and not in the image" for path in sorted(expected.keys() - real.keys()))
    yield from (f"{path} is in the image, and not named by [[files]]" for path in sorted(real.keys() - expected.keys()))
    for path in sorted(real.keys() & expected.keys()):
        kind, mode, uid, gid, digest = real[path]
        if (kind, mode, uid, gid) != expected[path][:4]:
            yield f"{path} is a {kind} with mode {mode} of {uid}:{gid}, not as [[files]] says"
        elif digest != expected[path][4]:
            yield f"{path} holds other bytes than the repository's file"


def places(spec: ImageSpec) -> list[str]:
    """The places in the image that `[[files]]` names."""
    return sorted({entry.to for entry in spec.files})


def users_own(plan: LayerPlan | None) -> frozenset[str]:
    """The paths that `[[files]]` gives to the image's user."""
    if plan is None:
        return frozenset()
    given = [file.path for file in plan.files if file.uid] + [folder.path for folder in plan.folders if folder.uid]
    return frozenset(f"/{path}" for path in given)


def files(
    found: Mapping[str, Any], looked: Mapping[str, Sequence[str]], users_own: Collection[str] = frozenset()
) -> Iterator[str]:
    """No file gives rights, tells a secret, or is left over.

    Args:
        found: by payload/contents.py.
        looked: what is in the folders of `CLOSED`.
        users_own: what may belong to the image's user.
    """
    yield from _files("has a set-ID bit", set(found["set_id"]) - _SET_ID)
    yield from _files("can be written by anybody", set(found["world_writable"]) - _WORLD_WRITABLE)
    yield from _files("belongs to the user", set(found["own"]) - set(users_own))
    yield from _files("is or holds a secret", found["secrets"])
    yield from _files("is left over: a cache or a log", found["caches"])
    closed = {name for name in found["closed"] if not name.startswith(_FOR_ROOT)}
    yield from _files("cannot be looked into", closed - CLOSED)
    for folder, names in sorted(looked.items()):
        yield from _files(f"is in {folder}, which should hold nothing else", set(names) - _MAY_BE.get(folder, set()))
    yield from _files("is a folder that the dynamic loader searches, too", found["searched"])
    excuses = libraries.read()
    for file, name, elsewhere in found["missing"]:
        if excuses.unexplained(file, name, elsewhere=elsewhere):
            yield f"{file} needs {name}, which is {'elsewhere' if elsewhere else 'not'} in the image"


def told(problems: Sequence[str]) -> str:
    """The problems on one line."""
    rest = f"; and {len(problems) - _SOME} more" if len(problems) > _SOME else ""
    return "; ".join(problems[:_SOME]) + rest


def _both_ways(lock: str, locked: set[tuple[str, ...]], installed: set[tuple[str, ...]]) -> Iterator[str]:
    yield from (f"{' '.join(entry)} is in {lock}, not in the image" for entry in sorted(locked - installed))
    yield from (f"{' '.join(entry)} is in the image, not in {lock}" for entry in sorted(installed - locked))


def _twice(entries: Sequence[tuple[str, ...]]) -> set[tuple[str, ...]]:
    return {entry for entry in entries if entries.count(entry) > 1}


def _files(what: str, names: Sequence[str] | set[str]) -> Iterator[str]:
    yield from (f"{name} {what}" for name in sorted(names))
