"""A server that answers byte by byte, so that no single wait is too long; and ports that there are not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from common.errors import RegistryError
from oci.client import answer
from oci.client.client import Client
from oci.client.patience import Patience
from oci.client.target import Registry
from oci.reference import ImageRef


@contextlib.contextmanager
def dripping(*, head: bool) -> Iterator[str]:
    """A server that sends a byte every 50 ms, of its answer's head or of its body; its address."""
    ended = threading.Event()

    def serve(server: socket.socket) -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(b"" if head else b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
                    while not ended.wait(0.05):
                        connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("head", [True, False], ids=["head", "body"])
def test_a_registry_that_drips_its_answer_ends_with_an_error(monkeypatch: pytest.MonkeyPatch, *, head: bool) -> None:
    monkeypatch.setattr(answer, "_PATIENT", 1.0)
    once = Patience(tries=1, connect=1, read=1)
    began = time.monotonic()
    with (
        dripping(head=head) as address,
        Client(Registry(address, ""), once) as client,
        pytest.raises(RegistryError, match="127.0.0.1"),
    ):
        client.manifest("a/b", "1")
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_a_port_that_there_is_not_is_no_reference(port: str) -> None:
    for text in (f"127.0.0.1:{port}/x:1", f"[::1]:{port}/x", f"host.example:{port}/a/b@sha256:{'a' * 64}"):
        with pytest.raises(ValueError, match="host"):
            ImageRef.parse(text)
