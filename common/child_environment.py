"""Which of this process's variables a program that it starts gets: those named here, so that no secret goes along by accident.

Everybody puts secrets into the environment (HF_TOKEN, COSIGN_PRIVATE_KEY, what a CI gives), and a program's plugins, crash
reports and own children show theirs. A program that needs more gets it by PINWHEEL_PASS: names, separated by blanks; `*` at the
end of a name stands for anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

VARIABLE = "PINWHEEL_PASS"
# Who and where we are, and how we speak.
_BASIC = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "TZ", "LANG", "LANGUAGE", "LC_*", "XDG_*", "NO_COLOR"),
    *("LD_LIBRARY_PATH", "PYTHONUTF8"),
)
# How the network is reached. A proxy's address may hold a password: only who asks the network gets it.
NETWORK = (
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"),
)
# How the tools of the clouds log in: kubectl's plugins, and a key in a KMS.
_CLOUDS = ("AWS_*", "AZURE_*", "GOOGLE_*", "CLOUDSDK_*", "USE_GKE_*", "OCI_*", "DIGITALOCEAN_*")
_DOCKER = (
    *("DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_API_VERSION"),
    *("BUILDX_*", "BUILDKIT_*", "CONTAINERD_*"),
)
_OF_PROGRAM: dict[str, tuple[str, ...]] = {
    "kubectl": (*NETWORK, "KUBE*", *_CLOUDS),
    # The password of a key is given to the calls that need it; a key in a variable too.
    "cosign": (*NETWORK, *_CLOUDS, "VAULT_*", "DOCKER_CONFIG", "SIGSTORE_*", "ACTIONS_ID_TOKEN_*", "BUILDKITE_*", "SPIFFE_*"),
    "skopeo": (*NETWORK, "REGISTRY_AUTH_FILE", "CONTAINERS_*"),
    "apt-get": (*NETWORK, "APT_CONFIG"),
    "apt-helper": (*NETWORK, "APT_CONFIG"),
    "uv": (*NETWORK, "UV_*"),
    "pip": (*NETWORK, "PIP_*", "VIRTUAL_ENV"),
    "docker": (*NETWORK, *_DOCKER),
    "docker-buildx": (*NETWORK, *_DOCKER),
    "dockerd": (*NETWORK, *_DOCKER),
    "nvidia-smi": ("CUDA_*", "NVIDIA_*"),
}


def chosen(program: str, more: Iterable[str] = ()) -> dict[str, str]:
    """The variables that a program gets.

    Args:
        program: its name.
        more: further names that it needs; `*` at the end stands for anything.
    """
    wanted = (*_BASIC, *_OF_PROGRAM.get(program, ()), *more, *os.environ.get(VARIABLE, "").split())
    exact = {name for name in wanted if not name.endswith("*")}
    # `*` alone would be everything, by a slip.
    prefixes = tuple(name[:-1] for name in wanted if name.endswith("*") and len(name) > 1)
    return {name: value for name, value in os.environ.items() if name in exact or name.startswith(prefixes)}
