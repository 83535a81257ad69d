"""The Docker Engine as smoke needs it: fit for our images, with a GPU where one is asked for, with exactly what was built."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests
from docker.types import DeviceRequest

from common import console, engine_address, host
from common.errors import MissingEnvironmentError, SmokeError
from images.receipt import BuiltImage
from oci.layout import Layout
from smoke.machine import archive, gpus
from smoke.machine.gpus import Device

_RUNTIME, _CDI_KIND = "nvidia", "nvidia.com/gpu="


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that was found fit.

    Attributes:
        client: connected.
        version: of the engine.
        gpu: what a container asks for to get one GPU; None when the run is on the CPU.
        every: what it asks for to get all of them; None on the CPU, and where the engine has no name for all.
    """

    client: docker.DockerClient
    version: str
    gpu: DeviceRequest | None
    every: DeviceRequest | None = None


def connect(*, gpu: bool) -> Engine:
    """The engine of this machine, found fit; no image is touched.

    Raises:
        MissingEnvironmentError: no engine, too old, another image store, or `gpu` without a GPU runtime.
    """
    client = host.engine()
    info = client.info()
    return Engine(client, str(info.get("ServerVersion", "")), gpu_request(info) if gpu else None)


def gpu_request(info: Mapping[str, Any], device: Device | None = None, *, only: bool = False) -> DeviceRequest:
    """What a container asks of the engine to get one GPU.

    Args:
        info: what the engine says about itself.
        device: which one; the first where it is not known yet.
        only: whether it is the only one of this machine.

    Raises:
        MissingEnvironmentError: it knows neither NVIDIA's runtime nor a CDI device of NVIDIA's, or cannot tell which of several
            CDI devices is this one.
    """
    name = device.id if device else "0"
    if _RUNTIME in (info.get("Runtimes") or {}):
        return DeviceRequest(device_ids=[name], capabilities=[["gpu"]])
    if cdi := _discovered(info):
        return DeviceRequest(driver="cdi", device_ids=[_cdi(cdi, device, only=only)])
    raise MissingEnvironmentError(
        "--gpu was asked for, but the engine has no GPU runtime",
        where="neither a runtime called nvidia nor a CDI device nvidia.com/gpu in `docker info`",
        fix=gpus.how_to_get(),
    )


def every_gpu(info: Mapping[str, Any]) -> DeviceRequest | None:
    """What a container asks of the engine to get all GPUs; None where the engine has no name for that.

    Args:
        info: what the engine says about itself.
    """
    if _RUNTIME in (info.get("Runtimes") or {}):
        return DeviceRequest(count=-1, capabilities=[["gpu"]])
    name = f"{_CDI_KIND}all"
    return DeviceRequest(driver="cdi", device_ids=[name]) if name in _discovered(info) else None


def _discovered(info: Mapping[str, Any]) -> list[str]:
    names = [str(found.get("ID", "")) for found in info.get("DiscoveredDevices") or []]
    return sorted(name for name in names if name.startswith(_CDI_KIND))


def _cdi(known: Sequence[str], device: Device | None, *, only: bool) -> str:
    """What a CDI specification calls a device: its UUID, its number, or that with its type (nvidia-ctk's three strategies)."""
    number = device.id if device else "0"
    names = (device.uuid if device else "", number, f"mig{number}" if ":" in number else f"gpu{number}")
    named = [f"{_CDI_KIND}{one}" for one in names if one and f"{_CDI_KIND}{one}" in known]
    # Where there is one alone it needs no name; Windows' own Linux knows only `all`.
    single = [one for one in known if one != f"{_CDI_KIND}all"] or list(known)
    if not named and device and not (only and len(single) == 1):
        raise MissingEnvironmentError(
            f"none of the engine's CDI devices is GPU {device.id}, {device.name}, {device.uuid or 'without a UUID'}",
            where=f"`docker info` has {', '.join(known)}",
            fix=f"write their specification anew with `nvidia-ctk cdi generate`, or {gpus.WITHOUT}",
        )
    return (named or single)[0]


