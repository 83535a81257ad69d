"""Manifests inside strings: what a `resource` template of Argo sends, and its patches of pods.

They are read as strictly as files are. A text that is changed is written anew as YAML, every `{{…}}` as it was: quoted ones in
quotes, bare ones (`parallelism: {{workflow.parameters.n}}`), which are no YAML before Argo fills them in, bare.
"""

from __future__ import annotations

import re
from typing import Any

from k8s.objects import manifests, strict_yaml
from k8s.objects.findings import Finding, Path
from k8s.objects.manifests import Manifest

# A plain value that holds `{{…}}`.
_BARE = re.compile(
    r"((?:^|[:\-\[,])[ \t]+|\[)((?:[\w./-]*\{\{[^{}\n\"']*\}\}[\w.:/@+-]*)+)(?=[ \t]*(?:[,\]}\r\n]|[ \t]#|\Z))", re.MULTILINE
)
_WORD = "pinwheelfillsin{}here"


class Bare(str):
    """A plain value with `{{…}}` in it: of what type it will be only Argo knows."""

    __slots__ = ()


def _protected(text: str) -> tuple[str, dict[str, Bare]]:
    """A text with a word in place of each bare value, and what the words stand for."""
    held: dict[str, Bare] = {}

    def put(match: re.Match[str]) -> str:
        word = _WORD.format(len(held))
        held[word] = Bare(match[2])
        return match[1] + word

    return _BARE.sub(put, text) if "{{" in text else text, held


def _restored(value: Any, held: dict[str, Bare]) -> Any:
    if isinstance(value, dict):
        return {key: _restored(item, held) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item, held) for item in value]
    return held.get(value, value) if isinstance(value, str) else value


def _written(bodies: list[Any]) -> str:
    """Documents as text, bare values bare."""
    held: dict[str, Bare] = {}

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: put(item) for key, item in value.items()}
        if isinstance(value, list):
            return [put(item) for item in value]
        if isinstance(value, Bare):
            word = _WORD.format(len(held))
            held[word] = value
            return word
        return value

    text = strict_yaml.dump([put(body) for body in bodies])
    for word, value in held.items():
        text = text.replace(word, value, 1)
    return text


def read(text: str) -> tuple[list[Any], str]:
    """The documents of a text, empty ones left out, and why it cannot be read; empty when it can."""
    found: list[Any] = []
    text, held = _protected(text)
    for one in strict_yaml.documents(text, ""):
        if isinstance(one, Finding):
            return [], f"line {one.line} of the text: {one.what}"
        if one[0] is not None:
            found.append(_restored(one[0], held) if held else one[0])
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
    return _written([body] if single else [*documents[:number], body, *documents[number + 1 :]])
