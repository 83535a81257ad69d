"""What every image promises, found out from inside a container of it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from smoke.bench import Bench
from smoke.session import PAYLOAD

_LIMIT_S = 60.0


@pytest.mark.parametrize("image", ["train", "api"])
@pytest.mark.rung("contract of {image}")
def test_contract(bench: Bench, say: Callable[[str], None], image: str) -> None:
    """Debian 12, Python 3.11.2, an unprivileged user, nothing writable but the workspace and /tmp, no network."""
    with bench.container(f"contract of {image}", image, ["python", f"{PAYLOAD}/contract.py"]) as box:
        box.finish(_LIMIT_S)
        found = json.loads(box.stdout())
    bench.figures.versions[image] = found["packages"]
    assert found["os"] == "debian 12", f"the system is {found['os']}, not Debian 12"
    assert found["python"] == "3.11.2", f"Python is {found['python']}, not 3.11.2"
    assert found["prefix"] == "/opt/venv", f"python is that of {found['prefix']}, not of /opt/venv"
    assert found["uid"] > 0, "the image's user is root"
    assert found["gid"] > 0, "the image's group is root's"
    # The workspace is a fresh volume, which takes its owner from the image.
    expected = ["/tmp", "/workspace"]  # noqa: S108 - inside the container
    assert found["writable"] == expected, f"writable: {', '.join(found['writable'])}; should be: {', '.join(expected)}"
    assert found["interfaces"] == ["lo"], f"network interfaces: {', '.join(found['interfaces'])}; should be: lo"
    assert int(found["capabilities"], 16) == 0, f"the container can gain capabilities {found['capabilities']}"
    assert found["no_new_privileges"] == "1", "the container can gain privileges"
    needed = {"llamafactory", "torch", "transformers"} | ({"vllm"} if image == "api" else set())
    missing = sorted(needed - found["packages"].keys())
    assert not missing, f"not installed: {', '.join(missing)}"
    versions = ", ".join(f"{name} {found['packages'][name]}" for name in sorted(needed))
    say(f"Debian 12, Python 3.11.2, uid {found['uid']}, {versions}")
