"""A real browser on the web UI of a container that reaches no network and that no network reaches."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

_CLONE_NEWNET = 0x40000000


@contextmanager
def forwarded(pid: int, port: int) -> Iterator[int]:
    """A port of this host's loopback that leads to one of a process's own loopback.

    As a container runtime does it for `kubectl port-forward`: the listener stays out here, each connection is made by a thread
    that has entered the process's network namespace (setns(2)).
    """
    entered = socket.create_server(("127.0.0.1", 0))
    with entered:
        threading.Thread(target=_serve, args=(entered, pid, port), daemon=True).start()
        yield entered.getsockname()[1]


def _serve(listener: socket.socket, pid: int, port: int) -> None:
    with contextlib.suppress(OSError):  # Closed at the end.
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_relay, args=(client, pid, port), daemon=True).start()


def _relay(client: socket.socket, pid: int, port: int) -> None:
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        # A thread has a network namespace of its own; no other thread of the tests moves.
        if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(namespace)
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """A headless Chromium, Debian's, with a profile of its own."""
    driver = shutil.which("chromedriver")
    assert driver, "run `invoke test`: it installs chromedriver"
    options = ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,2400"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={profile}")
    browser = Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()
