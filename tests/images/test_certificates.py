"""Certificate authorities in an image."""

from __future__ import annotations

import datetime
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from common import paths
from common.errors import UsageError
from common.reader import Keys
from images import certificates, config
from images.tarball import LayerWriter
from lockfiles import lockfile
from lockfiles.debian import resolver, rootfs

KEY = ec.generate_private_key(ec.SECP256R1())
SECRET = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def authority(name: str, serial: int = 1, *, issuer: str = "", signs: bool = True, year: int = 2026, days: int = 3650) -> str:
    """A certificate as PEM: of an authority that signs itself, unless something else is said."""
    subject, by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, issuer or name))
    day = datetime.datetime(year, 1, 1, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder(by, subject, KEY.public_key(), serial, day, day + datetime.timedelta(days=days))
    made = made.add_extension(x509.BasicConstraints(ca=signs, path_length=None), critical=True)
    return made.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def read(folder: Path, *names: str) -> tuple[certificates.Certificate, ...]:
    return certificates.read(Keys({"certificates": list(names)}, "images/shared.toml"))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate in PEM"),
        (authority("a") + authority("b", 2), "holds 2 certificates: Debian takes one for each file"),
        (authority("a") + SECRET, "holds a private key"),
        (authority("a", issuer="Acme Root", signs=False), "is the certificate of a server"),
    ],
)
def test_what_is_not_one_certificate_alone_is_refused(text: str, said: str, checkout: Path) -> None:
    (checkout / "acme.crt").write_text(text)
    with pytest.raises(UsageError, match=rf"certificates: acme.crt.* {said}.*images/shared.toml"):
        read(checkout, "acme.crt")


def test_a_certificate_in_der_is_refused_with_the_command_that_writes_pem(checkout: Path) -> None:
    made = x509.load_pem_x509_certificate(authority("a").encode())
    (checkout / "acme.crt").write_bytes(made.public_bytes(Encoding.DER))
    with pytest.raises(UsageError, match="holds no certificate in PEM .*openssl x509 -inform der -in acme.crt"):
        read(checkout, "acme.crt")


@pytest.mark.parametrize(
    ("year", "days", "said"),
    [(2019, 365, "acme expired on 2020-01-01"), (2999, 365, "acme is not valid before 2999-01-01"), (2019, 365_000, "")],
)
def test_an_authority_that_is_not_valid_today_is_taken_and_said(
    year: int, days: int, said: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "acme.crt").write_text(authority("a", year=year, days=days))
    certificates.tell_expired(read(checkout, "acme.crt"))
    told = " ".join("".join(capsys.readouterr()).split())
    assert said in told if said else not told


def test_one_that_an_authority_signed_and_that_signs_others_is_taken(checkout: Path) -> None:
    (checkout / "acme.crt").write_text(authority("a", issuer="Acme Root"))
    (checkout / "self.crt").write_text(authority("b", signs=False))
    assert len(read(checkout, "acme.crt", "self.crt")) == 2


@pytest.mark.parametrize("name", ["/etc/acme.crt", "../acme.crt", "acme.der", "a b.crt", ".crt", "none.crt"])
def test_a_file_that_cannot_be_taken_is_refused(name: str, checkout: Path) -> None:
    with pytest.raises(UsageError, match="^certificates: "):
        read(checkout, name)


def test_two_of_one_name_or_one_twice_are_refused(checkout: Path) -> None:
    for name, text in (("a/x.crt", authority("a")), ("b/x.pem", authority("b")), ("b/y.crt", authority("a"))):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text(text)
    with pytest.raises(UsageError, match="one name"):
        read(checkout, "a/x.crt", "b/x.pem")


def test_what_stands_beside_the_certificate_does_not_count(checkout: Path) -> None:
    (checkout / "x.crt").write_text(authority("a"))
    plain = read(checkout, "x.crt")
    (checkout / "x.crt").write_text("# Acme's authority, 2026\n" + authority("a").replace("\n", "\r\n"))
    assert plain[0].name == read(checkout, "x.crt")[0].name == "x"


def test_pythons_libraries_are_told_only_where_there_is_something_to_tell(checkout: Path) -> None:
    (checkout / "x.crt").write_text(authority("a"))
    assert certificates.environment(()) == {}
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    assert certificates.environment(read(checkout, "x.crt")) == {"SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle}


@pytest.mark.host
def test_an_image_trusts_them_as_if_update_ca_certificates_had_run(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's own program over a copy of the base's folders is the oracle."""
    base = lockfile.read_base()
    resolver.fetch(base.debs)
    made = rootfs.made(base)
    # One of the subject that the base has already: OpenSSL numbers those.
    taken = next((made.tree / certificates.FOLDER).glob("*.pem"))
    texts = {"acme-root.crt": authority("Acme Root"), "acme-two.crt": authority("Acme Root", 2)}
    for name, text in texts.items():
        (checkout / name).write_text(text)
    assert taken.is_symlink()
    given = read(checkout, *texts)
    writer_out = io.BytesIO()
    accounts = config.accounts(made.tar)
    writer = LayerWriter(writer_out)
    monkeypatch.setattr(config, "_check_account", lambda *_: None)
    config.fill(_Spec(given), accounts, "3.11.2", made.tree, writer)  # type: ignore[arg-type]
    writer.close()
    tar = zstandard.ZstdDecompressor().decompressobj().decompress(writer_out.getvalue())
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        ours = {member.name: member for member in archive}
        held = archive.extractfile(certificates.BUNDLE)
        assert held is not None
        bundle = held.read().decode()
    root = checkout / "root"
    for folder in ("etc/ssl/certs", "usr/share/ca-certificates"):
        shutil.copytree(made.tree / folder, root / folder, symlinks=True)
    shutil.copy(made.tree / "etc/ca-certificates.conf", root / "etc/ca-certificates.conf")
    local = root / "usr/local/share/ca-certificates"
    local.mkdir(parents=True)
    for one in given:
        (local / f"{one.name}.crt").write_text(one.pem)
    program = made.tree / "usr/sbin/update-ca-certificates"
    argv: list[str | Path] = [
        "sh",
        program,
        "--certsconf",
        root / "etc/ca-certificates.conf",
        "--certsdir",
        root / "usr/share/ca-certificates",
    ]
    argv += ["--localcertsdir", local, "--etccertsdir", root / "etc/ssl/certs", "--hooksdir", root / "none"]
    subprocess.run(argv, check=True, capture_output=True)
    before = {p.name for p in (made.tree / "etc/ssl/certs").iterdir()}
    new = {p.name: str(p.readlink()) for p in (root / "etc/ssl/certs").iterdir() if p.is_symlink() and p.name not in before}
    links = {n.rpartition("/")[2]: m.linkname for n, m in ours.items() if n.startswith("etc/ssl/certs/") and m.issym()}
    assert set(links) == set(new)
    assert {n: t for n, t in links.items() if not n.endswith(".pem")} == {
        n: t for n, t in new.items() if not n.endswith(".pem")
    }
    assert sorted(_each(bundle)) == sorted(_each((root / certificates.BUNDLE).read_text()))


class _Spec:
    """What `fill` asks of a spec."""

    user, uid, workdir = "pinwheel", 10001, "/workspace"

    def __init__(self, given: tuple[certificates.Certificate, ...]) -> None:
        self.certificates = given


def _each(bundle: str) -> list[str]:
    """The certificates of a bundle; its order is that of file names, and of no meaning."""
    return ["".join(part.split()) for part in bundle.split("-----END CERTIFICATE-----\n") if part.strip()]
