"""Images out of a registry, by digest: what `invoke smoke --registry` climbs the ladder with. No build, no wheels.

They are those that `lockfiles/images.lock` names, or that the user does; the checkout says what they should hold.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common import console, host, paths
from common.errors import RegistryError, UsageError
from images import spec
from images.receipt import BuiltImage, BuiltLayer
from lockfiles import images_lock
from lockfiles.images_lock import PinnedImage
from oci.client.client import Client
from oci.client.patience import Patience, UnusableError
from oci.client.target import Registry
from oci.descriptor import MANIFEST
from oci.layout import Layout
from oci.reference import ImageRef, check_digest

_PATIENCE = Patience()
# How many times its size a layer unpacks to, roughly.
_UNPACKED = 3
_VERSION, _INPUTS = (f"org.opencontainers.image.{name}" for name in ("version", "revision"))


@dataclass(frozen=True, slots=True)
class Pulled:
    """The pair of images of a run, and where they lie.

    Attributes:
        images: the one that trains, the one that serves.
        places: the reference of each by digest.
    """

    images: tuple[BuiltImage, ...]
    places: tuple[ImageRef, ...]

    def bring(self, image: BuiltImage) -> Path:
        """Bring an image's blobs into a layout; what an earlier run fetched is not fetched again. Returns the layout's folder.

        Raises:
            RegistryError: the registry does not answer, or lacks something.
            LockError: it gives other bytes.
        """
        layout, ref = Layout(_folder()), self.places[self.images.index(image)]
        layout.create()
        with Client(Registry.parse(ref.registry), _PATIENCE) as client:
            client.prepare()
            data = client.manifest(ref.repository, image.digest)
            layout.add(MANIFEST, data)
            body = json.loads(data)
            parts = {part["digest"]: part["size"] for part in (body["config"], *body["layers"])}
            missing = [(digest, size) for digest, size in parts.items() if not layout.has(digest, size)]

            def fetch(part: tuple[str, int]) -> None:
                try:
                    client.download(ref.repository, *part, layout.blob(part[0]))
                except BaseException:
                    client.stop()
                    raise

            what = f"pulling {image.name}, {console.size(sum(size for _, size in missing))}"
            with console.step(what), ThreadPoolExecutor(client.patience.parallel) as pool:
                list(pool.map(fetch, sorted(missing, key=lambda part: -part[1])))
        return layout.root

    def drop(self) -> None:
        """Remove what was brought: the engine has it."""
        shutil.rmtree(_folder(), ignore_errors=True)


def _folder() -> Path:
    return paths.dist() / "pulled"


def chosen(registry: str, named: Sequence[str], *, gpu: bool) -> Pulled:
    """The images of a run by digest.

    Args:
        registry: `host[:port][/path]` that has what images.lock names; empty: that of the named ones, else the embedded one.
        named: references by digest, in the place of what images.lock says of these images.
        gpu: whether the run is on a GPU.

    Raises:
        UsageError: a reference names no digest or no image of this checkout; or no pair of images is named, or several.
        LockError: images.lock was edited.
        RegistryError: a registry does not answer, or has no such image.
    """
    role_of = {spec.read(role).name: role for role in spec.roles()}
    asked: dict[str, ImageRef] = {}
    for text in named:
        ref = _reference(text)
        role = role_of.get(ref.repository.rpartition("/")[2])
        if role is None:
            raise UsageError("no image of this checkout", where=text, fix=f"there are: {', '.join(sorted(role_of))}")
        if role in asked:
            raise UsageError(f"the image {role!r} is named twice", where=text, fix="name each once")
        asked[role] = ref
    target = Registry.parse(registry) if registry else _registry_of(asked)
    pinned = images_lock.read() if images_lock.path().exists() else ()
    locked = {role_of[one.name]: one for one in pinned if one.name in role_of}
    places, images = [], []
    for role in _pair(locked, asked, gpu=gpu):
        known = locked.get(role)
        ref = (
            asked[role] if role in asked else ImageRef(target.host, target.prefix + locked[role].name, "", locked[role].digest)
        )
        with Client(Registry.parse(ref.registry), _PATIENCE) as client:
            client.prepare()
            images.append(read(client, ref, role, known if known and known.digest == ref.digest else None))
        places.append(ref)
    return Pulled(tuple(images), tuple(places))


def read(client: Client, ref: ImageRef, role: str, known: PinnedImage | None = None) -> BuiltImage:
    """What manifest and configuration of an image in a registry say of it.

    Args:
        client: of the registry.
        ref: the image, by digest.
        role: of the image.
        known: its line of images.lock, which says what it asks of a GPU; None: nothing is known of that.

    Raises:
        RegistryError: the registry does not answer, or has no such image, or one that Pinwheel did not build.
    """
    body = json.loads(client.manifest(ref.repository, ref.digest))
    try:
        config, parts, said = body["config"], body["layers"], body["annotations"]
        described = json.loads(client.read_blob(ref.repository, config["digest"], config["size"]))
        layers = tuple(
            BuiltLayer(
                str(made["created_by"]).partition(": ")[2],
                check_digest(part["digest"]),
                check_digest(diff_id),
                int(part["size"]),
                _UNPACKED * int(part["size"]),
                reused=True,
            )
            for part, diff_id, made in zip(parts, described["rootfs"]["diff_ids"], described["history"], strict=True)
        )
        return BuiltImage(
            name=ref.repository.rpartition("/")[2],
            role=role,
            version=str(said[_VERSION]),
            digest=ref.digest,
            config_digest=check_digest(config["digest"]),
            size=sum(one.size for one in layers),
            unpacked=sum(one.unpacked for one in layers),
            inputs=str(said[_INPUTS]),
            layers=layers,
            driver=known.driver if known else 0,
            compute=known.compute if known else (),
        )
    except UnusableError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        what = f"not an image that Pinwheel built: {type(problem).__name__} {problem}"
        raise RegistryError(what, where=str(ref), fix="name one that `invoke push` sent") from None


def _reference(text: str) -> ImageRef:
    fix = "write HOST/NAME@sha256:…; `lockfiles/images.lock` has the digests"
    try:
        ref = ImageRef.parse(text)
    except ValueError as problem:
        raise UsageError(str(problem), fix=fix) from None
    if not ref.registry or not ref.digest:
        raise UsageError("an image to run is named by registry and digest", where=text, fix=fix)
    return ref


def _registry_of(asked: dict[str, ImageRef]) -> Registry:
    """Where the other image of the pair lies: beside the named one."""
    for ref in asked.values():
        return Registry.parse(f"{ref.registry}/{ref.repository.rpartition('/')[0]}".rstrip("/"))
    return Registry.parse(host.default_registry())


def _pair(locked: Iterable[str], asked: Iterable[str], *, gpu: bool) -> tuple[str, str]:
    pairs = [spec.pair(family) for family in spec.families() if (family == spec.CPU) is not gpu]
    fitting = [pair for pair in pairs if set(asked) <= set(pair)]
    whole = [pair for pair in fitting if set(pair) <= {*locked, *asked}]
    if len(whole) == 1:
        return whole[0]
    device = "a GPU" if gpu else "the CPU"
    many = "; ".join(" and ".join(pair) for pair in whole or fitting or pairs)
    if whole:
        what, fix = f"several pairs of images could run on {device}: {many}", "name the image that serves: --image"
    else:
        what, fix = f"no pair of images for {device} is named; it is {many}", "push both, or name them: --image twice"
    raise UsageError(what, where=paths.shown(images_lock.path()), fix=fix)
