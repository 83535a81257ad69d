"""The cluster's keys and certificates: made at its first start, kept until it is taken down or they are about to expire.

Three authorities: the cluster's own, the one that an extended API server believes (metrics), and the registry's, which is the
only one that anything outside of the cluster is told of.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.files import write_whole
from common.single_node import API_PORT, API_SERVICE, HOST_ADDRESS, NODE_ADDRESS
from k8s.single_node.places import DOMAIN, NODE, Home

_DAYS, _RENEW_DAYS = 365, 30
_LOOPBACK = "127.0.0.1"
_API_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}", "localhost")
# Name of the file: authority, common name, organisation, names and addresses that a server answers to.
_ISSUED: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "apiserver": ("ca", "kube-apiserver", "", (*_API_NAMES, str(API_SERVICE), str(NODE_ADDRESS.ip), _LOOPBACK)),
    "apiserver-client": ("ca", "kube-apiserver", "system:masters", ()),
    "etcd": ("ca", "etcd", "", ("localhost", _LOOPBACK)),
    "front-proxy-client": ("front-proxy-ca", "front-proxy-client", "", ()),
    "kubelet": ("ca", f"system:node:{NODE}", "system:nodes", (NODE, str(NODE_ADDRESS.ip))),
    "controller-manager": ("ca", "system:kube-controller-manager", "", ()),
    "scheduler": ("ca", "system:kube-scheduler", "", ()),
    "proxy": ("ca", "system:kube-proxy", "", ()),
    "policies": ("ca", "pinwheel:policies", "", ()),
    "admin": ("ca", "pinwheel", "system:masters", ()),
    "registry": ("registry-ca", "registry", "", (str(HOST_ADDRESS.ip),)),
}
_AUTHORITIES = {"ca": "Pinwheel single node", "front-proxy-ca": "Pinwheel front proxy", "registry-ca": "Pinwheel registry"}
# The parts that speak to the API server as clients, by their files' names.
_CLIENTS = ("kubelet", "controller-manager", "scheduler", "proxy", "policies")


@dataclass(frozen=True, slots=True)
class _Issuer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make(home: Home) -> bool:
    """Make all anew if something is missing or expires within a month, with the kubeconfigs that hold it; returns whether."""
    folder = home.certificates
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if _good(folder):
        return False
    issuers = {}
    for name, common_name in _AUTHORITIES.items():
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign(common_name, "", key, None, ())
        issuers[name] = _Issuer(certificate, key)
        _write(folder, name, certificate, key)
    for name, (authority, common_name, organisation, hosts) in _ISSUED.items():
        key = ec.generate_private_key(ec.SECP256R1())
        _write(folder, name, _sign(common_name, organisation, key, issuers[authority], hosts), key)
    if not (folder / "service-accounts.key").exists():
        # Tokens outlive a new authority.
        key = ec.generate_private_key(ec.SECP256R1())
        write_whole(folder / "service-accounts.key", _pem(key), 0o600)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_whole(folder / "service-accounts.pub", public)
    for name in _CLIENTS:
        write_whole(folder / f"{name}.kubeconfig", _kubeconfig(folder, name), 0o600)
    write_whole(home.kubeconfig, _kubeconfig(folder, "admin"), 0o600)
    return True


def _good(folder: Path) -> bool:
    """Whether all certificates are there and none expires soon."""
    limit = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=_RENEW_DAYS)
    try:
        return all(
            x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes()).not_valid_after_utc > limit
            for name in (*_AUTHORITIES, *_ISSUED)
        )
    except (OSError, ValueError):
        return False


def _sign(
    common_name: str, organisation: str, key: ec.EllipticCurvePrivateKey, issuer: _Issuer | None, hosts: Iterable[str]
) -> x509.Certificate:
    """Issue a certificate; without an issuer that of a new authority. With hosts it is a server's, and a client's always."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organisation:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    subject, now, hosts = x509.Name(attributes), datetime.datetime.now(datetime.UTC), tuple(hosts)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of virtual machines are corrected now and then.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(_usage(authority=issuer is None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer:
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False).add_extension(identifier, critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
    return builder.sign(issuer.key if issuer else key, hashes.SHA256())


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # Kubernetes reads the older form ("EC PRIVATE KEY") everywhere.
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    write_whole(folder / f"{name}.key", _pem(key), 0o600)
    write_whole(folder / f"{name}.crt", certificate.public_bytes(Encoding.PEM))


def _kubeconfig(folder: Path, name: str) -> str:
    """A kubeconfig of one cluster and one user, complete in itself; JSON, which is YAML."""

    def data(file: str) -> str:
        return b64encode((folder / file).read_bytes()).decode()

    server = f"https://{NODE_ADDRESS.ip}:{API_PORT}"
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NODE,
        "clusters": [{"name": NODE, "cluster": {"server": server, "certificate-authority-data": data("ca.crt")}}],
        "users": [
            {
                "name": name,
                "user": {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")},
            }
        ],
        "contexts": [{"name": NODE, "context": {"cluster": NODE, "user": name}}],
    }
    return json.dumps(body, indent=1) + "\n"
