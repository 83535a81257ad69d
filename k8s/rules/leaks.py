"""Rules about secrets that others could read: in manifests, and so in git, and in command lines, which the whole node sees."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from images import secret_scan
from k8s.objects import pods
from k8s.objects.findings import Finding, Path, rule
from k8s.objects.manifests import Manifest
from k8s.objects.pods import items, mapping
from k8s.objects.schema import Walk
from k8s.rules.whole_set import words

# Names of variables, flags and settings whose value is a secret; the last word says it.
_SECRET_NAME = re.compile(
    r"(?:.*(?:[_.-]|(?<=[a-z])(?=[A-Z])))?"
    r"(?:token|password|passwd|passphrase|secret|credentials?|api_?key|(?:private|access|secret|master|encryption|signing)[_.-]?key)"
    r"|pg_?pass(?:word)?|.*[a-z]password",
    re.IGNORECASE,
)
# Of a key nobody says that it is secret; one that belongs to a service is.
_KEY_OF_SERVICE = re.compile(r"[A-Z0-9_]+_KEY")
_OTHER_KEYS = re.compile(
    r"(?:PUBLIC|PARTITION|PRIMARY|FOREIGN|SORT|CACHE|ROUTING|LABEL|TOPOLOGY|HOST|OBJECT|S3|MESSAGE|ROW|UNIQUE|MAP|GROUP|GPG|PGP)_KEY$"
)
# They end as a secret does and are none: a name for a cluster, a switch, a number.
_NO_SECRET_NAME = re.compile(
    r"cluster[_-]?token|(?:^|[_.-])(?:random|empty|allow|disable|enable|use|require|no|has|is|max|min|num|image_?pull|tls|cert)"
    r"[_.-](?:\w*[_.-])?(?:token|password|passwd|secret|credentials?|key)",
    re.IGNORECASE,
)
# What is filled in elsewhere: by the kubelet, a shell, a template.
_FILLED_IN = re.compile(r"\$[({A-Za-z_]|\{\{|<[^>]+>|^%[A-Za-z]|^\*+$|^x{3,}$|__\w+__|\bENC\[|[#%]\{|^@[\w.-]+@$")
_NO_VALUE = re.compile(
    r"(?i:|true|false|yes|no|on|off|none|null|nil|empty|unused|dummy|disabled|enabled|optional|required|default|ignored|n/?a"
    r"|not[-_ ]?(?:needed|used|required)|no[-_]?key|sk-no-key-required|[0-9]{1,3}|/.*|\.{1,2}/.*|file:.*|https?://.*"
    # Where in a store of secrets it is found: Vault's injectors, 1Password, vals, the stores of the clouds.
    r"|(?:vault|bao|secret):[^\s#]*/[^\s#]*#\S+|(?:op|vault|secrets?|awssm|gcpsm|azkv|ref\+\w+)://.*|arn:aws[\w-]*:(?:secretsmanager|ssm|kms):.*"
    r"|projects/[^/\s]+/secrets/.*)"
)
# Of bounded length: otherwise a long word without a colon is read again from each of its letters.
_LOGIN = re.compile(r"[a-z][a-z0-9+.-]{0,30}://[^/@:\s\"']*:([^/@\s\"']+)@")
_HEADER = re.compile(r"\b(?:Bearer|Basic)\s+([A-Za-z0-9._~+/=-]{8,})")
_SETTING = re.compile(
    r"""(?m)^[ \t,{]*(?:export\s+)?["']?([A-Za-z][A-Za-z0-9_.-]*)["']?[ \t]*[:=][ \t]*(["']?)([^\s"',}]+)\2[ \t,}]*$"""
)
_FLAG = re.compile(r"--?([A-Za-z][A-Za-z0-9_.-]*)(?:=(.*))?", re.DOTALL)
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(\S+)")
_EXPANDED = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_GIT = "and so in git"
_FIX = "take it from a Secret: valueFrom.secretKeyRef"


def check(walks: Sequence[Walk]) -> Iterator[Finding]:
    """What of these objects gives a secret away."""
    for walk in walks:
        manifest = walk.manifest
        if manifest.kind == "CustomResourceDefinition":
            continue
        if manifest.kind == "Secret":
            yield from _values(manifest)
        else:
            yield from _texts(walk)
        if manifest.kind == "ConfigMap":
            yield from _settings(manifest)
        for template in pods.templates(manifest):
            for path, container in template.containers():
                yield from _variables(manifest, path, container)
                yield from _command_line(manifest, path, container)


def is_secret(name: str, value: str) -> bool:
    """Whether a value under this name is a secret that is written down, and not where to find one."""
    value = value.strip().strip("\"'")
    if _FILLED_IN.search(value) or _NO_VALUE.fullmatch(value) or _NO_SECRET_NAME.search(name):
        return False
    if _KEY_OF_SERVICE.fullmatch(name) and not _OTHER_KEYS.search(name) and len(value) >= 12 and not set(value) & set(" /"):
        return True
    return bool(_SECRET_NAME.fullmatch(name))


@rule("secret-value")
def _values(manifest: Manifest) -> Iterator[Finding]:
    for group in ("data", "stringData"):
        if mapping(manifest.body.get(group)):
            fix = "make it outside of git and name it under `secrets` in the environment"
            yield manifest.finding((group,), f"a secret's value stands in a manifest, {_GIT}", fix)


@rule("secret-value")
def _texts(walk: Walk) -> Iterator[Finding]:
    """Tokens and keys that their own form gives away, and logins in addresses, wherever they stand."""
    for text in walk.texts:
        if len(text.value) < 8:
            continue
        found = secret_scan.find("", text.value.encode(errors="replace"))
        what = found.kind if found else ""
        for kind, form in (("a password in an address", _LOGIN), ("a login in a header", _HEADER)):
            for match in form.finditer(text.value):
                if not what and not _FILLED_IN.search(match[1]) and not _NO_VALUE.fullmatch(match[1]):
                    what = kind
        if what:
            yield walk.manifest.finding(text.path, f"{what} stands in a manifest, {_GIT}", _FIX)


@rule("secret-value")
def _settings(manifest: Manifest) -> Iterator[Finding]:
    for key, value in mapping(manifest.body.get("data")).items():
        if not isinstance(value, str):
            continue
        named = [(key, value)] if "\n" not in value else [(match[1], match[3]) for match in _SETTING.finditer(value)]
        for name in dict.fromkeys(name for name, held in named if is_secret(name, held)):
            what = f"the value of {name} stands in a ConfigMap, {_GIT}"
            yield manifest.finding(("data", key), what, "put it into a Secret")


@rule("secret-value")
def _variables(manifest: Manifest, path: Path, container: Mapping[str, Any]) -> Iterator[Finding]:
    for number, variable in enumerate(items(container, "env")):
        name, value = str(variable.get("name", "")), variable.get("value")
        if isinstance(value, str) and is_secret(name, value):
            yield manifest.finding((*path, "env", number, "value"), f"the value of {name} stands in a manifest, {_GIT}", _FIX)


@rule("secret-in-command-line")
def _command_line(manifest: Manifest, path: Path, container: Mapping[str, Any]) -> Iterator[Finding]:
    secret = secret_variables(container)
    for group in ("command", "args"):
        line = words(container.get(group))
        for number, word in enumerate(line):
            below: Path = (*path, group, number)
            for name in _EXPANDED.findall(word):
                if name in secret:
                    what = f"the secret {name} would stand in the command line, which the whole node can read"
                    yield manifest.finding(below, what, "let the program read the variable, or mount a file")
            after = line[number + 1] if number + 1 < len(line) else ""
            for name in _literals(word, after):
                what = f"the value of {name} stands in the command line, {_GIT}"
                yield manifest.finding(below, what, f"let the program read a variable, and {_FIX}")


def secret_variables(container: Mapping[str, Any]) -> set[str]:
    """The variables of a container that come from a Secret."""
    return {
        str(variable.get("name"))
        for variable in items(container, "env")
        if mapping(variable.get("valueFrom")).get("secretKeyRef")
    }


def _literals(word: str, after: str) -> Iterator[str]:
    """The flags and assignments of a word that hold a secret; of a script, of all its words."""
    script = re.search(r"\s", word)
    pieces = [*word.split(), ""] if script else [word, after]
    for here, following in itertools.pairwise(pieces):
        if match := _FLAG.fullmatch(here.strip("\"'")):
            value = match[2] if match[2] is not None else "" if following.startswith("-") else following
            # A flag that ends in `secret` mostly says which Secret.
            which = match[1].lower().endswith("secret") and not match[1].lower().endswith("client-secret")
            if len(value) >= 4 and not which and is_secret(match[1].upper().replace("-", "_"), value):
                yield f"--{match[1]}"
        elif (match := _ASSIGNED.fullmatch(here)) and is_secret(match[1], match[2]):
            yield match[1]
