"""What counts as a secret in a file for an image, and what only looks like one. All of them are made on the spot."""

from __future__ import annotations

import base64
import itertools
import json
import random
import string
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)
from hypothesis import given
from hypothesis import strategies as st

from common import paths, private_keys
from images import secret_scan
from images.secret_scan import Secret

RSA = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()
PASSWORD = BestAvailableEncryption(b"word")
NONE = NoEncryption()
PEM, DER = Encoding.PEM, Encoding.DER
_RANDOM = random.Random(13)


def drawn(count: int, letters: str = string.ascii_letters + string.digits) -> str:
    return "".join(_RANDOM.choices(letters, k=count))


def found(data: bytes | str, name: str = "file") -> str:
    """The kind of the secret that is found; empty: none."""
    secret = secret_scan.find(name, data.encode() if isinstance(data, str) else data)
    return secret.kind if secret else ""


KEYS = {
    "PKCS#1": RSA.private_bytes(PEM, PrivateFormat.TraditionalOpenSSL, NONE),
    "PKCS#1, encrypted": RSA.private_bytes(PEM, PrivateFormat.TraditionalOpenSSL, PASSWORD),
    "PKCS#8 of RSA": RSA.private_bytes(PEM, PrivateFormat.PKCS8, NONE),
    "PKCS#8 of Ed25519": EDWARDS.private_bytes(PEM, PrivateFormat.PKCS8, NONE),
    "PKCS#8, encrypted": CURVE.private_bytes(PEM, PrivateFormat.PKCS8, PASSWORD),
    "SEC 1": CURVE.private_bytes(PEM, PrivateFormat.TraditionalOpenSSL, NONE),
    "DSA": dsa.generate_private_key(1024).private_bytes(PEM, PrivateFormat.TraditionalOpenSSL, NONE),
    "OpenSSH": EDWARDS.private_bytes(PEM, PrivateFormat.OpenSSH, NONE),
}
PKCS8 = KEYS["PKCS#8 of RSA"].decode()
# A secret key packet of version 4 (RFC 9580), tag 5, in the old form of packets.
PGP = base64.b64encode(bytes([0x95, 0x01, 0x3E, 4]) + _RANDOM.randbytes(300)).decode()


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize(
    "within",
    [
        lambda pem: pem,
        lambda pem: "\n".join("    " + line for line in pem.splitlines()),
        lambda pem: pem.replace("\n", "\r\n"),
        lambda pem: "KEY=" + json.dumps(pem),
        lambda pem: "\n".join(f'    "{line}\\n"' for line in pem.splitlines()),
        lambda pem: "key: " + base64.b64encode(pem.encode()).decode(),
        lambda pem: base64.encodebytes(pem.encode()).decode(),
        lambda pem: pem.rpartition("-----END")[0],
    ],
    ids=["as it is", "indented", "of Windows", "JSON", "strings of a program", "base64", "base64 in lines", "without its end"],
)
def test_a_private_key_is_found_wherever_it_stands(kind: str, within: Callable[[str], str]) -> None:
    text = "first\nsecond\n" + within(KEYS[kind].decode())
    secret = secret_scan.find("notes.txt", text.encode())
    assert secret is not None
    assert secret.kind.startswith("a private key (PEM")
    assert secret.line == 3


@pytest.mark.parametrize(
    "der",
    [
        RSA.private_bytes(DER, PrivateFormat.TraditionalOpenSSL, NONE),
        RSA.private_bytes(DER, PrivateFormat.PKCS8, NONE),
        RSA.private_bytes(DER, PrivateFormat.PKCS8, PASSWORD),
        EDWARDS.private_bytes(DER, PrivateFormat.PKCS8, NONE),
        CURVE.private_bytes(DER, PrivateFormat.TraditionalOpenSSL, NONE),
        pkcs12.serialize_key_and_certificates(b"name", CURVE, None, None, PASSWORD),
    ],
    ids=["PKCS#1", "PKCS#8", "PKCS#8, encrypted", "Ed25519", "SEC 1", "PKCS#12"],
)
def test_a_private_key_in_binary_is_found(der: bytes) -> None:
    assert secret_scan.find("key.der", der) == Secret(private_keys.der(der, whole=True), 1)
    assert not found(der + b"more")
    assert not found(b"more" + der)


def test_keys_of_pgp_and_putty_are_found() -> None:
    lines = "\n".join(PGP[at : at + 64] for at in range(0, len(PGP), 64))
    head = "-----BEGIN PGP PRIVATE KEY BLOCK-----\n"
    assert found(f"{head}\n{lines}\n") == "a private key (PEM, PGP PRIVATE KEY BLOCK)"
    assert found(f"{head}Version: GnuPG v2\nComment: of nobody\n\n{lines}\n")
    putty = (
        "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: of nobody\nPublic-Lines: 1\nAAAA\nPrivate-Lines: 1\n"
    )
    assert found("\n" + putty + drawn(44)) == "a private key (PuTTY)"
    assert not found(putty.partition("Private")[0])


