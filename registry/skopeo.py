"""skopeo, the second reader of what was pushed, with the login, certificates and proxy that our own client uses."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import RegistryError
from common.files import sha256_bytes
from common.run import Result, run
from oci.client import credentials, proxy, trust
from oci.client.credentials import Credentials
from oci.client.target import Registry
from oci.reference import ImageRef

# Of its own; the pauses between them are its own, too.
RETRIES = "3"
# Seconds for one answer.
PATIENCE = 300.0
# Names the file of its logins.
_LOGIN = "REGISTRY_AUTH_FILE"
# What no push mends: said before the first byte is sent.
_HOPELESS = ("authentication required", "x509", "no such host", "proxyconnect", "remote error: tls")
_REFUSED = ("unauthorized", "denied")


def digest(target: Registry, ref: ImageRef) -> str:
    """The digest of the manifest that the registry serves for a reference, computed from its bytes as skopeo reads them.

    Raises:
        RegistryError: it serves no manifest.
    """
    answer = _inspect(target, ref, RegistryError)
    return sha256_bytes(answer.stdout.encode())


def check(target: Registry, ref: ImageRef, *, hidden: bool) -> None:
    """Find out before anything is sent whether skopeo could read it back.

    Args:
        target: the registry.
        ref: the image by its tag, which need not be there yet.
        hidden: whether our own client was refused the tag as somebody known: that may only mean that it is not there.

    Raises:
        RegistryError: it could not log in, or not reach the registry.
    """
    answer = _inspect(target, ref, None)
    if answer.code and any(word in answer.stderr.lower() for word in (_HOPELESS if hidden else _HOPELESS + _REFUSED)):
        why = (answer.stderr.strip().splitlines() or [""])[-1][:400]
        fix = "it has the login, certificates and proxy of our own client; nothing was sent"
        raise RegistryError("skopeo, which reads back what is pushed, cannot read there", where=why, fix=fix)


def _inspect(target: Registry, ref: ImageRef, error: type[RegistryError] | None) -> Result:
    argv = ["skopeo", "inspect", "--raw", "--retry-times", RETRIES]
    with _login(target, ref) as file:
        if target.plain_http:
            argv.append("--tls-verify=false")
        elif _certificates(target, file.parent):
            argv.append(f"--cert-dir={file.parent}")
        return run(
            [*argv, f"docker://{ref}"],
            error=error,
            what=f"reading {ref} back with skopeo",
            fix="check the registry",
            env=_environment(file),
            timeout=PATIENCE,
        )


@contextmanager
def _login(target: Registry, ref: ImageRef) -> Iterator[Path]:
    """A file with the credentials that our client found, whatever form Docker keeps them in; it is gone afterwards.

    Where it found none, the file that the user names for skopeo itself counts.
    """
    found, entry = Credentials(), {}
    # What is wrong with the user's configuration is said by our own client, where a login is needed.
    with suppress(RegistryError):
        found = Credentials() if target.in_the_clear else credentials.read(target.host, ref.repository)
    if found != Credentials():
        user = found.username or ("<token>" if found.identity_token else "")
        entry["auth"] = base64.b64encode(f"{user}:{found.password}".encode()).decode()
        if found.identity_token:
            entry["identitytoken"] = found.identity_token
    with tempfile.TemporaryDirectory(prefix="pinwheel-") as folder:
        file = Path(folder) / "auth.json"
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump({"auths": {target.host: entry} if entry else {}}, out)
        own = os.environ.get(_LOGIN, "")
        if own and not entry and not target.in_the_clear:
            with suppress(OSError):
                file.write_bytes(Path(own).read_bytes())
        yield file


def _certificates(target: Registry, place: Path) -> bool:
    """Put into a folder what our client trusts and shows beside the system's, as Docker has it; returns whether any is."""
    folder, names = trust.folder(target.host)
    for name in names:
        (place / name).symlink_to(folder / name)
    if target.ca:
        (place / "of-the-environment.crt").write_text(target.ca)
    return bool(names or target.ca)


def _environment(login: Path) -> dict[str, str | None]:
    """Its variables; certificates that the user named for skopeo itself stay."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or ""
    name = "SSL_CERT_DIR" if Path(bundle).is_dir() else "SSL_CERT_FILE"
    certificates = {name: bundle} if bundle and name not in os.environ else {}
    return {_LOGIN: str(login), **certificates, **proxy.for_go()}
