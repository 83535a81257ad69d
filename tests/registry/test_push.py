"""Push, against a real docker-registry, and through a proxy that makes it lie, fail and cut."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from common import paths
from common.errors import BuildError, RegistryError, UsageError
from images import config, layer, receipt
from images.plan import LayerPlan
from images.receipt import BuildReceipt, BuiltImage, BuiltLayer
from images.tarball import LayerWriter
from lockfiles import images_lock
from lockfiles.images_lock import PinnedImage
from oci.client.patience import Patience
from oci.client.target import Registry
from oci.descriptor import MANIFEST, Descriptor
from oci.layout import Layout
from registry import push, skopeo
from tests.oci.double import Handler, answers, serving, stalls
from tests.oci.real import RealRegistry
from tests.waiting import reserved_port

QUICK = Patience(tries=2, pause=0.01, connect=5, read=5, readable=0.1)


@pytest.mark.parametrize(
    ("text", "registry", "plain"),
    [
        ("127.0.0.1:5000", Registry("127.0.0.1:5000", ""), True),
        ("localhost:5000/team", Registry("localhost:5000", "team/"), True),
        ("[::1]:5000", Registry("[::1]:5000", ""), True),
        ("registry.example.com/a/b/", Registry("registry.example.com", "a/b/"), False),
        ("10.0.0.1:5000", Registry("10.0.0.1:5000", ""), False),
    ],
)
def test_a_registry_is_read_and_only_loopback_goes_without_tls(text: str, registry: Registry, *, plain: bool) -> None:
    assert Registry.parse(text) == registry
    assert registry.plain_http is plain


@pytest.mark.parametrize(
    "text",
    [
        "team",
        "http://r.example.com",
        "r.example.com/Team",
        "r.example.com/a:1",
        "r example.com",
        ":5000",
        "r.example.com:99999",
    ],
)
def test_what_is_no_registry_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a registry"):
        Registry.parse(text)


def test_nothing_built_says_build_first(own_folders: Path) -> None:
    with pytest.raises(BuildError, match="nothing was built yet .*run `invoke build` first"):
        push.push("127.0.0.1:5000", frozenset())


def test_pushes_that_end_together_all_stand_in_the_lock(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "LOCKFILES", own_folders / "lockfiles")
    images = [PinnedImage(f"image-{n}", f"sha256:{n:064x}", "1") for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda image: images_lock.write([image]), images))
    assert {image.name for image in images_lock.read()} == {image.name for image in images}
    assert [file.name for file in (own_folders / "lockfiles").iterdir()] == ["images.lock"]


class Proxy(BaseHTTPRequestHandler):
    """Passes everything to the real registry, but for what `fault` says."""

    upstream = 0
    address = ""
    fault = ""
    uploads = 0
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        body = self._body()
        if self.fault == "unavailable" and self.path != "/v2/":
            self._answer(503, {}, b"")
            return
        if self.fault == "cut" and self.command in ("PATCH", "PUT"):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream)
        # A client may send one header several times (Accept): as one line they mean the same (RFC 9110, 5.3).
        sent = {name: ", ".join(self.headers.get_all(name, [])) for name in self.headers if name != "Transfer-Encoding"}
        upstream.request(self.command, self.path, body, sent)
        answer = upstream.getresponse()
        data, headers = answer.read(), dict(answer.getheaders())
        upstream.close()
        if self.command == "PUT" and "/blobs/" in self.path and answer.status == 201:
            type(self).uploads += 1
        reading = self.command == "GET" and "/manifests/" in self.path
        if self.fault == "another_manifest" and reading:
            data = data.replace(b"{", b"{ ", 1)
            headers = {k: v for k, v in headers.items() if k.lower() != "docker-content-digest"}
        if self.fault == "forgets" and reading:
            self._answer(404, {"Content-Type": "application/json"}, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
            return
        if location := headers.get("Location"):
            headers["Location"] = location.replace(f":{self.upstream}", f":{self.address.rpartition(':')[2]}")
        self._answer(answer.status, headers, data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while length := int(self.rfile.readline(), 16):
                data += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, code: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(code)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Proxy]]:
    """A real registry of this test alone behind the proxy; `uploads` counts the blobs it took."""
    monkeypatch.setattr(paths, "LOCKFILES", own_folders / "lockfiles")
    monkeypatch.setattr(skopeo, "RETRIES", "0")
    monkeypatch.setattr(push, "_PATIENCE", QUICK)
    server = RealRegistry(own_folders / "registry")
    server.start()

    class Own(Proxy):
        upstream = server.port

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    Own.address = f"127.0.0.1:{proxy.server_port}"
    yield Own
    proxy.shutdown()
    proxy.server_close()
    server.stop()


def built(*contents: bytes, name: str = "small", role: str = "small") -> BuiltImage:
    """A small image in the layout and the receipt that names it."""
    layout = Layout(receipt.layout())
    layout.create()
    layers = []
    for number, data in enumerate(contents):

        def fill(writer: LayerWriter, data: bytes = data, number: int = number) -> dict[str, tuple[str, str]]:
            writer.file(f"f{number}", len(data), [data])
            writer.end()
            return {}

        layers.append(layer.make(layout, LayerPlan(str(number), f"{number}{hash(data)}"), fill))
    described = config.base_image(layout, layers[0], "1", "2026-01-02") if len(layers) == 1 else _image(layout, layers)
    layout.publish(described, name, "1")
    parts = tuple(BuiltLayer(one.what, one.digest, one.diff_id, one.size, one.unpacked, reused=False) for one in layers)
    configuration = json.loads(layout.blob(described.digest).read_bytes())["config"]["digest"]
    image = BuiltImage(name, role, "1", described.digest, configuration, 1, 1, "", parts, 580, ("7.5", "8.0"))
    receipt.write(BuildReceipt("unknown", (image,)))
    return image


def _image(layout: Layout, layers: list[layer.Layer]) -> Descriptor:
    return config._write(layout, layers, {}, {}, "2026-01-02")


@pytest.mark.host
def test_a_pushed_image_is_read_back_and_recorded(registry: type[Proxy]) -> None:
    image = built(b"one", b"two")
    push.push(registry.address + "/team", frozenset({image.digest}))
    (pinned,) = images_lock.read()
    assert (pinned.name, pinned.digest) == ("small", image.digest)
    assert (pinned.driver, pinned.compute) == (580, ("7.5", "8.0"))
    connection = http.client.HTTPConnection("127.0.0.1", registry.upstream)
    connection.request("GET", f"/v2/team/small/manifests/{image.digest}", headers={"Accept": MANIFEST})
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.headers["Docker-Content-Digest"] == image.digest
    connection.close()


@pytest.mark.host
def test_only_missing_blobs_go_up(registry: type[Proxy]) -> None:
    built(b"one", b"two")
    push.push(registry.address, frozenset())
    assert registry.uploads == 3  # two layers and the configuration
    push.push(registry.address, frozenset())
    assert registry.uploads == 3
    built(b"one", b"other")
    push.push(registry.address, frozenset())
    assert registry.uploads == 5


@pytest.mark.host
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("another_manifest", r"holds sha256:\w+, but sha256:\w+ was pushed"),
        ("forgets", "reading .*/small 1 back failed .*404 MANIFEST_UNKNOWN"),
        ("unavailable", "failed 2 times in a row: the registry answers 503"),
        ("cut", "uploading the layer '.*' failed 2 times in a row: the connection was cut"),
    ],
)
def test_a_registry_that_lies_or_fails_is_named_and_nothing_recorded(registry: type[Proxy], fault: str, message: str) -> None:
    built(b"one", b"two")
    registry.fault = fault
    with pytest.raises(RegistryError, match=message):
        push.push(registry.address, frozenset())
    assert not images_lock.path().exists()


@pytest.mark.host
def test_a_registry_that_is_down_is_named(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "_PATIENCE", QUICK)
    built(b"one")
    with reserved_port() as nobody_listens:
        address = f"127.0.0.1:{nobody_listens.getsockname()[1]}"
        with pytest.raises(RegistryError, match=rf"looking for {address}/small 1 failed .*connection refused .{address}."):
            push.push(address, frozenset())


@pytest.mark.host
def test_a_truncated_blob_is_not_pushed(registry: type[Proxy]) -> None:
    image = built(b"one" * 1000, b"two")
    Layout(receipt.layout()).blob(image.layers[0].digest).write_bytes(b"short")
    with pytest.raises(BuildError, match="the layer '0' has 5 bytes and not"):
        push.push(registry.address, frozenset())
    assert not registry.uploads
    assert not images_lock.path().exists()


@pytest.mark.host
def test_a_build_that_ends_while_a_push_opens_its_files_sweeps_none_of_them(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "LOCKFILES", own_folders / "lockfiles")
    monkeypatch.setattr(push, "_PATIENCE", QUICK)
    old = built(b"one", b"two")
    layout, read = Layout(receipt.layout()), receipt.read
    wanted = {layout.read(old.digest)["config"]["digest"], *(one.digest for one in old.layers)}

    def late() -> BuildReceipt:
        found = read()
        # What another build does at its end: the image is listed no more, and its blobs are of no use to anybody.
        built(b"other")
        layer.sweep(layout)
        return found

    monkeypatch.setattr(receipt, "read", late)
    with serving() as double:
        push.push(double.address, frozenset())
        assert set(double.blobs["small"]) == wanted
    assert "another process reads the layout" in capsys.readouterr().out
    layer.sweep(layout)
    assert not layout.blob(old.digest).exists()


@pytest.mark.host
def test_a_registry_that_leaves_skopeo_without_an_answer_is_named(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "_PATIENCE", QUICK)
    monkeypatch.setattr(skopeo, "PATIENCE", 1)
    built(b"one")

    def silent(handler: Handler) -> None:
        if "skopeo" in handler.headers["User-Agent"]:
            return stalls(60)(handler)
        if "1" not in handler.double.manifests["small"]:
            return answers(404)(handler)
        _, data = handler.double.manifests["small"]["1"]
        return answers(200, {"Content-Type": MANIFEST}, data)(handler)

    with serving() as double:
        double.fail("GET", "manifests", silent, times=999)
        with pytest.raises(RegistryError, match="reading .*/small:1 back with skopeo failed .*no answer within 1 s"):
            push.push(double.address, frozenset())


@pytest.mark.host
def test_an_unproven_image_is_pushed_with_a_warning(registry: type[Proxy], capsys: pytest.CaptureFixture[str]) -> None:
    image = built(b"one")
    push.push(registry.address, frozenset())
    assert f"small@{image.digest} is not proven" in capsys.readouterr().err
    push.push(registry.address, frozenset({image.digest}))
    assert "is not proven" not in capsys.readouterr().err


def _another(reader: str) -> Callable[[Handler], None]:
    """A lie to one of the two readers, told apart as a server would."""

    def act(handler: Handler) -> None:
        if "1" not in handler.double.manifests["small"]:
            return answers(404)(handler)
        _, data = handler.double.manifests["small"]["1"]
        lies = ("skopeo" in handler.headers["User-Agent"]) == (reader == "skopeo")
        return answers(200, {"Content-Type": MANIFEST}, data.replace(b"{", b"{ ", 1) if lies else data)(handler)

    return act


@pytest.mark.host
@pytest.mark.parametrize(
    ("reference", "reader"), [("1", "our client"), ("1", "skopeo"), ("sha256:", "our client"), ("sha256:", "skopeo")]
)
def test_another_manifest_for_either_reader_is_found_out(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch, reference: str, reader: str
) -> None:
    monkeypatch.setattr(paths, "LOCKFILES", own_folders / "lockfiles")
    monkeypatch.setattr(push, "_PATIENCE", QUICK)
    monkeypatch.setattr(skopeo, "RETRIES", "0")
    image = built(b"one", b"two")
    with serving() as double:
        double.fail("GET", f"manifests/{reference}", _another(reader), times=999)
        # skopeo checks a digest that it is asked for itself.
        refusal = (
            rf"holds sha256:\w+, but {image.digest} was pushed .*{reader}|skopeo failed|serves other bytes for {image.digest}"
        )
        with pytest.raises(RegistryError, match=refusal):
            push.push(double.address, frozenset())
    assert not images_lock.path().exists()


def test_a_layer_that_is_gone_is_named_before_anything_is_sent(own_folders: Path) -> None:
    image = built(b"one", b"two")
    path = Layout(receipt.layout()).blob(image.layers[1].digest)
    path.unlink()
    with (
        serving() as double,
        pytest.raises(BuildError, match="the layer '1' is missing .*: run `invoke build` again") as caught,
    ):
        push.push(double.address, frozenset())
    assert not double.asked
    assert caught.value.where == str(path)
