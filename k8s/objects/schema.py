"""Kubernetes' published schemas (shipped in kubernetes-validate), Argo's beside them, and the one walk of a manifest.

The walk gives everything that later steps need, so that "where is an image?" and "what refers to a Secret?" are answered by
the type of a place, never by guessing from key names. It reports every mistake at once; kubernetes-validate itself stops at the
first and reports one that is none (below). `tests/k8s/objects/test_schema.py` holds the two verdicts against each other.
"""

from __future__ import annotations

import copy
import difflib
import functools
import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from common import paths
from k8s.objects import argo_schema, custom_kinds, embedded, findings, values
from k8s.objects.findings import Finding, Path
from k8s.objects.manifests import Manifest
from k8s.objects.quantity import QUANTITY

_ROOT = "kubernetes-json-schema"
_FOLDER = re.compile(r"v(\d+\.\d+)\.\d+-local-strict")
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
# Required by the schema, and by no server: it fills them in, or does without.
_DEFAULTED = {
    ("PodFailurePolicyOnPodConditionsPattern", "status"),
    ("RoleRef", "apiGroup"),
    ("StatefulSetSpec", "serviceName"),
}
# Fields that hold manifests as text: of the objects that a workflow sends, and of patches of its pods.
EMBEDDED = {("ResourceTemplate", "manifest")} | {
    (owner, "podSpecPatch") for owner in ("WorkflowSpec", "Template", "WorkflowLevelArtifactGC")
}
_WHOLE = ("create", "apply", "replace")  # The actions that send an object; the others name or patch one.
_MISSING = "required and missing"
# In kinds of other people: fields that name an image, and what has labels of any name in it.
_IMAGE = re.compile(r"(?:^i|I)mage$")
_NAMED_FREELY = {"annotations", "labels", "matchLabels", "nodeSelector", "selector"}
# What people write where it does nothing.
_MISPLACED = {
    ("Metadata", "namespace"): (
        "a template's namespace moves nothing: all pods of a workflow run where the workflow is",
        "remove it, and put the workflow and all it mounts into one namespace",
    ),
}


@dataclass(frozen=True, slots=True)
class Text:
    """A string in a manifest and what the schema says about its place.

    Attributes:
        path: where it stands.
        value: the string.
        owner: definition of the object that holds the field, `Container`; empty where the schema does not look inside.
        field: the field of the owner it belongs to, `image`, `args`.
    """

    path: Path
    value: str
    owner: str
    field: str


@dataclass(frozen=True, slots=True)
class Part:
    """An object inside a manifest and its definition, `Container` or `SecretKeySelector`."""

    path: Path
    definition: str
    body: Mapping[str, Any]


@dataclass(slots=True)
class Walk:
    """Everything one walk found.

    Attributes:
        manifest: what was walked.
        texts: every string value, and every key of free mappings.
        parts: every object with a definition, outermost first.
        findings: where the manifest does not fit its schema.
        inner: of the whole objects in embedded texts; their texts and findings are among this one's as well.
        custom: whether it is an object of other people's kinds.
        namespaced: whether objects of its kind have a namespace; None: Kubernetes' own, of which the schemas do not say it.
    """

    manifest: Manifest
    texts: list[Text] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    inner: list[Walk] = field(default_factory=list)
    custom: bool = False
    namespaced: bool | None = None


def _package() -> pathlib.Path:
    # Only its data are wanted: to import it costs a second.
    found = find_spec("kubernetes_validate")
    folders = found.submodule_search_locations if found else None
    return pathlib.Path((folders or [""])[0])


@functools.cache
def _folders() -> dict[str, str]:
    found = {}
    for entry in _package().joinpath(_ROOT).iterdir():
        if match := _FOLDER.fullmatch(entry.name):
            found[match[1]] = entry.name
    return dict(sorted(found.items(), key=lambda item: tuple(map(int, item[0].split(".")))))


def versions() -> tuple[str, ...]:
    """Kubernetes minor versions there is a schema for, oldest first."""
    return tuple(_folders())


