"""Whoever may attach things to an image takes no proof away by it: what cannot be read is named and left out.

Each thing is tried in every place where something can be attached: both tags of cosign, and referrers, listed by API or tag.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from common.errors import ExitCode, RegistryError
from oci import attachments, bundle, signature
from oci.client.client import Client
from oci.client.target import Registry
from oci.descriptor import INDEX, MANIFEST, canonical
from tests.oci.conftest import QUICK
from tests.oci.double import Double, Handler, answers, digest_of
from tests.registry import signing
from tests.registry.pushing import DIGEST, IMAGE, MINE, REPOSITORY, attached, holds, proof, push, ran, reference

pytestmark = pytest.mark.slow

TAG = DIGEST.replace(":", "-")
DATA = b"a stranger's"
DEEP = b"[" * 100_000


@dataclass(frozen=True)
class Thing:
    """Something that a stranger attaches.

    Attributes:
        said: of its descriptor, where that is not true.
        data: the blob's bytes.
        act: what the registry does instead of serving the blob.
        why: what is said of it; empty: it is read, and is nothing.
    """

    said: dict[str, Any]
    data: bytes = DATA
    act: Callable[[Handler], None] | None = None
    why: str = ""


def cut(handler: Handler) -> None:
    """The answer says how long it is, and ends early."""
    answers(200, {"Content-Length": str(len(DATA))}, DATA[:5])(handler)
    handler.close_connection = True


THINGS = {
    "larger than it says": Thing({"size": 5}, why="it has more than 5 bytes"),
    "smaller than it says": Thing({"size": 50}, why="it has 12 bytes"),
    "no size": Thing({"size": None}, why="it names no size"),
    "a size that is none": Thing({"size": "12"}, why="it names no size"),
    "a negative size": Thing({"size": -1}, why="it names no size"),
    "as large as it says, and too large": Thing({"size": 1 << 40}, why="too large to be proof"),
    "missing": Thing({}, act=answers(404), why="the registry answers 404"),
    "gone": Thing({}, act=answers(410), why="the registry answers 410"),
    "short": Thing({}, act=answers(200, {}, DATA[:5]), why="it has other bytes"),
    "other bytes": Thing({}, act=answers(200, {}, DATA[::-1]), why="it has other bytes"),
    "another algorithm": Thing({"digest": "sha512:" + "0" * 128}, why="its digest is no SHA-256"),
    "a way out": Thing({"digest": "../../../other/manifests/1"}, why="its digest is no SHA-256"),
    "control characters": Thing({"digest": "\x1b[2J", "mediaType": f"{bundle.TYPE}\n{DEEP!r}"}, why="its digest is no SHA-256"),
    "nothing": Thing({"mediaType": None, "annotations": 7}, b""),
    "deep JSON": Thing({}, DEEP),
    "JSON of another kind": Thing({}, b'{"dsseEnvelope": [], "payloadType": 1, "signatures": {}}'),
    "no JSON": Thing({}, b"\xff\xfe"),
    "a key twice": Thing({}, b'{"payloadType": "a", "payloadType": "b"}'),
    "a number that is none": Thing({}, b'{"payloadType": NaN}'),
    "a very long number": Thing({}, b'{"payloadType": ' + b"9" * 9999 + b"}"),
}


def beside(double: Double, place: str, layer: Any) -> None:
    """Attach a layer in one of the places, beside what is there."""
    if place != "referrer":
        body = json.loads(double.manifests[REPOSITORY][f"{TAG}.{place}"][1])
        body["layers"].insert(0, layer)
        double.manifests[REPOSITORY][f"{TAG}.{place}"] = (MANIFEST, canonical(body))
        return
    empty = {"mediaType": bundle.EMPTY, "digest": digest_of(b"{}"), "size": 2}
    body = {"mediaType": MANIFEST, "artifactType": bundle.TYPE, "config": empty, "layers": [layer]}
    refer(double, canonical({**body, "subject": {"digest": DIGEST}}))


def refer(double: Double, data: bytes, kind: str = MANIFEST, **more: Any) -> None:
    """Attach a manifest, and list it where the registry does not."""
    double.manifests[REPOSITORY][digest_of(data)] = (kind, data)
    if not double.referrers:
        listed = [{"mediaType": kind, "digest": digest_of(data), "size": len(data), **more}]
        double.manifests[REPOSITORY][TAG] = (INDEX, canonical({"mediaType": INDEX, "manifests": listed}))


@pytest.fixture
def pushed(double: Double, monkeypatch: pytest.MonkeyPatch) -> Double:
    monkeypatch.setattr("oci.client.client.Patience", lambda: QUICK)
    push(double, proof(smoke=ran()))
    return double


@pytest.mark.parametrize("place", ["sig", "att", "referrer"])
@pytest.mark.parametrize("thing", THINGS.values(), ids=THINGS)
def test_what_cannot_be_read_is_named_and_takes_no_proof_away(
    pushed: Double, place: str, thing: Thing, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = {"mediaType": bundle.TYPE, "digest": digest_of(thing.data), "size": len(thing.data), **thing.said}
    pushed.blobs[REPOSITORY][digest_of(thing.data)] = thing.data
    if thing.act:
        pushed.fail("GET", f"blobs/{digest_of(thing.data)}", thing.act, times=999)
    beside(pushed, place, layer)
    capsys.readouterr()
    assert holds(pushed)
    with Client(Registry(pushed.address, ""), QUICK) as client:
        signature.verify(client, reference(pushed).pin(DIGEST), MINE.public)
    said = capsys.readouterr().err
    assert ("left out, it cannot be read" in said) is bool(thing.why)
    assert thing.why in said
    assert "\x1b[2J" not in said
    if thing.why and "\x1b" not in str(layer["digest"]):
        assert str(layer["digest"]) in said
    # The next push keeps it, adds what is new, and is read back.
    push(pushed, proof(smoke=ran(), source=signing.COMMIT + "-dirty"))
    assert holds(pushed)


@pytest.mark.parametrize("place", ["sig", "att", "referrer"])
@pytest.mark.parametrize("layer", [None, 7, "text", [], {}, {"digest": {}}])
def test_what_is_no_descriptor_takes_no_proof_away(pushed: Double, place: str, layer: Any) -> None:
    beside(pushed, place, layer)
    assert holds(pushed)


def test_a_registry_that_takes_no_list_with_a_missing_blob_gets_one_without(pushed: Double) -> None:
    """What somebody's garbage collection took away, no push can keep."""
    beside(pushed, "att", {"mediaType": "text/plain", "digest": digest_of(b"gone"), "size": 4})
    push(pushed, proof(source=signing.COMMIT + "-dirty"))
    assert holds(pushed)
    assert digest_of(b"gone") not in pushed.manifests[REPOSITORY][f"{TAG}.att"][1].decode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        DEEP,
        b'{"layers":{}}',
        b'{"layers":7}',
        canonical({"mediaType": INDEX, "manifests": [{"digest": DIGEST}]}),
        b'{"layers":[' + b" " * (9 << 20) + b"]}",
    ],
    ids=["nothing", "list", "cut", "no text", "deep", "object", "number", "index", "too large"],
)
def test_a_tag_that_holds_no_list_counts_as_empty_and_the_next_push_mends_it(
    double: Double, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ("sig", "att"):
        double.manifests[REPOSITORY][f"{TAG}.{ending}"] = (MANIFEST, data)
    assert not holds(double)
    assert f"the tag {TAG}.att: " in capsys.readouterr().err
    push(double, proof(smoke=ran()))
    assert holds(double)


REFERRERS: dict[str, tuple[bytes, str]] = {
    "index": (
        canonical({"mediaType": INDEX, "manifests": [], "subject": {"digest": DIGEST}, "config": {"mediaType": ""}}),
        INDEX,
    ),
    "no layers": (canonical({"subject": {"digest": DIGEST}, "artifactType": bundle.TYPE}), MANIFEST),
    "layers that are none": (canonical({"subject": {"digest": DIGEST}, "artifactType": bundle.TYPE, "layers": 7}), MANIFEST),
    "too large": (
        canonical({"subject": {"digest": DIGEST}, "artifactType": bundle.TYPE, "layers": [], "x": "x" * (9 << 20)}),
        MANIFEST,
    ),
}


@pytest.mark.parametrize("name", REFERRERS)
def test_a_referrer_that_is_nothing_takes_no_proof_away(pushed: Double, name: str) -> None:
    data, kind = REFERRERS[name]
    refer(pushed, data, kind)
    assert holds(pushed)
    push(pushed, proof(source=signing.COMMIT + "-dirty"))
    assert holds(pushed)


@pytest.mark.parametrize("data", [b"", DEEP, b"[]", b'{"manifests": 7}', b'{"manifests": [7, {"digest": "x"}]}', IMAGE])
def test_a_list_of_referrers_that_is_none_takes_no_proof_away(pushed: Double, data: bytes) -> None:
    pushed.manifests[REPOSITORY][TAG] = (INDEX, data)
    assert holds(pushed)


def test_many_referrers_of_other_kinds_are_not_even_asked_for(pushed: Double) -> None:
    pushed.referrers = True
    for number in range(300):
        body = {"subject": {"digest": DIGEST}, "artifactType": "application/vnd.cncf.notary.signature", "n": number}
        data = canonical({**body, "config": {"mediaType": "x"}, "layers": []})
        pushed.manifests[REPOSITORY][digest_of(data)] = (MANIFEST, data)
    pushed.asked.clear()
    assert holds(pushed)
    assert pushed.count("GET") < 20


def test_many_scans_in_the_tag_take_no_proof_away(pushed: Double) -> None:
    """A scanner that attests every day, and replaces nothing."""
    envelope = signing.attest("https://cosign.sigstore.dev/attestation/vuln/v1", {}, digest=DIGEST, key=signing.OTHER).envelope
    assert envelope is not None
    for number in range(300):
        data = envelope.json() + b" " * number
        pushed.blobs[REPOSITORY][digest_of(data)] = data
        beside(pushed, "att", {"mediaType": attachments.DSSE, "digest": digest_of(data), "size": len(data)})
    assert holds(pushed)
    # Nothing of it is kept in memory.
    assert sum(item.envelope is None for item in attached(pushed)) == 300


def test_own_proof_with_other_bytes_is_none(pushed: Double, capsys: pytest.CaptureFixture[str]) -> None:
    for digest, data in pushed.blobs[REPOSITORY].items():
        if b"payloadType" in data:
            pushed.blobs[REPOSITORY][digest] = data.replace(b"sig", b"gis")
    assert not holds(pushed)
    assert "it has other bytes" in capsys.readouterr().err


def cut_unseen(handler: Handler) -> None:
    """The answer says nothing of its length, as HTTP/1.0 has it: its end is that of the connection."""
    handler.take(None)
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(DATA[:5])
    handler.close_connection = True


FAILURES = {**{str(status): answers(status) for status in (401, 403, 429, 500, 503)}, "cut": cut, "cut unseen": cut_unseen}


@pytest.mark.parametrize("act", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("alone", [True, False], ids=["one of them", "all"])
def test_a_blob_that_the_registry_fails_to_serve_is_no_absence(
    pushed: Double, act: Callable[[Handler], None], alone: bool
) -> None:
    """Otherwise a failure of the registry, or whoever can cut the line to it, would hide a failed result."""
    last = json.loads(pushed.manifests[REPOSITORY][f"{TAG}.att"][1])["layers"][-1]["digest"]
    pushed.fail("GET", f"/blobs/{last if alone else ''}", act, times=999)
    with pytest.raises(RegistryError) as caught:
        holds(pushed)
    assert caught.value.exit_code == ExitCode.REGISTRY
    if act in {cut, cut_unseen}:
        assert f"{last if alone else 'sha256:'}" in caught.value.line()
        assert "the connection was cut" in caught.value.line()
        assert "run it again" in caught.value.line()


def test_of_many_that_are_left_out_the_first_are_named(pushed: Double, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(50):
        beside(pushed, "att", {"digest": str(number)})
    assert holds(pushed)
    said = capsys.readouterr().err
    assert said.count("left out, it cannot be read") == 5
    assert "45 more things that are attached cannot be read" in said
