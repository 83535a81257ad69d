"""The proxy that the user's variables name: chosen by host, said by name, in one line, without its password."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import RegistryError, UsageError
from oci.client import proxy
from oci.client.client import Client
from oci.client.target import Registry
from registry import skopeo
from tests.oci.conftest import QUICK

ELSEWHERE = Registry("registry.example.test", "")
VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_each_variable_counts_and_is_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "http://ada:s3cret@proxy.example.test:3128")
    chosen = proxy.chosen(ELSEWHERE)
    assert chosen is not None
    assert chosen.shown == f"the proxy proxy.example.test:3128 of {variable}"
    assert "s3cret" not in repr(chosen)


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [("127.0.0.1:5000", ""), ("[::1]:5000", ""), ("r.example.test", "example.test"), ("r.example.test", "*")],
)
def test_this_machine_and_what_no_proxy_names_are_asked_directly(
    monkeypatch: pytest.MonkeyPatch, host: str, no_proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy.chosen(Registry(host, "")) is None


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("http://proxy.example.test:port", "not the address of a proxy"),
        ("proxy.example.test:99999", "not the address of a proxy"),
        ("ftp://proxy.example.test", "not the address of a proxy"),
        ("http://", "not the address of a proxy"),
        ("socks5h://127.0.0.1:1080", "a SOCKS proxy"),
    ],
)
def test_what_is_no_proxy_is_one_line_that_names_the_variable(monkeypatch: pytest.MonkeyPatch, value: str, what: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(UsageError) as caught:
        Client(ELSEWHERE, QUICK)
    assert what in caught.value.line()
    assert "HTTPS_PROXY" in caught.value.line()


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[list[bytes]]:
    """A proxy that gives one answer to everybody."""
    asked: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(f"HTTP/1.1 {request.param}\r\nContent-Length: 0\r\n\r\n".encode())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    monkeypatch.setenv("HTTPS_PROXY", f"http://ada:s3cret@127.0.0.1:{server.getsockname()[1]}")
    yield asked
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.mark.parametrize("refusing", ["407 Proxy Authentication Required", "403 Forbidden"], indirect=True)
def test_a_proxy_that_refuses_is_named_at_once(refusing: list[bytes]) -> None:
    with Client(ELSEWHERE, QUICK) as client, pytest.raises(RegistryError) as caught:
        client.manifest("team/image", "1")
    line = caught.value.line()
    assert "the proxy 127.0.0.1:" in line
    assert "of HTTPS_PROXY answers 40" in line
    assert "s3cret" not in line
    assert len(refusing) == 1


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with Client(ELSEWHERE, QUICK) as client, pytest.raises(RegistryError, match=r"the proxy 127\.0\.0\.1:1 of ALL_PROXY: "):
        client.manifest("team/image", "1")


def test_skopeo_gets_the_proxy_that_we_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs in Go know no ALL_PROXY."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    variables = skopeo._environment(ELSEWHERE, Path("auth.json"))
    assert variables["HTTPS_PROXY"] == "http://127.0.0.1:1"
    monkeypatch.setenv("NO_PROXY", "example.test")
    assert skopeo._environment(ELSEWHERE, Path("auth.json"))["HTTPS_PROXY"] is None
