"""Every image reference becomes a digest, or the manifest is refused.

Where an image stands is asked of the schema. Strings anywhere else that look like an image (a name of ours, our registry, a
host with tag or digest, a manifest inside a string) are refused too: what cannot be pinned is not sent.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from k8s.envs.environment import Environment
from k8s.objects import argo_schema, embedded, schema
from k8s.objects.findings import Finding
from k8s.objects.manifests import Manifest
from k8s.objects.schema import Text, Walk
from k8s.pipeline.model_annotation import ANNOTATION
from k8s.prepare.image_parameters import IMAGE_FIELDS, Followed
from k8s.prepare.rendered import Images, Pin
from oci.reference import ImageRef

# A block device in a Ceph cluster is called an image as well.
FALSE_FRIENDS = {("RBDVolumeSource", "image"), ("RBDPersistentVolumeSource", "image")}
# Of images for environments without a GPU.
_WITHOUT_GPU = "-cpu"
_SELECTING = {"labels", "matchLabels", "selector"}
_TOKEN = re.compile(r"[^\s\"'`,;=()\[\]{}<>|]+")
_EMBEDDED = re.compile(r"(?:^|[\s{,\"'])image[\"']?\s*:\s*[\"']?[A-Za-z0-9]", re.MULTILINE)
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Rules:
    env: Environment
    digests: Mapping[str, str]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.digests)


class _RefusedError(Exception):
    def __init__(self, what: str, fix: str) -> None:
        self.what, self.fix = what, fix


def _resolve(written: str, rules: _Rules) -> ImageRef:
    """The pinned form of a reference."""
    try:
        ref = ImageRef.parse(written)
    except ValueError:
        raise _RefusedError(f"{written!r} is not an image reference", "write a name from lockfiles/images.lock") from None
    name = ref.repository.rsplit("/", 1)[-1]
    own = ref.registry and str(ref).startswith(f"{rules.env.registry}/")
    if ref.pinned:
        locked = rules.digests.get(name) if own else None
        if locked and locked != ref.digest:
            raise _RefusedError(f"{name} is pinned to {ref.digest}, images.lock says {locked}", f"write `{name}`")
        pinned = ref
    elif name in rules.names and (ref.registry or ref.repository != name or ref.tag):
        raise _RefusedError(f"{written} is not pinned", f"write the bare name `{name}`; registry and digest are put in for you")
    elif ref.registry or ref.tag or "/" in ref.repository:
        raise _RefusedError(f"{written} is not pinned", "write it with its digest, name@sha256:…")
    else:
        name = rules.env.image_for(name)
        digest = rules.digests.get(name)
        if digest is None:
            known = ", ".join(sorted(rules.digests)) or "nothing"
            fix = f"`invoke push` it, or pin it as name@sha256:…; the lock holds {known}"
            raise _RefusedError(f"no digest is known for {name}", fix)
        pinned = ImageRef.parse(f"{rules.env.registry}/{name}").pin(digest)
    if name.endswith(_WITHOUT_GPU) and name in rules.names and rules.env.gpu:
        fix = f"write `{name.removesuffix(_WITHOUT_GPU)}`; `accelerator: none` in {rules.env.file} puts the other in its place"
        raise _RefusedError(f"{name} is for environments without a GPU", fix)
    return pinned


def looks_like_image(value: str, rules_names: frozenset[str], registry: str) -> str:
    """The first part of a string that looks like an image reference; empty when there is none."""
    if match := _EMBEDDED.search(value):
        return match[0].strip() + "…"
    for match in _TOKEN.finditer(value):
        token = match[0].rstrip(".:")
        if token in rules_names or f"{registry}/" in token or _DIGEST.search(token):
            return token
        try:
            ref = ImageRef.parse(token)
        except ValueError:
            continue
        if ref.tag and (ref.registry or ref.repository.rsplit("/", 1)[-1] in rules_names):
            return token
    return ""


def _suspicious(text: Text, rules: _Rules) -> str:
    if not text.owner and text.field == "image":  # In a free-form object: a pod template in a ControllerRevision, say.
        return text.value
    # A name alone is no image where things are named and selected: a container, a ServiceAccount, a label may be called so.
    naming = text.owner and (text.field in _SELECTING or text.field.lower().endswith("name"))
    names = frozenset() if naming else rules.names
    found = (looks_like_image(value, names, rules.env.registry) for value in _spoken(text))
    return next(filter(None, found), "")


def _spoken(text: Text) -> Iterator[str]:
    """What a string says: itself, or the literals of a program, in whose code `{"image": image}` is no manifest."""
    program = text.field == "data" and str(text.path[-1]).endswith(".py")
    yield from _literals(text.value) if program else (text.value,)


@functools.lru_cache(maxsize=64)
def _literals(program: str) -> tuple[str, ...]:
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return (program,)
    return tuple(node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def pin(
    walks: Sequence[Walk], env: Environment, digests: Mapping[str, str], models: frozenset[str] = frozenset()
) -> tuple[tuple[Manifest, ...], tuple[Pin, ...], tuple[Finding, ...]]:
    """Pin every image reference.

    Args:
        walks: of the manifests, in order.
        env: says the registry, and whether there are GPUs.
        digests: by image name, from `lockfiles/images.lock`.
        models: the models that Pinwheel itself wrote into the set, by digest; they are no images.

    Returns:
        The manifests with every reference pinned, the pins, and what cannot be pinned.
    """
    rules = _Rules(env, digests)
    pinned: list[Manifest] = []
    pins: list[Pin] = []
    followed = Followed(walks)
    refused: list[Finding] = list(followed.refused)
    for number, walk in enumerate(walks):
        manifest = walk.manifest
        if _says_something(manifest.body.get("status")):
            fix = "remove it: the cluster writes it, and nobody pins what it names"
            refused.append(manifest.finding(("status",), "a status is written", fix))
        if manifest.kind == "CustomResourceDefinition":  # What it describes is pulled by nobody.
            pinned.append(manifest)
            continue
        refused += _unseen(walk)
        for text in walk.texts:
            if text.path[:1] == ("status",) or (text.owner, text.field) in FALSE_FRIENDS:
                continue
            if (number, text.path) in followed.values:
                continue  # A parameter; its values are pinned, or refused already.
            if (text.owner, text.field) in IMAGE_FIELDS or ((number, text.path) in followed.places and not _is_key(text)):
                try:
                    ref = _resolve(text.value, rules)
                except _RefusedError as problem:
                    refused.append(walk.manifest.finding(text.path, problem.what, problem.fix))
                    continue
                manifest = embedded.with_value(manifest, text.path, str(ref))
                pins.append(Pin(manifest.title, manifest.identity, text.path, text.value, ref))
            elif text.path[-1] == ANNOTATION and text.value in models:
                continue
            elif image := _suspicious(text, rules):
                what = f"{image!r} looks like an image, in a place where no schema expects one"
                refused.append(walk.manifest.finding(text.path, what, "name images only where Kubernetes pulls them"))
        pinned.append(manifest)
    return tuple(pinned), tuple(pins), tuple(refused)


def _is_key(text: Text) -> bool:
    """Whether a text is the key at a path, and not the value."""
    return not text.field and text.value == text.path[-1]


def _says_something(status: object) -> bool:
    """Whether a status holds a value; generators write empty ones."""
    if isinstance(status, (dict, list)):
        return any(map(_says_something, status.values() if isinstance(status, dict) else status))
    return status not in (None, "")


def _unseen(walk: Walk) -> Iterator[Finding]:
    """Manifests that a workflow gets from elsewhere while it runs."""
    for part in walk.parts:
        if part.definition == "ManifestFrom" and walk.manifest.api_version == argo_schema.API_VERSION:
            what = "a manifest from an artifact: its images cannot be pinned"
            yield walk.manifest.finding(part.path, what, "write it in `manifest`")


def images(objects: Iterable[Manifest], version: str) -> Images:
    """Every image reference in these objects, whatever it is; of a parameter, its values."""
    together = list(objects)
    kinds = schema.of_set(version, together)
    walks = [kinds.walk(manifest) for manifest in together]
    followed = Followed(walks)
    return {
        (walk.manifest.identity, text.path): text.value
        for number, walk in enumerate(walks)
        for text in walk.texts
        if ((number, text.path) in followed.places and not _is_key(text))
        or ((text.owner, text.field) in IMAGE_FIELDS and (number, text.path) not in followed.values)
    }
