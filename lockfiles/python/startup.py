"""Code of a wheel that runs whenever Python starts, though nobody imports it (Python's `site` module).

That is a line of a `.pth` file in the site folder which begins with `import`, and the modules `sitecustomize` and
`usercustomize`. Packages that steal secrets use it, because it runs in every process; few others need it.
"""

from __future__ import annotations

import hashlib
import re
import zipfile

# Where a wheel's files lie in the site folder: at its root, and in these of its `.data` folder.
_SCHEME = re.compile(r"^[^/]+\.data/(?:(?:purelib|platlib)/|data/(?:.*/)?(?:site|dist)-packages/)")
_TOP = re.compile(r"(?:sitecustomize|usercustomize)[./]")
_MODULE = re.compile(r"(?:.*/)?(?:sitecustomize|usercustomize)(?:\.(?:py|pyc|[^/]*so)|/__init__\.[^/]+)")
# `site` takes each of these for the beginning of code.
_CODE = (b"import ", b"import\t")
_LONGEST = 1 << 20


def find(archive: zipfile.ZipFile) -> dict[str, str]:
    """The files of a wheel that run at start: the sha256 of each by its path in the site folder."""
    found, modules, folders = {}, {}, False
    for entry in archive.infolist():
        path = _SCHEME.sub("", entry.filename)
        if entry.is_dir() or not (("/" not in path and path.endswith(".pth")) or _MODULE.fullmatch(path)):
            continue
        # What is too large to be looked into is taken for code.
        body = archive.read(entry) if entry.file_size <= _LONGEST else b"import "
        sha256 = hashlib.sha256(body).hexdigest()
        if not path.endswith(".pth"):
            modules[path] = sha256
        elif any(line.startswith(_CODE) for line in body.removeprefix(b"\xef\xbb\xbf").splitlines()):
            found[path] = sha256
        else:
            # Folders for sys.path: whatever lies in one of them is found there, too.
            folders = True
    return found | {path: sha256 for path, sha256 in modules.items() if folders or "/" not in path or _TOP.match(path)}
