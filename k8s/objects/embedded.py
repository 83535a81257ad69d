"""Manifests inside strings: what a `resource` template of Argo sends, and its patches of pods.

They are read as strictly as files are. A text that is changed is written anew as YAML, every `{{…}}` as it was: those stand in
quoted strings, since a text with bare ones is no YAML before Argo fills them in.
"""

from __future__ import annotations

from typing import Any

from k8s.objects import manifests, strict_yaml
from k8s.objects.findings import Finding, Path
from k8s.objects.manifests import Manifest


def read(text: str) -> tuple[list[Any], str]:
    """The documents of a text, empty ones left out, and why it cannot be read; empty when it can."""
    found: list[Any] = []
    for one in strict_yaml.documents(text, ""):
        if isinstance(one, Finding):
            return [], f"line {one.line} of the text: {one.what}"
        if one[0] is not None:
            found.append(one[0])
    return found, ""


def with_value(manifest: Manifest, path: Path, value: Any) -> Manifest:
    """A copy of the manifest with another value at `path`, which may lead into an embedded text.

    Args:
        manifest: what the path is of.
        path: as a walk gives it: below a text of several manifests stands the number of the document first.
        value: what is put there.
    """
    here: Any = manifest.body
    for length, step in enumerate(path):
        if isinstance(here, str):
            text = _changed(here, path[length:], value)
            return manifests.with_value(manifest, path[:length], text)
        if isinstance(here, dict):
            here = here.get(str(step))
        elif isinstance(here, list) and isinstance(step, int):
            here = here[step]
    return manifests.with_value(manifest, path, value)


def _changed(text: str, path: Path, value: Any) -> str:
    documents, _ = read(text)
    single = not isinstance(path[0], int)  # A patch is one document, and paths lead right into it.
    number, rest = (0, path) if isinstance(path[0], str) else (path[0], path[1:])
    body = manifests.with_value(Manifest("", documents[number], {}), rest, value).body
    return strict_yaml.dump([body] if single else [*documents[:number], body, *documents[number + 1 :]])
