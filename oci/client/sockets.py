"""The sockets that a client has open: what its threads wait for ends when another one says so."""

from __future__ import annotations

import socket
import threading
import weakref
from contextlib import suppress

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from oci.client.patience import StoppedError


class Sockets:
    """Keeps account of all that the pools open; for several threads.

    Args:
        pools: have opened nothing yet.

    Attributes:
        stopped: set by `stop`.
    """

    def __init__(self, pools: urllib3.PoolManager) -> None:
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        # Weak: an answer may still be read when its connection is closed, and who has read it says so to nobody.
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        opened = self._opened

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                opened(self.sock)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                opened(self.sock)

        class PlainPool(urllib3.HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Secure

        pools.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    def stop(self) -> None:
        """Shut all of them; from now on none is opened. One that is about to be opened ends by its time limit."""
        with self._lock:
            self.stopped.set()
            for one in list(self._open):
                # As a plain socket: TLS's farewell would wait for the other side.
                with suppress(OSError):
                    socket.socket.shutdown(one, socket.SHUT_RDWR)

    def _opened(self, found: socket.socket | None) -> None:
        # TLS within a proxy's TLS is no socket, but has one.
        inner = getattr(found, "socket", found)
        with self._lock:
            if self.stopped.is_set():
                raise StoppedError
            if isinstance(inner, socket.socket):
                self._open.add(inner)
