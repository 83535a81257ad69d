"""Ours and cosign's verdict agree, on good proof and on bad; with both of its versions, on Debian's docker-registry.

The commands and policies for cosign are those that docs/proof.md prints, taken from it word for word.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common import paths
from common.errors import BuildError, MissingEnvironmentError, UsageError
from common.files import sha256_bytes
from common.run import which
from images import receipt as build_receipt
from images.receipt import BuildReceipt, BuiltImage
from oci import attachments, statement
from oci.attachments import Attached
from oci.client.blob import Blob
from oci.client.client import Client, FixedTagError
from oci.client.target import Registry
from oci.descriptor import CONFIG, MANIFEST, canonical
from oci.envelope import IN_TOTO, SIMPLE, Envelope
from oci.reference import ImageRef
from registry import attach, inspect, provenance, recompute, signer
from registry.policy import Policy
from registry.recompute import Inputs
from smoke import receipt as smoke_receipt
from smoke.receipt import ProvenImage, SmokeReceipt
from tests.oci.real import RealRegistry
from tests.registry import cosigns, signing
from tests.registry.signing import OTHER, OWN
from tests.smoke import receipts

pytestmark = pytest.mark.host

DOCUMENT = (paths.ROOT / "docs/proof.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL) for line in block.splitlines()]
CUE = dict(re.findall(r"```cue\n// (\S+)\n(.*?)```", DOCUMENT, re.DOTALL))
RUNGS = frozenset({"train", "vllm serve: answers"})
# What the document's CUE asks for, in our words.
ASKED = Policy(rungs=RUNGS, max_age_days=7, builder=provenance.builder())
ON_GPU = dataclasses.replace(ASKED, smoke="gpu")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    one = RealRegistry(tmp_path_factory.mktemp("registry"))
    one.start()
    yield one
    one.stop()


@pytest.fixture(scope="module", params=["Debian's", "newer"])
def cosign(request: pytest.FixtureRequest) -> Path:
    if request.param == "Debian's":
        return Path(which("cosign", fix="run `invoke engine --install`"))
    try:
        return cosigns.newer()
    except LookupError as problem:
        pytest.skip(f"cosign 3: {problem}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where an outsider stands: public keys and policies, nothing else."""
    day = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=7)).date().isoformat()
    for name, text in CUE.items():
        changed = text.replace('>="2026-11-01"', f'>="{day}"')
        (tmp_path / name).write_text(changed)
    for name, key in (("cosign", OWN), ("other", OTHER)):
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pub").write_bytes(pem)
    return tmp_path


def configuration(name: str) -> bytes:
    return canonical(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}, "n": name}
    )


def config_of(ref: ImageRef) -> str:
    return sha256_bytes(configuration(ref.repository))


