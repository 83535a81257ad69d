"""The proxy that the user's variables name: chosen by host, said by name, in one line, without its password."""

from __future__ import annotations

import base64
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import RegistryError, UsageError
from oci.client import proxy
from oci.client.access import Access
from oci.client.client import Client
from oci.client.target import Registry
from registry import skopeo
from tests.oci.conftest import QUICK
from tests.oci.double import Double, answers, digest_of

ELSEWHERE = Registry("registry.example.test", "")
VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_each_variable_counts_and_is_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "http://ada:s3cret@proxy.example.test:3128")
    chosen = proxy.chosen(ELSEWHERE.address)
    assert chosen is not None
    assert chosen.shown == f"the proxy proxy.example.test:3128 of {variable}"
    assert "s3cret" not in repr(chosen)


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("127.0.0.1:5000", "", True),
        ("[::1]:5000", "", True),
        ("r.example.test", "example.test", True),
        ("r.example.test", "other.test, .Example.test", True),
        ("r.example.test", "*.example.test", True),
        ("r.example.test", "other.test example.test", True),
        ("example.test", ".example.test", True),
        ("r.example.test", "*", True),
        ("r.example.test.", "example.test", True),
        ("r.example.test:5000", "example.test:5000", True),
        ("r.example.test", "example.test:443", True),
        ("r.example.test:5000", "example.test:5001", False),
        ("evilexample.test", "example.test", False),
        ("example.test.evil", "example.test", False),
        ("10.1.2.3:5000", "10.0.0.0/8", True),
        ("10.1.2.3:5000", "10.1.2.3:5000", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("110.1.2.3", "10.1.2.3", False),
        ("[fd00::5]:5000", "fd00::/8", True),
        ("[fd00::5]:5000", "[fd00::5]:5000", True),
        ("[fd00::5]:5000", "fd00::6", False),
        ("r.example.test", "10.0.0.0/8,::1", False),
    ],
)
def test_this_machine_and_what_no_proxy_names_are_asked_directly(
    monkeypatch: pytest.MonkeyPatch, host: str, no_proxy: str, direct: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy.chosen(Registry(host, "").address) is None) is direct


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("http://ada:s3cret@p.test:1", "ada:s3cret"),
        ("ada:s3cret@p.test:1", "ada:s3cret"),
        ("http://ada:p%40ss%3A%2f%25@p.test:1", "ada:p@ss:/%"),
        ("http://ada:p@ss:w%rd@p.test:1", "ada:p@ss:w%rd"),
        ("http://ada:p%C3%A4ss\u4e16@p.test:1", "ada:päss\u4e16"),
        ("http://token@p.test:1", "token:"),
        ("http://:s3cret@p.test:1", ":s3cret"),
    ],
)
def test_a_login_of_a_proxy_is_sent_as_it_is_meant(monkeypatch: pytest.MonkeyPatch, written: str, sent: str) -> None:
    monkeypatch.setenv("https_proxy", written)
    chosen = proxy.chosen(ELSEWHERE.address)
    assert chosen is not None
    headers = chosen.manager().proxy_headers
    assert base64.b64decode(headers["Proxy-Authorization"].removeprefix("Basic ")).decode() == sent
    assert chosen.shown == "the proxy p.test:1 of https_proxy"
    # Go's programs refuse an address with special characters in it.
    assert re.fullmatch(r"http://[\w%~.:-]*@p\.test:1", str(proxy.for_go()["HTTPS_PROXY"]))


def test_a_proxy_without_a_login_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "p.test:1")
    chosen = proxy.chosen(ELSEWHERE.address)
    assert chosen is not None
    assert not chosen.manager().proxy_headers


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


@pytest.mark.parametrize("refusing", ["407 Proxy Authentication Required"], indirect=True)
def test_a_proxy_that_refuses_without_tls_is_named_at_once(refusing: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", os.environ["HTTPS_PROXY"])
    target = Registry(ELSEWHERE.host, "", Access(ELSEWHERE.host, plain_http=True))
    with Client(target, QUICK) as client, pytest.raises(RegistryError, match=r"of HTTP_PROXY answers 407.*write a login"):
        client.manifest("team/image", "1")
    assert len(refusing) == 1


@pytest.mark.parametrize("refusing", ["502 Bad Gateway", "503 Service Unavailable"], indirect=True)
def test_a_proxy_that_does_not_get_through_is_tried_again(refusing: list[bytes]) -> None:
    with Client(ELSEWHERE, QUICK) as client, pytest.raises(RegistryError, match=r"of HTTPS_PROXY answers 50.*check the proxy"):
        client.manifest("team/image", "1")
    assert len(refusing) == QUICK.tries


@pytest.mark.parametrize("refusing", ["403 Forbidden"], indirect=True)
def test_where_a_registry_sends_us_is_reached_as_its_own_name_says(refusing: list[bytes], double: Double) -> None:
    """A registry inside, whose blobs lie outside: only these are asked for through the proxy."""
    double.fail("GET", "blobs/", answers(307, {"Location": "https://storage.example.test/x?signed=s3cret"}))
    with Client(Registry(double.address, ""), QUICK) as client, pytest.raises(RegistryError, match="of HTTPS_PROXY") as caught:
        client.read_blob("team/image", digest_of(b"x"), 1)
    assert "let storage.example.test through" in caught.value.line()
    assert "s3cret" not in caught.value.line()
    assert [asked.split()[:2] for asked in refusing] == [[b"CONNECT", b"storage.example.test:443"]]


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
    variables = skopeo._environment(Path("auth.json"))
    assert variables["HTTPS_PROXY"] == "http://127.0.0.1:1"
    assert (variables["https_proxy"], variables["no_proxy"]) == (None, None)
    # In the forms that Go takes, the exceptions are the same.
    monkeypatch.setenv("no_proxy", ".example.test *.other.test")
    assert skopeo._environment(Path("auth.json"))["NO_PROXY"] == "example.test,other.test"


def test_skopeo_gets_what_is_no_proxy_to_us_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked only where our own client had no need of it."""
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    assert skopeo._environment(Path("auth.json"))["HTTP_PROXY"] == "socks5://127.0.0.1:1"
