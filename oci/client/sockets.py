"""The open sockets of a client: one thread can close them all and so end what the others wait for."""

from __future__ import annotations

import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from oci.client.patience import StoppedError


class Sockets:
    """Keeps a list of all sockets that the pools open; for several threads.

    Attributes:
        stopped: set by `stop`.
    """

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        # Weak references: nothing reports when the last reader of an answer is done with its socket.
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def watch(self, pools: urllib3.PoolManager) -> None:
        """Note what these open; they must not have opened any connection yet."""
        register = self._register

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                register(self.sock)

            def getresponse(self) -> Any:
                with _limited(self):
                    return super().getresponse()

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                register(self.sock)

            def getresponse(self) -> Any:
                with _limited(self):
                    return super().getresponse()

        class PlainPool(urllib3.HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Secure

        pools.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    def stop(self) -> None:
        """Shut all sockets; from now on none is opened. A connection that is just being made ends by its time limit."""
        with self._lock:
            self.stopped.set()
            for open_socket in list(self._open):
                # As a plain socket: a proper end of TLS would wait for the other side.
                with suppress(OSError):
                    socket.socket.shutdown(open_socket, socket.SHUT_RDWR)

    def _register(self, connected: socket.socket | None) -> None:
        # TLS inside the TLS of a proxy is an object that only holds a socket.
        inner = getattr(connected, "socket", connected)
        with self._lock:
            if self.stopped.is_set():
                raise StoppedError
            if isinstance(inner, socket.socket):
                self._open.add(inner)


@contextmanager
def _limited(connection: HTTPConnection) -> Iterator[None]:
    """End the wait for an answer's head after the time that one piece of it may take: a server may drip it, byte by byte."""
    inner = getattr(connection.sock, "socket", connection.sock)
    if not isinstance(connection.timeout, (int, float)) or not isinstance(inner, socket.socket):
        yield
        return

    def end() -> None:
        with suppress(OSError):
            socket.socket.shutdown(inner, socket.SHUT_RDWR)

    # A moment later than the socket itself ends the wait for a server that says nothing at all: that is called by its name.
    timer = threading.Timer(connection.timeout * 1.1 + 0.2, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
