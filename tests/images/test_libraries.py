"""Every shared library that a program or library of an image needs is in the image, where the dynamic loader looks for it.

Read from the layout that the line left in `dist/`; no engine takes part. Rules: ld.so(8), System V ABI "Dynamic Linking".
"""

from __future__ import annotations

import fnmatch
import posixpath
import tempfile
from dataclasses import dataclass, field

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile

from common.files import CHUNK
from images import libraries, receipt
from oci.layout import Layout
from tests.images import trees

# After the line, which builds the images.
pytestmark = pytest.mark.engine
# What Debian's ld.so searches on amd64; base.lock's /etc/ld.so.conf.d adds nothing else (asserted).
DEFAULT = ("usr/lib/x86_64-linux-gnu", "usr/lib", "usr/local/lib", "usr/local/lib/x86_64-linux-gnu")


@dataclass
class Object:
    """An ELF file with a dynamic section."""

    needed: list[str]
    search: list[str]


@dataclass
class Objects:
    """The ELF files of an image and the names under which they can be found: files and links by path."""

    found: dict[str, Object] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    configured: set[str] = field(default_factory=set)

    def lay(self, layer: Objects) -> None:
        """Lay a layer over what is there."""
        self.found |= layer.found
        self.links |= layer.links
        self.files |= layer.files
        self.configured |= layer.configured

    def resolved(self, path: str) -> str:
        """The path with every link in it followed."""
        for _ in range(40):
            parts = path.split("/")
            for end in range(1, len(parts) + 1):
                if (target := self.links.get("/".join(parts[:end]))) is not None:
                    above = "" if target.startswith("/") else "/".join(parts[: end - 1])
                    path = posixpath.normpath(posixpath.join("/", above, target, *parts[end:])).lstrip("/")
                    break
            else:
                return path
        raise AssertionError(f"links of {path} go round")

    def has(self, path: str) -> bool:
        """Whether there is a file at this path, links followed."""
        return self.resolved(posixpath.normpath(path).lstrip("/")) in self.files


def read(layout: Layout, digest: str) -> Objects:
    """What a layer holds."""
    objects = Objects()
    with trees.layer(layout, digest) as tar:
        for member in tar:
            path = member.name.removeprefix("./").rstrip("/")
            if member.issym():
                objects.links[path] = member.linkname
            elif member.islnk():
                objects.files.add(path)
                if one := objects.found.get(member.linkname.removeprefix("./")):
                    objects.found[path] = one
            elif member.isreg():
                objects.files.add(path)
                stream = tar.extractfile(member)
                assert stream is not None
                head = stream.read(CHUNK)
                if fnmatch.fnmatch(path, "etc/ld.so.conf.d/*.conf"):
                    objects.configured |= {line.strip("/ ") for line in head.decode().splitlines() if line.startswith("/")}
                if not head.startswith(b"\x7fELF"):
                    continue
                # The largest library has half a gigabyte; the parser jumps about in it.
                with tempfile.TemporaryFile() as copy:
                    while head:
                        copy.write(head)
                        head = stream.read(CHUNK)
                    if one := _object(ELFFile(copy), path):
                        objects.found[path] = one
    return objects


def _object(elf: ELFFile, path: str) -> Object | None:
    if elf["e_machine"] != "EM_X86_64":
        return None
    dynamic = next((s for s in elf.iter_segments() if isinstance(s, DynamicSegment)), None)
    if dynamic is None:
        return None
    tags = list(dynamic.iter_tags())
    runpath = [str(vars(tag)["runpath"]) for tag in tags if tag.entry.d_tag == "DT_RUNPATH"]
    rpath = [str(vars(tag)["rpath"]) for tag in tags if tag.entry.d_tag == "DT_RPATH"]
    origin = "/" + posixpath.dirname(path)
    search = [
        folder.replace("$ORIGIN", origin).replace("${ORIGIN}", origin)
        for text in runpath or rpath
        for folder in text.split(":")
        if folder
    ]
    return Object([str(vars(tag)["needed"]) for tag in tags if tag.entry.d_tag == "DT_NEEDED"], search)


def missing(objects: Objects) -> set[tuple[str, str]]:
    """(file, library it needs) where the loader finds none in the file's own search path nor in the system's folders."""
    return {
        (path, name)
        for path, one in objects.found.items()
        for name in one.needed
        if not any(objects.has(f"{folder}/{name}") for folder in (*one.search, *DEFAULT))
    }


@pytest.fixture(scope="module")
def images() -> dict[str, Objects]:
    """What both images hold; a layer that they share is read once."""
    layout, layers = Layout(receipt.layout()), dict[str, Objects]()
    found = {}
    for image in receipt.read().images:
        found[image.role] = Objects()
        for described in layout.read(image.digest)["layers"]:
            digest = described["digest"]
            layers[digest] = layers.get(digest) or read(layout, digest)
            found[image.role].lay(layers[digest])
    return found


def test_every_library_that_is_needed_is_found_or_its_absence_explained(images: dict[str, Objects]) -> None:
    assert set(images) >= {"train", "api-cpu"}
    listed = libraries.read()
    idle = set(listed.excuses)
    for role, objects in images.items():
        assert len(objects.found) > 500
        assert objects.configured <= {*DEFAULT, "lib/x86_64-linux-gnu"}
        names = {path.rpartition("/")[2] for path in (*objects.files, *objects.links)}
        unexplained = []
        for path, name in sorted(missing(objects)):
            elsewhere = name in names
            idle -= set(listed.of(path, name, elsewhere=elsewhere))
            if listed.unexplained(path, name, elsewhere=elsewhere):
                unexplained.append(f"{role}: {path} needs {name}, which is {'elsewhere' if elsewhere else 'not'} in the image")
        assert not unexplained, "\n".join(unexplained)
    assert not idle, f"explains nothing any more: {idle}"