def public() -> list[tuple[str, bytes]]:
    pgp = base64.b64encode(bytes([0x99, 0x01, 0x0D, 4]) + _RANDOM.randbytes(300)).decode()
    return [
        *(
            (f"{form}", RSA.public_key().public_bytes(PEM, form))
            for form in (PublicFormat.PKCS1, PublicFormat.SubjectPublicKeyInfo)
        ),
        ("DER", CURVE.public_key().public_bytes(DER, PublicFormat.SubjectPublicKeyInfo)),
        ("DER of PKCS#1", RSA.public_key().public_bytes(DER, PublicFormat.PKCS1)),
        ("OpenSSH", EDWARDS.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)),
        ("signature", CURVE.sign(b"x", ec.ECDSA(SHA256()))),
        (
            "certificate",
            b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(_RANDOM.randbytes(800)) + b"-----END CERTIFICATE-----\n",
        ),
        ("PGP", f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{pgp}\n".encode()),
    ]


@pytest.mark.parametrize("data", [pytest.param(data, id=what) for what, data in public()])
def test_what_is_public_passes(data: bytes) -> None:
    assert not found(data)


@pytest.mark.parametrize(
    "text",
    [
        'if b"PRIVATE KEY" in pem:\n    raise ValueError',
        'HEAD = "-----BEGIN PRIVATE KEY-----"\n',
        "starts with -----BEGIN RSA PRIVATE KEY----- and the lines that follow hold the key in base64, then the end of it\n",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\n" + "x" * 64 + "\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nMIIE...\n-----END PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,...\n",
        "-----BEGIN PRIVATE KEY-----\n{{ .Values.key }}\n-----END PRIVATE KEY-----\n",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + base64.encodebytes(_RANDOM.randbytes(300)).decode(),
        base64.encodebytes(_RANDOM.randbytes(3000)).decode(),
        base64.b64encode(b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(_RANDOM.randbytes(300))).decode(),
    ],
    ids=itertools.count(),
)
def test_what_only_speaks_of_private_keys_passes(text: str) -> None:
    assert not found(text)


AUTH = base64.b64encode(b"robot:" + drawn(20).encode()).decode()
DOCKER = json.dumps({"auths": {"registry.example": {"auth": AUTH}}})
KUBE = "apiVersion: v1\nkind: Config\nusers:\n- name: me\n  user:\n    "
AWS_SECRET = "a1B" + drawn(37)
ACCOUNT = json.dumps({"type": "service_account", "project_id": "p", "private_key": PKCS8, "client_email": "a@b"})


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("a token of Hugging Face", "HF_TOKEN=hf_" + drawn(34)),
        ("a token of Hugging Face", f'login(token="hf_{drawn(34)}")'),
        ("a token of GitHub", "ghp_" + drawn(36)),
        ("a token of GitHub", "https://gho_" + drawn(36) + "@github.com"),
        ("a token of GitHub", f"github_pat_{drawn(22)}_{drawn(59)}"),
        ("a token of GitLab", "glpat-" + drawn(20)),
        ("a key of AWS with its secret", f"AKIA{drawn(16, string.ascii_uppercase + '234567')}\n{AWS_SECRET}\n"),
        ("a key of AWS with its secret", f"id = ASIA{drawn(16, string.ascii_uppercase)}\nsecret = {AWS_SECRET}\n"),
        ("a secret key of AWS", f"aws_secret_access_key = {AWS_SECRET}\n"),
        ("a secret key of AWS", json.dumps({"SecretAccessKey": AWS_SECRET})),
        ("a key of a Google service account", ACCOUNT),
        ("a key of Google's APIs", "key=AIza" + drawn(35)),
        ("a token of Slack", f"xoxb-123{drawn(9, string.digits)}-{drawn(24)}"),
        ("a webhook of Slack", f"https://hooks.slack.com/services/T{drawn(8).upper()}/B{drawn(8).upper()}/{drawn(24)}"),
        ("a login of npm", f"//registry.example/:_authToken={drawn(36)}\n"),
        ("a token of npm", "npm_" + drawn(36)),
        ("a token of PyPI", "pypi-AgEIcHlwaS5vcmc" + drawn(120)),
        ("a key of Weights & Biases", "WANDB_API_KEY=" + drawn(40, "0123456789abcdef")),
        ("a key of Weights & Biases", f'wandb_api_key: "{drawn(40, "0123456789abcdef")}"'),
        ("a login of a registry (docker)", DOCKER),
        ("a login of a registry (docker)", json.dumps(DOCKER)),
        ("a login of a registry (docker)", json.dumps({"registry.example": {"auth": AUTH, "email": "a@b"}})),
        ("a login of a registry (docker)", json.dumps({"auths": {"registry.example": {"username": "me", "password": "word"}}})),
        ("a login of a registry (docker)", json.dumps({"auths": {"registry.example": {"identitytoken": drawn(40)}}})),
        ("a login of a registry (docker)", "data:\n  .dockerconfigjson: " + base64.b64encode(DOCKER.encode()).decode()),
        ("a client key of a kubeconfig", KUBE + "client-key-data: " + base64.b64encode(KEYS["SEC 1"]).decode()),
        ("a login of a kubeconfig", KUBE + "token: " + drawn(60)),
        ("a login of a kubeconfig", KUBE + "username: me\n    password: secretword"),
        ("a login of .netrc", "machine api.example login me password " + drawn(12)),
        ("a login of .netrc", "machine api.example\n  login me\n  password " + drawn(12)),
    ],
    ids=itertools.count(),
)
def test_a_login_or_a_token_is_found_on_its_line(kind: str, text: str) -> None:
    assert found(text) == kind
    assert found(f"{drawn(7)}\n{text}\n{drawn(7)}\n") == kind or text.startswith("{")
    assert found(text.encode("utf-16")) == kind


