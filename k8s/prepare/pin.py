"""Every image reference becomes a digest, or the manifest is refused.

Where an image stands is asked of the schema, and of k8s/prepare/image_texts.py for those that programs are told of by texts.
What cannot be pinned is not sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from k8s.envs.environment import Environment
from k8s.envs.other_images import under
from k8s.objects import argo_schema, embedded, packed, schema
from k8s.objects.findings import Finding, Path
from k8s.objects.manifests import Identity, Manifest
from k8s.objects.schema import Text, Walk
from k8s.pipeline.model_annotation import ANNOTATION
from k8s.prepare.image_names import is_image_name
from k8s.prepare.image_parameters import Followed, Place
from k8s.prepare.image_texts import FALSE_FRIENDS, IMAGE_FIELDS, TOO_DEEP, Mention, Texts, is_key
from k8s.prepare.rendered import Images, Pin
from oci.reference import ImageRef

# Of images for environments without a GPU.
_WITHOUT_GPU = "-cpu"
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}")
Mentioned = Mapping[Place, Sequence[Mention]]


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
    if ref.pinned:
        own = under(ref, rules.env.registry)
        locked = rules.digests.get(own)
        if locked and locked != ref.digest:
            raise _RefusedError(f"{own} is pinned to {ref.digest}, images.lock says {locked}", f"write `{own}`")
        # However its registry was spelled: the nodes know it as the environment writes it.
        pinned = ImageRef.parse(f"{rules.env.registry}/{own}").pin(ref.digest) if locked else ref
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


def _mentioned(walks: Sequence[Walk], version: str, registry: str = "", names: frozenset[str] = frozenset()) -> Mentioned:
    """What the texts of these objects name beside the fields in which Kubernetes looks for images, by their places."""
    kinds = schema.schema(version)
    texts = [Texts(walk.texts, registry, names, kinds, custom=walk.custom) for walk in walks]
    keys = {
        (walk.manifest.namespace, name, key)
        for walk, held in zip(walks, texts, strict=True)
        for name, key in held.config_keys()
    }
    found: dict[Place, list[Mention]] = {}
    for number, (walk, held) in enumerate(zip(walks, texts, strict=True)):
        here = (walk.manifest.namespace, walk.manifest.name)
        told = {key for *where, key in keys if tuple(where) == here and walk.manifest.kind == "ConfigMap"}
        own = frozenset({text.path for text in walk.texts if text.field == "data" and ("" in told or text.path[-1] in told)})
        for text, mentions in held.mentions(own):
            found[(number, text.path)] = mentions
    return found


def _numbered(path: Path, mentions: Sequence[Mention]) -> Iterator[tuple[Path, Mention]]:
    """A path for each image that one text names; the first has the text's own."""
    for number, one in enumerate(mentions):
        yield ((*path, number) if number else path), one


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
    mentioned = _mentioned(walks, env.kubernetes, env.registry, rules.names)
    followed = Followed(walks, mentioned)
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
            place = (number, text.path)
            if text.path[:1] == ("status",) or (text.owner, text.field) in FALSE_FRIENDS or is_key(text):
                continue
            if (text.owner, text.field) in IMAGE_FIELDS or place in followed.places:
                if place in followed.values:
                    continue  # A parameter; its values are pinned, or refused already.
                try:
                    ref = _resolve(text.value, rules)
                except _RefusedError as problem:
                    refused.append(walk.manifest.finding(text.path, problem.what, problem.fix))
                    continue
                manifest = embedded.with_value(manifest, text.path, str(ref))
                pins.append(Pin(manifest.title, manifest.identity, text.path, text.value, ref))
            elif text.path[-1] == ANNOTATION:
                if text.value not in models and not text.value.startswith("{{"):
                    what = "a model is named in a manifest"
                    fix = f"name it at `model` in {env.file}, or promote it: `invoke train`"
                    refused.append(manifest.finding(text.path, what, fix))
            elif place in mentioned:
                value, found, wrong = _told(walk, text, mentioned[place], rules)
                if value != text.value:
                    manifest = embedded.with_value(manifest, text.path, value)
                pins += found
                refused += wrong
        pinned.append(manifest)
    return tuple(pinned), tuple(pins), tuple(refused)


