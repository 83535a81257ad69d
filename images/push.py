"""`invoke push`: built images into a registry, each digest read back before it is recorded.

skopeo moves the bytes: it skips blobs the registry has, keeps digests, and takes credentials from Docker's own configuration.
What it says of success is not believed: a second, separate read of the manifest is hashed here.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from common import console, host
from common.errors import RegistryError, UsageError
from common.files import sha256_bytes
from common.refs import ImageRef
from common.run import run
from images import receipt
from images.receipt import BuiltImage
from lockfiles import images_lock
from lockfiles.images_lock import PinnedImage

_RETRIES = "3"


@dataclass(frozen=True, slots=True)
class Registry:
    """Where images go.

    Attributes:
        host: with optional port.
        prefix: path before an image's name, ends in a slash; or empty.
    """

    host: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Registry:
        """Parse `host[:port][/path]`.

        Raises:
            UsageError: it is no such thing.
        """
        hostname, _, path = text.strip("/").partition("/")
        try:
            ref = ImageRef.parse(f"{hostname}/{path + '/' if path else ''}name")
        except ValueError:
            ref = None
        if ref is None or ref.registry != hostname:
            raise UsageError(f"not a registry: {text!r}", fix="write host[:port][/path], as in registry.example.com:5000/team")
        return cls(hostname, f"{path}/" if path else "")

    @property
    def plain_http(self) -> bool:
        """Whether it is on this machine, where TLS protects nothing; any other registry must speak TLS."""
        name = self.host.rpartition(":")[0] or self.host
        try:
            return ipaddress.ip_address(name.strip("[]")).is_loopback
        except ValueError:
            return name == "localhost"

    def ref(self, image: BuiltImage) -> ImageRef:
        """The image's reference there, by tag."""
        return ImageRef(self.host, self.prefix + image.name, image.version)


def push(registry: str, proven: frozenset[str]) -> str:
    """Push every built image, read its digest back, and record it in `lockfiles/images.lock`.

    Args:
        registry: `host[:port][/path]`; empty: the embedded one, started when it does not run.
        proven: digests that passed the smoke ladder; others are pushed with a warning.

    Returns:
        the outcome in a few words.

    Raises:
        BuildError: nothing was built.
        RegistryError: the registry refuses, fails, or holds another digest than was pushed; nothing is recorded.
        UsageError: `registry` is no registry.
        LockError: `lockfiles/images.lock` was edited into something else; nothing is sent.
    """
    target = Registry.parse(registry or host.REGISTRY)
    built = receipt.read()
    if images_lock.path().exists():
        images_lock.read()  # a lock that cannot be written to is found out before anything is sent
    if not registry:
        host.start_registry()
    for image in built.images:
        if image.digest not in proven:
            console.warn(
                f"{image.name}@{image.digest} is not proven: no passed smoke run of this digest (run `invoke smoke` first)"
            )
        _push(target, image)
    images_lock.write(
        PinnedImage(image.name, image.digest, image.version, image.driver, image.compute) for image in built.images
    )
    console.done(f"recorded {len(built.images)} digests in lockfiles/images.lock")
    return (
        f"{len(built.images)} digests at {target.host}/{target.prefix}, {sum(i.digest in proven for i in built.images)} proven"
    )


def _push(target: Registry, image: BuiltImage) -> None:
    ref = target.ref(image)
    with console.step(f"pushing {image.name}, {console.size(image.size)} less what the registry has"):
        argv = ["skopeo", "copy", "--quiet", "--preserve-digests", "--retry-times", _RETRIES]
        argv += ["--dest-tls-verify=false"] if target.plain_http else []
        source = f"oci:{receipt.layout()}:{image.name}:{image.version}"
        run(
            [*argv, source, f"docker://{ref}"],
            error=RegistryError,
            what=f"pushing {ref}",
            fix="check that the registry runs and that you are logged in (docker login)",
        )
    for reference in (ref, ref.pin(image.digest)):
        actual = read_digest(target, reference)
        if actual != image.digest:
            raise RegistryError(
                f"{reference} holds {actual}, but {image.digest} was pushed",
                where=str(ref),
                fix="do not use this tag; something altered it on the way or in the registry",
            )
    console.done(f"{ref.pin(image.digest)} read back by tag and by digest")


def read_digest(target: Registry, ref: ImageRef) -> str:
    """The digest of the manifest that the registry serves for a reference, computed from its bytes.

    Raises:
        RegistryError: it serves none.
    """
    argv = ["skopeo", "inspect", "--raw", "--retry-times", _RETRIES, *(["--tls-verify=false"] if target.plain_http else [])]
    said = run([*argv, f"docker://{ref}"], error=RegistryError, what=f"reading {ref} back", fix="check the registry")
    return sha256_bytes(said.stdout.encode())