def holds(client: docker.DockerClient, image: BuiltImage) -> bool:
    """Whether the engine has exactly this image under the name that Pinwheel gives it."""
    try:
        return client.images.get(archive.local_name(image)).id == image.digest
    except docker.errors.ImageNotFound:
        return False


def load(engine: Engine, image: BuiltImage, layout: Path, *, present: tuple[BuiltImage, ...] = ()) -> None:
    """Bring the image into the engine, unless it is there, and compare the digest.

    Args:
        engine: where to.
        image: what.
        layout: the OCI layout that holds it.
        present: images that were loaded before; the layers they share are not sent again.

    Raises:
        SmokeError: the engine refuses the image or gives it another digest.
        MissingEnvironmentError: the disk is full, or the engine goes away.
    """
    if holds(engine.client, image):
        console.done(f"{image.name}: the engine has {image.digest}")
        return
    known = frozenset(layer.digest for other in present for layer in other.layers)
    check_disk(engine.client, [image], known)
    # A build that goes on meanwhile must not sweep what is being sent.
    with Layout(layout).reading():
        try:
            _send(engine.client, image, archive.entries(image, layout, without=known))
        except docker.errors.ImageLoadError as problem:
            if not known or "no space left" in str(problem):
                raise _refused(image, problem) from None
            # The engine let go of a layer it was thought to hold.
            try:
                _send(engine.client, image, archive.entries(image, layout))
            except docker.errors.ImageLoadError as again:
                raise _refused(image, again) from None
    if not holds(engine.client, image):
        raise SmokeError(
            f"{image.name}: after loading, the engine's digest is not that of the build receipt",
            where=image.digest,
            fix="run `invoke build` again",
        )
    console.done(f"{image.name}: loaded as {image.digest}")


def _send(client: docker.DockerClient, image: BuiltImage, members: tuple[archive.Entry, ...]) -> None:
    with console.Bar(f"loading {image.name}", sum(entry.size for entry in members)) as bar:
        try:
            # docker-py hands any iterable of bytes on to requests; its annotation knows bytes alone.
            client.images.load(archive.stream(members, bar.advance))  # type: ignore[arg-type]
        except (requests.RequestException, docker.errors.APIError, OSError) as problem:
            raise MissingEnvironmentError(
                f"{image.name}: the engine broke off while loading: {problem}", fix="look at the engine's log"
            ) from problem


def _refused(image: BuiltImage, problem: Exception) -> SmokeError | MissingEnvironmentError:
    if "no space left" in str(problem):
        return MissingEnvironmentError(
            f"{image.name}: the engine's disk is full", where=str(problem), fix="`docker system df` shows what takes the room"
        )
    return SmokeError(f"{image.name}: the engine refuses the image", where=str(problem), fix="run `invoke build` again")


def check_disk(client: docker.DockerClient, images: Sequence[BuiltImage], known: frozenset[str]) -> None:
    """Refuse before gigabytes are sent; an engine on another machine is left to say so itself.

    Args:
        client: of the engine.
        images: that are to be loaded.
        known: digests of layers that the engine holds already.

    Raises:
        MissingEnvironmentError: the engine's disk has no room for them.
    """
    root = engine_address.image_store(client.info())
    layers = {layer.digest: layer for image in images for layer in image.layers if layer.digest not in known}
    # The store keeps the blob and its unpacked files.
    need = sum(layer.size + layer.unpacked for layer in layers.values())
    try:
        free = shutil.disk_usage(root).free
    except OSError:
        return
    if free < need:
        names = " and ".join(image.name for image in images)
        raise MissingEnvironmentError(
            f"{names} need{'s' if len(images) == 1 else ''} {console.size(need)} of disk in the engine, "
            f"{console.size(free)} are free",
            where=str(root),
            fix="`docker system df` shows what takes the room",
        )
