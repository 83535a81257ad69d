"""With Debian's docker-registry, both cosigns and skopeo: what is registered here they verify and read, and the other way."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import ExitCode, PinwheelError
from common.run import which
from oci.client import http, proxy, target
from tests.k8s.pipeline.conftest import VERSION, Run, log_in, model_files, trust_tests_ca
from tests.oci.real import RealRegistry
from tests.registry import cosigns

pytestmark = pytest.mark.host

Start = Callable[..., RealRegistry]


@pytest.fixture
def registered(tmp_path: Path, real: Start) -> tuple[Run, RealRegistry, str]:
    one = real()
    run = Run(tmp_path, one.address).write().export()
    return run, one, run.register()


@pytest.fixture(scope="module", params=["Debian's", "newer"])
def cosign(request: pytest.FixtureRequest) -> Path:
    if request.param == "Debian's":
        return Path(which("cosign", fix="run `invoke engine --install`"))
    try:
        return cosigns.newer()
    except LookupError as problem:
        pytest.skip(f"cosign 3: {problem}")


def verify(cosign: Path, run: Run, model: str, key: str = "own") -> subprocess.CompletedProcess[str]:
    argv = ["verify", "--insecure-ignore-tlog", "--key", str(run.root / f"{key}.pub"), model]
    return cosigns.call(cosign, *argv, folder=run.root)


def test_cosign_takes_our_signature_and_no_other(registered: tuple[Run, RealRegistry, str], cosign: Path) -> None:
    run, registry, model = registered
    good = verify(cosign, run, model)
    assert good.returncode == 0, good.stderr
    assert model.rpartition("@")[2] in good.stdout
    assert verify(cosign, run, model, key="other").returncode != 0
    # One bit of the signature, in the registry's own storage.
    (link,) = (registry.data / "repositories/models/team-tiny/_manifests/tags").glob("*.sig/current/link")
    file = registry.data / "blobs/sha256" / link.read_text()[7:9] / link.read_text()[7:] / "data"
    body = json.loads(file.read_text())
    annotations = body["layers"][0]["annotations"]
    name = "dev.cosignproject.cosign/signature"
    annotations[name] = annotations[name][:20] + ("A" if annotations[name][20] != "A" else "B") + annotations[name][21:]
    file.write_text(json.dumps(body))
    assert verify(cosign, run, model).returncode != 0


def test_what_cosign_signed_is_taken_here(
    registered: tuple[Run, RealRegistry, str], cosign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, model = registered
    made = cosigns.call(cosign, "generate-key-pair", "--output-key-prefix", "theirs", folder=run.root)
    assert made.returncode == 0, made.stderr
    argv = ["sign", "--yes", "--key", "theirs.key", "--tlog-upload=false", model]
    newer = "--use-signing-config" in cosigns.call(cosign, "sign", "--help", folder=run.root).stdout
    argv += ["--use-signing-config=false", "--new-bundle-format=false"] if newer else []
    signed = cosigns.call(cosign, *argv, folder=run.root)
    assert signed.returncode == 0, signed.stderr
    run.fetch(model, monkeypatch, key="theirs")


def test_another_client_reads_the_same_files(registered: tuple[Run, RealRegistry, str], tmp_path: Path) -> None:
    _, _, model = registered
    place = tmp_path / "copy"
    argv = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{model}", f"dir:{place}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((place / "manifest.json").read_text())
    named = {one["annotations"]["org.opencontainers.image.title"]: one["digest"][7:] for one in manifest["layers"]}
    for name, data in model_files().items():
        assert (place / named[name]).read_bytes() == data
    assert (place / named["README.md"]).read_text().startswith("---\n")


def test_a_registry_with_users_serves_the_whole_way(
    tmp_path: Path, real: Start, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = real(users=True)
    log_in(quick, one.address)
    run = Run(tmp_path, one.address).write().export()
    model = run.register()
    volume = run.fetch(model, monkeypatch)
    assert (volume / "current/config.json").read_bytes() == model_files()["config.json"]
    (quick / "config.json").unlink()
    with pytest.raises(PinwheelError, match="the registry refuses: 401.*docker login") as problem:
        run.fetch(model.partition("@")[0] + "@sha256:" + "0" * 64, monkeypatch)
    assert problem.value.exit_code == ExitCode.REGISTRY


@pytest.mark.parametrize("trusted", [True, False])
def test_a_registry_with_tls_is_trusted_by_its_ca_alone(
    tmp_path: Path, real: Start, quick: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    one = real(users=True, tls=True)
    log_in(quick, one.address)
    # To this machine plain HTTP is spoken; for once it counts as any other.
    for module in (target, http, proxy):
        monkeypatch.setattr(module, "is_loopback", lambda _: False)
    if trusted:
        trust_tests_ca(monkeypatch)
    run = Run(tmp_path, one.address).write().export()
    if trusted:
        run.fetch(run.register(), monkeypatch)
        return
    with pytest.raises(PinwheelError, match="certificate is not trusted.*SSL_CERT_FILE") as problem:
        run.register()
    assert problem.value.exit_code == ExitCode.REGISTRY


def test_the_tag_is_in_the_registry(registered: tuple[Run, RealRegistry, str]) -> None:
    _, registry, model = registered
    link = registry.data / f"repositories/models/team-tiny/_manifests/tags/{VERSION}/current/link"
    assert link.read_text() == model.rpartition("@")[2]


def test_a_registry_that_was_killed_is_told_and_the_next_try_goes_on(
    tmp_path: Path, real: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = real()
    run = Run(tmp_path, one.address).write().export()
    one.kill()
    with pytest.raises(PinwheelError, match="connection refused"):
        run.register()
    one.start()
    run.fetch(run.register(), monkeypatch)