def _says_something(status: object) -> bool:
    """Whether a status holds a value; generators write empty ones."""
    if isinstance(status, (dict, list)):
        return any(map(_says_something, status.values() if isinstance(status, dict) else status))
    return status not in (None, "")


def _told(walk: Walk, text: Text, mentions: Sequence[Mention], rules: _Rules) -> tuple[str, list[Pin], list[Finding]]:
    """A text with its images pinned, their pins, and what cannot be pinned."""
    manifest, value, shift = walk.manifest, text.value, 0
    pins: list[Pin] = []
    refused: list[Finding] = []
    for path, one in _numbered(text.path, mentions):
        if "{{" in one.reference and manifest.api_version == argo_schema.API_VERSION:
            continue  # Its values are pinned, or refused already.
        if not one.named and not _DIGEST.search(one.reference):
            what = f"{one.reference!r} looks like an image, in a place where no schema expects one"
            fix = "write it with its digest, or name images only where Kubernetes or k8s/prepare/image_texts.py looks for them"
            if one.reference in {packed.TOO_LARGE, TOO_DEEP}:
                what, fix = (
                    f"it holds {one.reference}, which is not searched for images",
                    "write it in another form, or less of it",
                )
            refused.append(manifest.finding(text.path, what, fix))
            continue
        try:
            ref = _resolve(one.reference, rules)
            if one.start < 0 and str(ref) != one.reference:
                raise _RefusedError(f"{one.reference} stands in a text that is not rewritten", f"write {ref} there")
        except _RefusedError as problem:
            refused.append(manifest.finding(text.path, problem.what, problem.fix))
            continue
        if one.start >= 0:
            at = one.start + shift
            value = f"{value[:at]}{ref}{value[at + len(one.reference) :]}"
            shift += len(str(ref)) - len(one.reference)
        pins.append(Pin(manifest.title, manifest.identity, path, one.reference, ref))
    return value, pins, refused


def _unseen(walk: Walk) -> Iterator[Finding]:
    """Manifests that a workflow gets from elsewhere while it runs, and images that a variable does."""
    for part in walk.parts:
        source = part.body.get("valueFrom") if part.definition == "EnvVar" else None
        if isinstance(source, dict) and is_image_name(str(part.body.get("name"))) and {"secretKeyRef", "fieldRef"} & {*source}:
            what = "an image comes from here, and its value is known only when it runs"
            yield walk.manifest.finding(
                (*part.path, "valueFrom"), what, "write its `value`, or take it from a ConfigMap of this set"
            )
        if part.definition == "ManifestFrom" and walk.manifest.api_version == argo_schema.API_VERSION:
            what = "a manifest from an artifact: its images cannot be pinned"
            yield walk.manifest.finding(part.path, what, "write it in `manifest`")


def images(objects: Iterable[Manifest], version: str) -> Images:
    """Every image reference in these objects, whatever it is; of a parameter, its values."""
    together = list(objects)
    kinds = schema.of_set(version, together)
    walks = [kinds.walk(manifest) for manifest in together]
    mentioned = _mentioned(walks, version)
    followed = Followed(walks, mentioned)
    found: dict[tuple[Identity, Path], str] = {}
    for number, walk in enumerate(walks):
        for text in walk.texts:
            if is_key(text):
                continue
            place = (number, text.path)
            if place in followed.places or ((text.owner, text.field) in IMAGE_FIELDS and place not in followed.values):
                found[(walk.manifest.identity, text.path)] = text.value
            elif text.path[-1] != ANNOTATION:
                for path, one in _numbered(text.path, mentioned.get(place, ())):
                    if "{{" not in one.reference and (one.named or _DIGEST.search(one.reference)):
                        found[(walk.manifest.identity, path)] = one.reference
    return found
