"""Kinds of other people: the schemas that their CustomResourceDefinitions bring (apiextensions.k8s.io/v1).

They do not say that a place holds Kubernetes' own PodSpec or SecretKeySelector: it is told by its fields, so that every rule
about pods reaches there. Where a schema leaves open what a place holds, images are found by the field's name (schema.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from k8s.objects import argo_schema
from k8s.objects.manifests import Manifest

# Of a schema node: the definition of Kubernetes' own that its fields are those of.
DEFINITION = "x-pinwheel-definition"
_CORE = "io.k8s.api.core.v1."
# A place with these fields is one of these.
_LIKE: tuple[tuple[str, frozenset[str]], ...] = (
    ("PodSpec", frozenset({"containers", "initContainers", "volumes"})),
    ("PodTemplateSpec", frozenset({"metadata", "spec"})),
    ("Container", frozenset({"args", "command", "env", "image"})),
    ("Volume", frozenset({"configMap", "emptyDir", "secret"})),
    ("EnvVar", frozenset({"name", "value", "valueFrom"})),
    ("EnvFromSource", frozenset({"configMapRef", "secretRef"})),
    ("ResourceRequirements", frozenset({"limits", "requests"})),
)
_KEPT = ("enum", "items", "maximum", "minimum", "type", "x-kubernetes-list-map-keys", "x-kubernetes-list-type")
# Groups of Kubernetes' own with a dot in their names.
_GROUPS = {
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
}


class CustomKind(NamedTuple):
    """A kind as its definition describes it in one version.

    Attributes:
        api_version: `acme.example.com/v1`.
        kind: `Pipeline`.
        namespaced: whether its objects have a namespace.
        schema: of its objects, in the form of Kubernetes' own schemas.
    """

    api_version: str
    kind: str
    namespaced: bool
    schema: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name among the definitions."""
        return f"{self.api_version.replace('/', '.')}.{self.kind}"


def is_custom(manifest: Manifest) -> bool:
    """Whether an object is of a kind of other people: neither Kubernetes' own nor Argo's."""
    if manifest.api_version == argo_schema.API_VERSION and manifest.kind in argo_schema.KINDS:
        return False
    group = manifest.identity.group
    return "." in group and group not in _GROUPS


def of(objects: Iterable[Manifest], definitions: Mapping[str, dict[str, Any]]) -> Iterator[CustomKind]:
    """The kinds that the CustomResourceDefinitions among these objects define.

    Args:
        objects: of any kind.
        definitions: Kubernetes' own, by full name.
    """
    for crd in objects:
        if crd.kind != "CustomResourceDefinition":
            continue
        spec = _mapping(crd.body.get("spec"))
        versions = spec.get("versions")
        for version in versions if isinstance(versions, list) else ():
            written = _mapping(_mapping(version).get("schema")).get("openAPIV3Schema")
            api_version = f"{spec.get('group')}/{_mapping(version).get('name')}"
            kind = str(_mapping(spec.get("names")).get("kind"))
            yield CustomKind(api_version, kind, spec.get("scope") != "Cluster", _whole(_mapping(written), definitions))


def _whole(written: Mapping[str, Any], definitions: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The schema of a whole object. What every object has need not be said in a definition."""
    node = _node(written, {}, definitions)
    fields = {
        **node.get("properties", {}),
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
    }
    return {**node, "properties": fields}


def _node(written: Mapping[str, Any], twin: Mapping[str, Any], definitions: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A node in the form of Kubernetes' own schemas.

    Args:
        written: as it stands in the definition.
        twin: the same place in Kubernetes' own schema; empty where nothing of Kubernetes' own is known to be there.
        definitions: Kubernetes' own.
    """
    known = _mapping(written.get("properties"))
    full = str(twin.get("$ref", "")).rsplit("/", 1)[-1] or _like(known)
    twin = definitions.get(full, twin)
    node = {key: written[key] for key in _KEPT if key in written}
    if full:
        node[DEFINITION] = full.rsplit(".", 1)[1]
    if written.get("x-kubernetes-int-or-string"):
        node["type"] = ["integer", "string"]
    if isinstance(written.get("items"), dict):
        node["items"] = _node(written["items"], _mapping(twin.get("items")), definitions)
    beside = _mapping(twin.get("properties"))
    fields = {key: _node(_mapping(one), _mapping(beside.get(key)), definitions) for key, one in known.items()}
    if fields:
        node["properties"] = fields
    required = written.get("required")
    node["required"] = [
        key for key in (required if isinstance(required, list) else ()) if "default" not in _mapping(known.get(key))
    ]
    extra = written.get("additionalProperties")
    if isinstance(extra, dict):
        node["additionalProperties"] = _node(extra, _mapping(twin.get("additionalProperties")), definitions)
    elif written.get("type") == "object" and extra is not True and not written.get("x-kubernetes-preserve-unknown-fields"):
        # What a definition does not name the server drops, or refuses where it is strict.
        node["additionalProperties"] = False
    return node


def _like(known: Mapping[str, Any]) -> str:
    """The full name of the definition of Kubernetes' own whose fields these are; empty when they are nobody's."""
    for name, fields in _LIKE:
        if fields <= known.keys():
            if name == "PodTemplateSpec" and "containers" not in _mapping(_mapping(known["spec"]).get("properties")):
                continue
            return _CORE + name
    return ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