class Schema:
    """The schema of one Kubernetes version.

    Args:
        version: minor version, one of `versions()`.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        file = _package().joinpath(_ROOT, _folders()[version], "_definitions.json")
        self.definitions: dict[str, dict[str, Any]] = json.loads(file.read_bytes())["$defs"]
        self._add_argo()
        self.kinds: dict[tuple[str, str], str] = {}
        self._namespaced: dict[tuple[str, str], bool] = {}
        for name, definition in self.definitions.items():
            for known in definition.get("x-kubernetes-group-version-kind", ()):
                group = f"{known['group']}/" if known["group"] else ""
                # DeleteOptions and WatchEvent belong to every group; they are nothing one applies.
                if not name.startswith("io.k8s.apimachinery."):
                    self.kinds[(f"{group}{known['version']}", known["kind"])] = name

    def _add_argo(self) -> None:
        """Argo's definitions, with the types of this Kubernetes version in them; a field of a type it lacks is unknown."""
        added = argo_schema.load()
        known = {"", *self.definitions, *added}
        for name, definition in added.items():
            fields = definition.get("properties", {}).items()
            there = {key: node for key, node in fields if {_reference(node), _reference(node.get("items", {}))} <= known}
            self.definitions[name] = {**definition, "properties": there} if there else definition

    def with_kinds(self, objects: Iterable[Manifest]) -> Schema:
        """This schema and the kinds that are defined among these objects; those that are known already stay as they are."""
        both = copy.copy(self)
        both.definitions, both.kinds, both._namespaced = {**self.definitions}, {**self.kinds}, {**self._namespaced}
        for one in custom_kinds.of(objects, self.definitions):
            key = (one.api_version, one.kind)
            if key not in self.kinds:
                both.definitions[one.name], both.kinds[key], both._namespaced[key] = one.schema, one.name, one.namespaced
        return both

    def walk(self, manifest: Manifest) -> Walk:
        """Walk a manifest beside its schema. A kind without schema is a finding and is not looked into."""
        key = (manifest.api_version, manifest.kind)
        walk = Walk(manifest, custom=custom_kinds.is_custom(manifest), namespaced=self._namespaced.get(key))
        definition = self.kinds.get(key)
        if definition is None:
            walk.findings.append(self._unknown_kind(manifest))
            return walk
        self._visit(walk, manifest.body, {"$ref": f"#/$defs/{definition}"}, (), "", "")
        return walk

    def _unknown_kind(self, manifest: Manifest) -> Finding:
        others = sorted(version for version, kind in self.kinds if kind == manifest.kind)
        what = f"no schema for {manifest.api_version} {manifest.kind} in Kubernetes {self.version}"
        if others:
            return manifest.finding(("apiVersion",), what, f"write apiVersion {' or '.join(others)}")
        fix = f"put its CustomResourceDefinition into the set or into {paths.shown(custom_kinds.folder())}"
        return manifest.finding(("kind",), f"{what}, so its images cannot be found for certain", fix)

    def _visit(self, walk: Walk, value: Any, node: Mapping[str, Any], path: Path, owner: str, name: str) -> None:
        """Check one value against one schema node and go on below it."""
        definition, unasked = "", node.get(argo_schema.UNASKED, ())
        if full := _reference(node):
            definition, node = full.rsplit(".", 1)[1], self.definitions[full]
            if unasked:
                node = {**node, "required": [name for name in node.get("required", ()) if name not in unasked]}
        definition = definition or node.get(custom_kinds.DEFINITION, "")
        if value is None:  # The server takes null as absent, but an empty quantity or port as zero.
            if "oneOf" in node:
                walk.findings.append(walk.manifest.finding(path, "no value", "write one, or remove the key"))
            return
        types = _types(node)
        if types and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
            walk.findings.append(values.wrong_type(walk.manifest, path, value, types))
            return
        if definition == "Quantity" and not QUANTITY.fullmatch(str(value)):
            walk.findings.append(walk.manifest.finding(path, f"{value!r} is not a quantity", "write it like 500m, 2 or 16Gi"))
        if isinstance(value, dict):
            self._object(walk, value, node, path, definition or owner, name if not definition else "")
        elif isinstance(value, list):
            walk.findings += values.twins(walk.manifest, value, node, path)
            for number, item in enumerate(value):
                if item is None:
                    walk.findings.append(
                        walk.manifest.finding((*path, number), "an empty list item", "fill it in or remove it")
                    )
                self._visit(walk, item, node.get("items", {}), (*path, number), owner, name)
        else:
            walk.findings += values.bounds(walk.manifest, value, node, path)
        if isinstance(value, str):
            if walk.custom and value and _IMAGE.search(str(path[-1])) and not _NAMED_FREELY & {*path[-2:-1]}:
                owner, name = "Container", "image"
            walk.texts.append(Text(path, value, owner, name))

    def _object(
        self, walk: Walk, value: dict[str, Any], node: Mapping[str, Any], path: Path, definition: str, name: str
    ) -> None:
        known, extra = node.get("properties", {}), node.get("additionalProperties", {})
        if known:
            walk.parts.append(Part(path, definition, value))
        for required in node.get("required", ()):
            if value.get(required) is None and (definition, required) not in _DEFAULTED:
                missing = walk.manifest.finding((*path, required), _MISSING, "write it")
                walk.findings += findings.named("required-field", [missing])
        for key, item in value.items():
            below = (*path, key)
            if (definition, key) in EMBEDDED and isinstance(item, str):
                self._embedded(walk, item, below, str(value.get("action", "")))
            elif key in known:
                self._visit(walk, item, known[key], below, definition, key)
            elif (definition, key) in _MISPLACED:
                walk.findings.append(walk.manifest.finding(below, *_MISPLACED[(definition, key)]))
            elif extra is False:
                close = difflib.get_close_matches(key, known, 1)
                fix = f"did you mean {close[0]}?" if close else "remove it; the server would drop it in silence"
                owner = definition or ".".join(str(step) for step in path) or walk.manifest.kind
                walk.findings.append(walk.manifest.finding(below, f"unknown field of {owner}", fix))
            elif known or not extra:  # Free-form: the schema does not look inside.
                walk.texts.append(Text(below, key, "", ""))
                self._visit(walk, item, {}, below, "", key)
            else:  # A map: labels, data, limits.
                walk.texts.append(Text(below, key, definition, name))
                self._visit(walk, item, extra, below, definition, name)

    def _embedded(self, walk: Walk, text: str, path: Path, action: str) -> None:
        """Look into a text that holds manifests, or a patch of a pod, or what `action: patch` changes in any object."""
        bodies, problem = embedded.read(text)
        patch, whole = path[-1] == "podSpecPatch", action in _WHOLE
        whole_objects = all(isinstance(body, dict) for body in bodies) and not (patch and len(bodies) != 1)
        if not problem and action != "patch" and not whole_objects:
            problem = "it is no mapping" if patch else "a document in it is no object"
        if problem:
            walk.findings.append(walk.manifest.finding(path, f"cannot be read: {problem}", "mend the text"))
            return
        if patch:
            part = Walk(walk.manifest)
            self._visit(part, bodies[0], {"$ref": "#/$defs/io.k8s.api.core.v1.PodSpec"}, path, "", "")
            # A patch says what it changes, and by name of which container.
            walk.findings += [one for one in part.findings if one.what != _MISSING or one.path.endswith(".name")]
            walk.texts += part.texts
            walk.parts += part.parts
            return
        outer = walk.manifest
        for number, body in enumerate(bodies):
            if action == "patch" and not (isinstance(body, dict) and "kind" in body):
                # A JSON patch, or a merge patch of the object that the flags name: no schema says of which kind.
                self._visit(walk, body, {}, (*path, number), "", "")
                continue
            inner = self.walk(Manifest(outer.file, body, outer.lines, (*outer.prefix, *path, number)))
            if whole:
                walk.inner.append(inner)
            walk.findings += [one for one in inner.findings if whole or one.what != _MISSING]
            walk.texts += [Text((*path, number, *one.path), one.value, one.owner, one.field) for one in inner.texts]


def _reference(node: Mapping[str, Any]) -> str:
    """The full name of the definition that a node names; empty when it says itself what it is."""
    return str(node.get("$ref", "")).rsplit("/", 1)[-1]


def _types(node: Mapping[str, Any]) -> tuple[type, ...]:
    named: list[Any] = []
    for part in (node, *node.get("oneOf", ())):
        said = part.get("type", [])
        named += [said] if isinstance(said, str) else said
    return tuple(kind for name in named if name != "null" for kind in _JSON_TYPES[name])


def of_set(version: str, objects: Iterable[Manifest]) -> Schema:
    """The schema of a Kubernetes version, with the kinds that a set defines and those of `k8s/crds/`.

    Args:
        version: minor version, one of `versions()`.
        objects: of the set.
    """
    defined = custom_kinds.definitions_for(list(objects))
    return schema(version).with_kinds(defined) if defined else schema(version)


@functools.cache
def schema(version: str) -> Schema:
    """The schema of a Kubernetes version, read once.

    Args:
        version: minor version, one of `versions()`.
    """
    return Schema(version)