def put(registry: RealRegistry, folder: str, tmp_path: Path) -> ImageRef:
    """A tiny train image; its digest is its name's alone."""
    name = f"{folder}/llama-factory-train"
    config = configuration(name)
    described = {"mediaType": CONFIG, "digest": sha256_bytes(config), "size": len(config)}
    manifest = canonical({"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []})
    file = tmp_path / "config"
    file.write_bytes(config)
    with Client(Registry(registry.address, ""), writes=True) as client:
        with Blob("configuration", described["digest"], len(config), file) as blob:  # type: ignore[arg-type]
            client.upload(name, blob, lambda _: None)
        client.put_manifest(name, "1", manifest)
    return ImageRef(registry.address, name, digest=sha256_bytes(manifest))


def ago(**time: float) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(**time)).isoformat(timespec="seconds")


@dataclasses.dataclass
class Case:
    """Proof of one image, made and spoilt.

    Attributes:
        attached: by kind.
        beside: more of any kind.
    """

    digest: str
    config: str
    attached: dict[str, Attached]
    beside: list[Attached] = dataclasses.field(default_factory=list)

    def smoke(
        self, *, key: ec.EllipticCurvePrivateKey = OWN, digest: str = "", change: dict[str, Any] | None = None, **run: Any
    ) -> Attached:
        said = signing.smoke(**{"train_digest": self.digest, "started": ago(hours=2), **run})
        return signing.attest(statement.SMOKE, {**said, **(change or {})}, digest=digest or self.digest, key=key)

    def result(self, **options: Any) -> None:
        self.attached[statement.SMOKE] = self.smoke(**options)


def case(ref: ImageRef) -> Case:
    digest, config = ref.digest, config_of(ref)
    made = Case(digest, config, {})
    made.attached = {
        statement.SIGNATURE: signing.signature(digest),
        statement.SBOM: signing.attest(statement.SBOM, signing.COMPONENTS, digest=digest),
        statement.PROVENANCE: signing.attest(statement.PROVENANCE, signing.build(config_digest=config), digest=digest),
        statement.SMOKE: made.smoke(),
    }
    return made


def altered(one: Attached, old: bytes, new: bytes) -> Attached:
    assert one.envelope is not None
    assert old in one.envelope.payload
    return dataclasses.replace(one, envelope=dataclasses.replace(one.envelope, payload=one.envelope.payload.replace(old, new)))


def forged(one: Attached) -> Attached:
    assert one.envelope is not None
    (good,) = one.envelope.signatures
    return dataclasses.replace(one, envelope=dataclasses.replace(one.envelope, signatures=(good[:-1] + bytes([good[-1] ^ 1]),)))


FAILED = {"result": "FAILED", "passedTests": ["train"], "failedTests": ["vllm serve: answers"]}
ELSEWHERE = "sha256:" + "e" * 64


def spoil(kind: str, act: Callable[[Attached], Attached]) -> Callable[[Case], None]:
    def changed(one: Case) -> None:
        one.attached[kind] = act(one.attached[kind])

    return changed


def lacks(kind: str) -> Callable[[Case], None]:
    def changed(one: Case) -> None:
        del one.attached[kind]

    return changed


def by_other(kind: str) -> Callable[[Case], None]:
    def changed(one: Case) -> None:
        envelope = one.attached[kind].envelope
        assert envelope is not None
        one.attached[kind] = signing.signed(envelope.payload_type, envelope.payload, OTHER)

    return changed


def tampered_result(one: Case) -> None:
    one.result(change=FAILED)
    spoil(statement.SMOKE, lambda attached: altered(attached, b"FAILED", b"PASSED"))(one)


def provenance_says(**options: str) -> Callable[[Case], None]:
    def changed(one: Case) -> None:
        said = signing.build(config_digest=one.config, **options)
        one.attached[statement.PROVENANCE] = signing.attest(statement.PROVENANCE, said, digest=one.digest)

    return changed


Act = Callable[[Case], None]
ATTEMPTS: list[tuple[str, Act, Policy, str, bool]] = [
    # What is done, how, what is asked for, whose key is trusted, whether it is good.
    ("a good CPU run", lambda _: None, ASKED, "cosign", True),
    ("a good GPU run, GPU asked", lambda one: one.result(gpu=True), ON_GPU, "cosign", True),
    ("a good GPU run, CPU asked", lambda one: one.result(gpu=True), ASKED, "cosign", True),
    (
        "beside it a failed one of another key",
        lambda one: one.beside.append(one.smoke(key=OTHER, change=FAILED)),
        ASKED,
        "cosign",
        True,
    ),
    (
        "beside it a signature of another key",
        lambda one: one.beside.append(signing.signature(one.digest, OTHER)),
        ASKED,
        "cosign",
        True,
    ),
    ("beside it one for another image", lambda one: one.beside.append(one.smoke(digest=ELSEWHERE)), ASKED, "cosign", True),
    ("wrong key", lambda _: None, ASKED, "other", False),
    ("no signature", lacks(statement.SIGNATURE), ASKED, "cosign", False),
    ("no SBOM", lacks(statement.SBOM), ASKED, "cosign", False),
    ("no provenance", lacks(statement.PROVENANCE), ASKED, "cosign", False),
    ("no smoke result", lacks(statement.SMOKE), ASKED, "cosign", False),
    ("nothing at all", lambda one: one.attached.clear(), ASKED, "cosign", False),
    ("FAILED result", lambda one: one.result(change=FAILED), ASKED, "cosign", False),
    ("FAILED result beside a passed one", lambda one: one.beside.append(one.smoke(change=FAILED)), ASKED, "cosign", False),
    ("PASSED with failed rungs", lambda one: one.result(change={**FAILED, "result": "PASSED"}), ASKED, "cosign", False),
    ("PASSED without the rungs asked for", lambda one: one.result(change={"passedTests": ["train"]}), ASKED, "cosign", False),
    (
        "tampered result",
        tampered_result,
        ASKED,
        "cosign",
        False,
    ),
    ("tampered SBOM", spoil(statement.SBOM, lambda a: altered(a, b"jieba", b"jiebb")), ASKED, "cosign", False),
    (
        "tampered provenance",
        spoil(statement.PROVENANCE, lambda a: altered(a, b'"dirty":false', b'"dirty":true ')),
        ASKED,
        "cosign",
        False,
    ),
    ("tampered signature of the image", spoil(statement.SIGNATURE, forged), ASKED, "cosign", False),
    ("tampered signature of the result", spoil(statement.SMOKE, forged), ASKED, "cosign", False),
    ("result replayed from another image", lambda one: one.result(digest=ELSEWHERE), ASKED, "cosign", False),
    (
        "signature replayed from another image",
        lambda one: one.attached.update({statement.SIGNATURE: signing.signature(ELSEWHERE)}),
        ASKED,
        "cosign",
        False,
    ),
    ("result by another key", by_other(statement.SMOKE), ASKED, "cosign", False),
    ("provenance by another key", by_other(statement.PROVENANCE), ASKED, "cosign", False),
    ("expired", lambda one: one.result(started=ago(days=30)), ASKED, "cosign", False),
    ("CPU where a GPU is asked", lambda _: None, ON_GPU, "cosign", False),
    (
        "GPU claimed, none named",
        lambda one: one.result(
            change={"pinwheel_smoke": {**signing.smoke()["pinwheel_smoke"], "started": ago(hours=2), "gpu": True}}
        ),
        ON_GPU,
        "cosign",
        False,
    ),
    ("another builder", provenance_says(builder="https://example.com/elsewhere"), ASKED, "cosign", False),
]


def store(ref: ImageRef, one: Case) -> None:
    everything = [*one.attached.values(), *one.beside]
    with Client(Registry(ref.registry, ""), writes=True) as client:
        for tag, kind in (("sig", SIMPLE), ("att", IN_TOTO)):
            new = [a.envelope for a in everything if a.envelope and a.envelope.payload_type == kind]
            if new:
                attachments.write(client, ref.repository, ref.digest, tag, [], new)


def by_cosign(cosign: Path, ref: ImageRef, policy: Policy, key: str, folder: Path) -> list[int]:
    """The exit codes of the document's commands."""
    assert len(COMMANDS) == 4
    codes = []
    for command in COMMANDS:
        words = {
            "REF": str(ref),
            "cosign.pub": f"{key}.pub",
            "smoke.cue": "smoke-gpu.cue" if policy.smoke == "gpu" else "smoke.cue",
        }
        _, *arguments = [words.get(word, word) for word in shlex.split(command)]
        codes.append(cosigns.call(cosign, *arguments, folder=folder).returncode)
    return codes


@pytest.mark.parametrize(
    ("number", "act", "policy", "key", "good"),
    [(n, *one[1:]) for n, one in enumerate(ATTEMPTS)],
    ids=[one[0] for one in ATTEMPTS],
)
def test_our_verdict_and_cosigns_agree(
    number: int, act: Act, policy: Policy, key: str, good: bool, registry: RealRegistry, cosign: Path, folder: Path
) -> None:
    ref = put(registry, f"case-{number}", folder)
    one = case(ref)
    act(one)
    store(ref, one)
    ours = inspect.look(ref, signer.public_key(str(folder / f"{key}.pub")), policy)[1]
    theirs = by_cosign(cosign, ref, policy, key, folder)
    assert ours.holds is good, ours
    assert (not any(theirs)) is good, theirs


def test_a_bundle_of_another_key_beside_good_proof_changes_neither_verdict(
    registry: RealRegistry, cosign: Path, folder: Path
) -> None:
    ref = put(registry, "beside", folder)
    store(ref, case(ref))
    attest_as_bundle(cosign, ref, folder, FAILED)
    assert any(one.tag == "" for one in attached(ref))
    assert inspect.look(ref, OWN.public_key(), ASKED)[1].holds
    assert by_cosign(cosign, ref, ASKED, "cosign", folder) == [0, 0, 0, 0]


STRANGE = b"a stranger's"


def gone(registry: RealRegistry) -> None:
    shutil.rmtree(registry.data / "blobs/sha256" / sha256_bytes(STRANGE)[7:9])


def cut(registry: RealRegistry) -> None:
    (file,) = (registry.data / "blobs/sha256").glob(f"*/{sha256_bytes(STRANGE)[7:]}/data")
    file.write_bytes(STRANGE[:5])


def other_bytes(registry: RealRegistry) -> None:
    (file,) = (registry.data / "blobs/sha256").glob(f"*/{sha256_bytes(STRANGE)[7:]}/data")
    file.write_bytes(STRANGE[::-1])


@pytest.mark.parametrize(
    ("said", "act"),
    [(5, None), (5000, None), (None, gone), (None, cut), (None, other_bytes)],
    ids=["larger than it says", "smaller than it says", "missing", "cut", "other bytes"],
)
def test_a_stranger_whose_attachment_cannot_be_read_changes_neither_verdict(
    registry: RealRegistry, cosign: Path, folder: Path, said: int | None, act: Callable[[RealRegistry], None] | None
) -> None:
    ref = put(registry, f"stranger-{folder.name.strip('_').lower()}", folder)
    store(ref, case(ref))
    with Client(Registry(ref.registry, ""), writes=True) as client:
        with Blob("strange", sha256_bytes(STRANGE), len(STRANGE), STRANGE) as blob:
            client.upload(ref.repository, blob, lambda _: None)
        tag = ref.digest.replace(":", "-") + ".att"
        body = json.loads(client.manifest(ref.repository, tag))
        size = len(STRANGE) if said is None else said
        body["layers"].insert(0, {"mediaType": attachments.DSSE, "digest": sha256_bytes(STRANGE), "size": size})
        client.put_manifest(ref.repository, tag, canonical(body))
    if act:
        act(registry)
    assert inspect.look(ref, OWN.public_key(), ASKED)[1].holds
    assert by_cosign(cosign, ref, ASKED, "cosign", folder) == [0, 0, 0, 0]


def attest_as_bundle(cosign: Path, ref: ImageRef, folder: Path, said: dict[str, Any]) -> None:
    """By cosign itself, with a key of its own."""
    (folder / "predicate.json").write_text(json.dumps({"configuration": [], **said}))
    if not (folder / "own.key").exists():
        made = cosigns.call(cosign, "generate-key-pair", "--output-key-prefix", "own", folder=folder)
        assert made.returncode == 0, made.stderr
    newer = "--use-signing-config" in cosigns.call(cosign, "attest", "--help", folder=folder).stdout
    how = ["--use-signing-config=false"] if newer else ["--new-bundle-format"]
    words = ["--yes", "--key", "own.key", "--tlog-upload=false", "--type", statement.SMOKE, "--predicate", "predicate.json"]
    done = cosigns.call(cosign, "attest", *words, *how, str(ref), folder=folder)
    assert done.returncode == 0, done.stderr


def attached(ref: ImageRef) -> list[Attached]:
    with Client(Registry(ref.registry, "")) as client:
        return attachments.read(client, ref.repository, ref.digest)


def test_what_cosign_attests_as_a_bundle_is_read(registry: RealRegistry, cosign: Path, folder: Path) -> None:
    ref = put(registry, f"bundle-{cosign.parent.parent.parent.name[:4] or 'x'}", folder)
    run = signing.smoke(train_digest=ref.digest, started=ago(hours=1))
    attest_as_bundle(cosign, ref, folder, run)
    only = Policy(signature=False, sbom=False, provenance=False)
    own = signer.public_key(str(folder / "own.pub"))
    assert inspect.look(ref, own, only)[1].holds
    assert not inspect.look(ref, OWN.public_key(), only)[1].holds
    # A test result is no signature, whatever `cosign verify` of version 3 makes of it.
    assert not inspect.look(ref, own, Policy(sbom=False, provenance=False))[1].holds


def test_what_is_attached_by_digest_is_read_by_the_cosign_that_reads_bundles(
    registry: RealRegistry, cosign: Path, folder: Path
) -> None:
    """Where a tag cannot be moved, statements are such bundles. Version 2 wants a root of trust from the network for them."""
    ref = put(registry, f"by-digest-{cosign.parent.parent.parent.name[:4] or 'x'}", folder)
    made = [
        signing.attest(kind, said, digest=ref.digest).envelope
        for kind, said in (
            (statement.SIGNATURE, {}),
            (statement.SBOM, signing.COMPONENTS),
            (statement.PROVENANCE, signing.build(config_digest=config_of(ref))),
            (statement.SMOKE, signing.smoke(train_digest=ref.digest, started=ago(hours=1))),
        )
    ]
    with Client(Registry(ref.registry, ""), writes=True) as client:
        attachments.refer(client, ref.repository, ref.digest, [one for one in made if one], FixedTagError("the tag is fixed"))
    ours = inspect.look(ref, OWN.public_key(), ASKED)[1]
    assert ours.holds, ours
    assert not inspect.look(ref, OTHER.public_key(), ASKED)[1].holds
    if "--use-signing-config" not in cosigns.call(cosign, "attest", "--help", folder=folder).stdout:
        return
    for key, good in (("cosign", True), ("other", False)):
        for command in COMMANDS:
            words = [{"REF": str(ref), "cosign.pub": f"{key}.pub"}.get(word, word) for word in shlex.split(command)]
            words = [word for word in words if word != "--new-bundle-format=false"]
            assert (cosigns.call(cosign, *words[1:], folder=folder).returncode == 0) is good, words


@pytest.fixture
def built(own_folders: Path, registry: RealRegistry, monkeypatch: pytest.MonkeyPatch, cosign: Path) -> ImageRef:
    """A build and a passed run of an image that lies in the registry, and cosign on PATH."""
    bin_ = own_folders / "bin"
    bin_.mkdir()
    (bin_ / "cosign").symlink_to(cosign)
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    monkeypatch.setattr(signer, "folder", lambda: own_folders / ".keys")
    for name in ("PINWHEEL_KEY", "COSIGN_PASSWORD", "PINWHEEL_BUILDER"):
        monkeypatch.delenv(name, raising=False)
    ref = put(registry, own_folders.name.lower().strip("_"), own_folders)
    image = dataclasses.replace(signing.BUILT, digest=ref.digest, config_digest=config_of(ref))
    build_receipt.write(BuildReceipt(signing.COMMIT, (image,)))
    # The image was not built here: what is computed of one that was, tests/registry/test_recompute.py shows.
    locks = {"lockfiles/train.lock": "sha256:" + "9" * 64}
    monkeypatch.setattr(recompute, "inputs", lambda *_: Inputs(signing.COMPONENTS, locks))
    smoke_receipt.write(of(image, receipts.passed(started=ago(hours=1))))
    return ref


def of(image: BuiltImage, run: SmokeReceipt) -> SmokeReceipt:
    """The run, of this image."""
    own = ProvenImage(image.name, image.role, image.version, image.digest, image.config_digest)
    return dataclasses.replace(run, images=(own, *run.images[1:]))


def where(ref: ImageRef) -> str:
    return f"{ref.registry}/{ref.repository.rpartition('/')[0]}"


def test_a_push_makes_a_key_attaches_and_anybody_can_verify(
    built: ImageRef, cosign: Path, folder: Path, own_folders: Path
) -> None:
    assert "proof attached to 1 digests, 1 with a passed smoke run" in attach.attach(where(built))
    keys = own_folders / ".keys"
    assert (keys.stat().st_mode & 0o777, (keys / "cosign.key").stat().st_mode & 0o777) == (0o700, 0o600)
    first = [one.layer for one in attached(built)]
    attach.attach(where(built))
    assert [one.layer for one in attached(built)] == first
    (folder / "cosign.pub").write_bytes((keys / "cosign.pub").read_bytes())
    assert by_cosign(cosign, built, ASKED, "cosign", folder) == [0, 0, 0, 0]
    assert "carries what the policy asks for" in inspect.show(str(built), str(keys / "cosign.pub"))


def test_a_failed_run_is_attached_and_anybody_sees_it(built: ImageRef, cosign: Path, folder: Path, own_folders: Path) -> None:
    attach.attach(where(built))
    run = dataclasses.replace(receipts.failed(), started=ago(minutes=1))
    smoke_receipt.write(of(build_receipt.read().images[0], run))
    assert "0 with a passed smoke run, 1 with a FAILED one" in attach.attach(where(built))
    (folder / "cosign.pub").write_bytes((own_folders / ".keys" / "cosign.pub").read_bytes())
    assert not inspect.look(built, signer.public_key(str(folder / "cosign.pub")), Policy())[1].holds
    assert by_cosign(cosign, built, ASKED, "cosign", folder)[3]


def test_a_key_with_a_password_needs_it(
    built: ImageRef, cosign: Path, own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSIGN_PASSWORD", "s3cret")
    attach.attach(where(built))
    key = own_folders / ".keys" / "cosign.key"
    monkeypatch.setenv("COSIGN_PASSWORD", "wrong")
    with pytest.raises(MissingEnvironmentError, match="COSIGN_PASSWORD") as refused:
        attach.attach(where(built), key=str(key))
    assert "wrong" not in refused.value.line()
    monkeypatch.delenv("COSIGN_PASSWORD")
    monkeypatch.setenv("PINWHEEL_KEY", "env://HELD")
    monkeypatch.setenv("HELD", key.read_text())
    with pytest.raises(MissingEnvironmentError):
        attach.attach(where(built))
    monkeypatch.setenv("COSIGN_PASSWORD", "s3cret")
    assert "signed by key" in attach.attach(where(built))


def test_a_key_that_is_none_is_refused_before_anything_is_sent(built: ImageRef, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="there is no such key"):
        attach.attach(where(built), key="/nowhere/cosign.key")
    monkeypatch.setenv("PINWHEEL_KEY", "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nabc\n")
    with pytest.raises(UsageError, match="a key itself was given") as refused:
        attach.attach(where(built))
    assert "abc" not in refused.value.line()
    assert attached(built) == []


def test_without_cosign_the_fix_is_named(built: ImageRef, own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(MissingEnvironmentError, match="cosign is not installed: run `./invokew engine --install`"):
        attach.attach(where(built))


def test_what_signs_a_statement_is_a_dsse_signature(built: ImageRef) -> None:
    own = signer.signer()
    bare = Envelope(IN_TOTO, b"{}", ())
    assert dataclasses.replace(bare, signatures=(own.sign(bare.signed),)).holds(own.public)


def test_what_would_keep_proof_from_an_image_is_found_before_the_push(built: ImageRef) -> None:
    attach.check("")
    with pytest.raises(UsageError, match="--key and --keyless exclude each other"):
        attach.check("", key="x", keyless=True)
    build_receipt.path().unlink()
    with pytest.raises(BuildError, match="nothing was built yet"):
        attach.check("")


def test_without_a_key_everything_is_left_to_cosign(built: ImageRef, own_folders: Path) -> None:
    """Its services are out of a test's reach: what it is called with is all that can be seen."""
    program, log = own_folders / "bin" / "cosign", own_folders / "log"
    program.unlink()
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    program.chmod(0o755)
    assert "signed keyless" in attach.attach(where(built), keyless=True)
    calls = log.read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["sign", *["attest"] * 3, "verify", *["verify-attestation"] * 3]
    assert all(call.endswith(f"/llama-factory-train@{built.digest}") for call in calls)
    assert "--key" not in log.read_text()
    assert not (own_folders / ".keys").exists()
