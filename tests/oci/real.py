"""Debian's docker-registry on loopback, as a test wants it: with users, with TLS, killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from common import host
from common.engine_address import INSTALL
from common.run import which
from tests.oci.double import USER
from tests.waiting import eventually, reserved_port

# bcrypt of double.PASSWORD, the one kind that docker-registry takes.
_HTPASSWD = f"{USER}:$2b$04$zb6ronDBa6kolIHBdE3l3O574lYYZyoUqPWaTw/fFSFFTHVQxE7vy\n"
# For 127.0.0.1, until 2124; its name in a folder that OpenSSL looks into is a hash of its subject.
CERTIFICATE, HASHED = Path(__file__).with_name("for-tests-only.crt"), "2544db9b.0"


@dataclass
class RealRegistry:
    """One docker-registry.

    Attributes:
        folder: holds its configuration and data.
        secret: signs the state of uploads; without it a new one every start.
        users: whether it asks for a password.
        tls: whether it speaks TLS, with a certificate that nobody trusts unasked.
    """

    folder: Path
    secret: str = ""
    users: bool = False
    tls: bool = False
    port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _held: socket.socket | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        return self.folder / "data" / "docker" / "registry" / "v2"

    def start(self) -> None:
        """Start it, on the same port as before, and wait until it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.port:
            self._held = reserved_port()
            self.port = int(self._held.getsockname()[1])
            self._write()
        argv = [which("docker-registry", fix=INSTALL), "serve", str(self.folder / "registry.yml")]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(self._listens, "a registry that listens")

    def kill(self) -> None:
        """As the kernel does when memory runs out: no last word, no flush."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        if self._held is not None:
            self._held.close()

    def blobs(self) -> dict[str, bytes]:
        """Everything it stores, by digest: layers, configurations, manifests."""
        return {f"sha256:{file.parent.name}": file.read_bytes() for file in (self.data / "blobs").rglob("data")}

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=10).close()
            return True
        return False

    def _write(self) -> None:
        more: dict[str, object] = {"log": {"level": "error"}}
        if self.users:
            (self.folder / "htpasswd").write_text(_HTPASSWD)
            more["auth"] = {"htpasswd": {"realm": "test", "path": str(self.folder / "htpasswd")}}
        tls = {"certificate": str(CERTIFICATE), "key": str(CERTIFICATE.with_suffix(".key"))}
        settings = host.registry_settings(
            self.address, self.folder / "data", secret=self.secret, http={"tls": tls} if self.tls else None, more=more
        )
        (self.folder / "registry.yml").write_text(settings)