@pytest.mark.parametrize(
    "text",
    [
        "from transformers import hf_hub_download, hf_argument_parser_for_all_of_the_settings",
        "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "hf_xxxxx and hf_... and hf_YOUR_TOKEN",
        "my_hf_" + drawn(34),
        "hf_" + drawn(34) + "_of_something",
        "hf_" + drawn(60),
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "ghp_short and ghs_ and gho_" + drawn(20),
        "glpat-XXXXXXXXXXXXXXXXXXXX",
        "AKIAIOSFODNN7EXAMPLE\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        f"the id AKIA{drawn(16, string.ascii_uppercase)} alone",
        f"AKIA{drawn(16, string.ascii_uppercase)} in {drawn(40, '0123456789abcdef')}",
        "aws_secret_access_key = ${AWS_SECRET_ACCESS_KEY}",
        "AIza is how a key of Google begins",
        "xoxb-your-token-here-and-more-words",
        "user_and_password = base64.b64decode(text)",
        "//registry.example/:_authToken=${NPM_TOKEN}",
        "pypi-simple and pypi-AgE",
        "WANDB_API_KEY=${WANDB_API_KEY}",
        "commit " + drawn(40, "0123456789abcdef"),
        json.dumps({"auths": {}}),
        json.dumps({"auths": {"registry.example": {}}, "credsStore": "desktop"}),
        json.dumps({"auths": {"registry.example": {"auth": ""}}}),
        '{"auth": "basic", "auths": {"registry.example": {}}}',
        'secret.body["auths"][host]["auth"] = encoded',
        KUBE.replace("user:\n    ", "user:\n    token: ${TOKEN}"),
        KUBE + "client-certificate-data: " + base64.b64encode(b"-----BEGIN CERTIFICATE-----\n" + b"A" * 64).decode(),
        KUBE + "tokenFile: /var/run/token",
        "kind: Deployment\nusers: []\n  token: word",
        "machine learning login and password handling",
        'f"machine {host} login {user} password {token}"',
        '"type": "service_account"',
        "sha256:" + drawn(64, "0123456789abcdef"),
    ],
    ids=itertools.count(),
)
def test_what_only_looks_like_a_login_or_a_token_passes(text: str) -> None:
    assert not found(text)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        (".netrc", "machine a password word\n", "a login of .netrc"),
        (".netrc", "machine a\nlogin me\n", ""),
        (".pypirc", "[index]\nusername = me\npassword = word\n", "a login of .pypirc"),
        (".git-credentials", "https://me:word@host\n", "a login of git"),
        ("notes", "password word\nhttps://me:word@host\n", ""),
    ],
)
def test_a_file_of_logins_is_known_by_its_name(name: str, text: str, kind: str) -> None:
    assert found(text, name) == kind


def test_the_first_secret_is_named_with_its_line_and_never_shown() -> None:
    token = "ghp_" + drawn(36)
    secret = secret_scan.find("x", f"a\nb\n{token}\n{PKCS8}".encode())
    assert secret == Secret("a token of GitHub", 3)
    assert token not in repr(secret)


@given(st.binary(max_size=2000))
def test_any_bytes_can_be_looked_through(data: bytes) -> None:
    secret_scan.find("x", data)
    secret_scan.find("x", b"0\x82" + data)
    secret_scan.find("x", b"-----BEGIN PRIVATE KEY-----\n" + base64.b64encode(data))


@pytest.mark.parametrize("folder", ["oci", "common", "k8s/pipeline", "images", "registry"])
def test_programs_of_ours_hold_no_secret(folder: str) -> None:
    for file in (paths.ROOT / folder).rglob("*.py"):
        assert secret_scan.find(file.name, file.read_bytes()) is None, file
