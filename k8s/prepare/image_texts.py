"""Images in texts: which arguments, variables and keys hold one, and what looks like one where nothing says so.

Kubernetes pulls what stands in `IMAGE_FIELDS`. Programs are told of more images by texts. A text holds an image, pinned like
any other, where its name ends with `image` or `images`, in any case, or with that and `name`, `ref`, `reference`, `url`, `uri`:

- an argument: `--image=REF`, `--sidecar-image REF`, `-workerImage=REF`, also inside of a shell script;
- a variable: `SIDECAR_IMAGE`, and `RELATED_IMAGE_` followed by anything; from a ConfigMap's key, that key's value;
- an annotation (`sidecar.istio.io/proxyImage`), a key of a ConfigMap or of a volume's attributes, a key in a text that is YAML
  or JSON, wherever it is; in other texts `worker.image = REF`, as of properties, TOML or `--set image=REF`.

A text that is YAML or JSON is read as such, also out of Base64 and gzip. Where it is a manifest, its schema says where images
are; elsewhere its keys do, and `repository` with `tag` or `digest` beside it, or below an image's key, is one as well. A
number, true or false, a path (/x, ./x), an address with a scheme, a file of pictures or disks are no images. Inside of such
a text nothing is rewritten: its images stand by digest.

Anywhere else counts as an image: what has a digest (it is pinned already, and asked for its proof), what lies in the
environment's registry or in a well-known one (without a tag not where the name speaks of a registry), what has the name of an
image of ours with a path or tag, and host/path:tag; the last not as the value of a flag with another name, and not with the
effect of a taint for a tag. A name of ours alone is a word.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from k8s.envs.other_images import under
from k8s.objects import embedded, loose_yaml, packed
from k8s.objects.findings import Path
from k8s.objects.manifests import Manifest
from k8s.objects.schema import Schema, Text
from k8s.prepare.image_names import NO_IMAGE, is_image_name, part
from oci.reference import ImageRef

# The fields that name something a node pulls and runs or mounts, in every Kubernetes version there is a schema for, and in
# Argo's kinds (tests/k8s/prepare/test_image_paths.py goes through all of them).
IMAGE_FIELDS = {
    ("Container", "image"),
    ("ContainerNode", "image"),
    ("EphemeralContainer", "image"),
    ("ImageVolumeSource", "reference"),
    ("ScriptTemplate", "image"),
    ("UserContainer", "image"),
}
# A block device in a Ceph cluster is called an image as well; what a policy says of images runs none.
FALSE_FRIENDS = {("RBDVolumeSource", "image"), ("RBDPersistentVolumeSource", "image"), ("Variable", "expression")}
FALSE_FRIENDS |= {("Validation", "expression"), ("Validation", "messageExpression"), ("JSONSchemaProps", "description")}
_FLAG = re.compile(r"(--?[A-Za-z][\w.-]*)(?:=(.*))?", re.DOTALL)
_IN_SCRIPT = re.compile(r"(?<!\S)(--?[A-Za-z][\w.-]*)(?:=|\s+)[\"']?([^\s\"';|&-][^\s\"';|&]*)")
_MAPPED = {"annotations", "data", "stringData", "binaryData", "volumeAttributes", "options", "parameters"}
_SCHEME = re.compile(r"(?:docker|oci)://")
_TOKEN = re.compile(r"[^\s\"'`,;=()\[\]{}<>|]+")
_ASSIGNED = re.compile(
    r"(?P<start>^[ \t]*)?(?<![\w.$/-])(?P<name>[A-Za-z_][\w./-]{0,200})[\"']?\s*(?P<by>[:=])\s*[\"']?"
    r"(?P<held>[A-Za-z0-9][^\s\"',;}]*)",
    re.MULTILINE,
)
_EFFECTS = {"NoSchedule", "PreferNoSchedule", "NoExecute"}
_WELL_KNOWN = re.compile(
    r"(?:index\.|registry-1\.)?docker\.io|(?:[a-z0-9-]+\.)*gcr\.io|registry\.k8s\.io|registry\.gitlab\.com|quay\.io|ghcr\.io|lscr\.io"
    r"|nvcr\.io|mcr\.microsoft\.com|public\.ecr\.aws|cgr\.dev|.+\.pkg\.dev|.+\.azurecr\.io|.+\.dkr\.ecr\..+\.amazonaws\.com"
)
# Code and models lie there; the images of the first three have hosts of their own.
_NO_REGISTRIES = {"github.com", "gitlab.com", "bitbucket.org", "codeberg.org", "huggingface.co", "hf.co"}
# What stands there is where images lie, not one of them.
_REGISTRY_NAMED = re.compile(r"regist|repo|mirror|prefix|url|host", re.IGNORECASE)
# Texts inside of each other.
_DEEPEST = 16
TOO_DEEP = f"a text inside of {_DEEPEST} others"
_TELLING = re.compile(r"(?i)image|repositor|\\|!!|@sha256:|[a-z0-9]/[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Mention:
    """An image that a text names.

    Attributes:
        reference: as written.
        start: where in the text it stands; -1: inside of a text that is YAML, JSON or a program, in which nothing is rewritten.
        named: whether its place says that it is an image; else it only looks like one.
    """

    reference: str
    start: int
    named: bool


def is_key(text: Text) -> bool:
    """Whether a text of a walk is the key of a mapping, not the value that stands at it."""
    return text.value == text.path[-1]


class Texts:
    """The texts of one object, and what they name.

    Args:
        texts: every text, as the walk gives them.
        registry: of the environment.
        names: of our images.
        kinds: the schema, for manifests in texts.
        depth: of the text that they stand in, inside of others.
        custom: whether the object is of other people's kinds, of which no schema says where images are.
    """

    def __init__(
        self,
        texts: Sequence[Text],
        registry: str,
        names: frozenset[str],
        kinds: Schema,
        depth: int = 0,
        *,
        custom: bool = False,
    ) -> None:
        self._registry, self._names, self._kinds, self._depth, self._custom = registry, names, kinds, depth, custom
        self._texts = texts
        self._values = {text.path: text.value for text in texts}

    def mentions(self, named_keys: frozenset[Path] = frozenset()) -> Iterator[tuple[Text, list[Mention]]]:
        """Each text that names images beside the fields in which Kubernetes looks for them.

        Args:
            named_keys: values that hold an image because a variable takes it from there.
        """
        for text in self._texts:
            if (text.owner, text.field) in IMAGE_FIELDS | FALSE_FRIENDS or text.path[:1] == ("status",) or is_key(text):
                continue
            found: dict[int | str, Mention] = {}
            for one in self._of(text, named=text.path in named_keys):
                found.setdefault(one.start if one.start >= 0 else one.reference, one)
            if found:
                yield text, sorted(found.values(), key=lambda one: one.start)

    def config_keys(self) -> Iterator[tuple[str, str]]:
        """Name and key of each ConfigMap that a variable takes an image from; an empty key: from all of them."""
        for path, value in self._values.items():
            if path[-2:] == ("configMapKeyRef", "key") and is_image_name(self._values.get((*path[:-3], "name"), "")):
                yield self._values.get((*path[:-1], "name"), ""), value
            if path[-1] == "prefix" and "envFrom" in path and is_image_name(f"{value}x"):
                yield self._values.get((*path[:-1], "configMapRef", "name"), ""), ""

    def _of(self, text: Text, *, named: bool) -> Iterator[Mention]:
        name, value, start = self._placed(text)
        if self._depth > _DEEPEST:
            yield Mention(TOO_DEEP, -1, named=False)
        elif (plain := packed.unpacked(value, binary=text.field == "binaryData")) == packed.TOO_LARGE:
            yield Mention(plain, -1, named=False)
        elif self._free(text) and (found := part(*self._keys(text), value, self._beside(text))):
            yield Mention(found, -1, named=True)
        elif (named or is_image_name(name)) and not re.match(r"\{(?!\{)|\[", value) and "\n" not in value.strip():
            yield from self._named(text, value, start)
        elif plain is not None:
            yield from self._inside(plain, name)
        elif (inside := self._structured(value, name)) is not None:
            yield from inside
        elif text.field == "data" and str(text.path[-1]).endswith(".py"):
            for literal in _literals(value):  # In the code of a program `{"image": image}` is no manifest.
                yield from self._inside(literal)
        else:
            for match in _IN_SCRIPT.finditer(value) if re.search(r"\s", value) else ():
                if is_image_name(match[1]) and not match[2].startswith("$") and not NO_IMAGE.fullmatch(match[2]):
                    yield Mention(match[2], start + match.start(2), named=True)
            yield from self._loose(value, name, start)
            yield from self._assigned(text, value)

    def _free(self, text: Text) -> bool:
        """Whether no schema says what stands there."""
        return self._custom or not text.owner

    def _keys(self, text: Text) -> tuple[str, str]:
        """The last two steps to a text."""
        parent, key = ("", *map(str, text.path))[-2:]
        return parent, key

    def _beside(self, text: Text) -> Mapping[str, str]:
        return {name: self._values.get((*text.path[:-1], name), "") for name in ("registry", "tag", "digest")}

    def _placed(self, text: Text) -> tuple[str, str, int]:
        """The name that says what a text is for, the value, and where in the text that begins."""
        path = text.path
        if text.field in {"args", "command"} and isinstance(path[-1], int):
            if (match := _FLAG.fullmatch(text.value)) and match[2] is not None:
                return match[1], match[2], match.start(2)
            before = self._values.get((*path[:-1], path[-1] - 1), "")
            if path[-2:] == ("args", 0):
                words = [value for at, value in self._values.items() if at[:-1] == (*path[:-2], "command")]
                before = words[-1] if words else ""
            flag = _FLAG.fullmatch(before)
            return (
                (before, text.value, 0) if flag and flag[2] is None and not text.value.startswith("-") else ("", text.value, 0)
            )
        if path[-1] == "value" and len(path) > 2 and path[-3] == "env":
            return self._values.get((*path[:-1], "name"), ""), text.value, 0
        if path[-1] == "value" and not text.owner and (changed := self._values.get((*path[:-1], "path"), "")):
            return changed.rsplit("/", 1)[-1], text.value, 0  # An operation of a JSON patch.
        if text.field == "volumeAttributes" and str(path[-1]).endswith("reference"):
            return "image", text.value, 0  # As drivers call it that mount models and images.
        mapped = self._free(text) or text.field in _MAPPED
        return (str(path[-1]) if mapped and isinstance(path[-1], str) else text.field if mapped else "", text.value, 0)

    def _named(self, text: Text, value: str, start: int) -> Iterator[Mention]:
        """The images of a value whose name says that it holds some; several are written with commas."""
        for match in re.finditer(r"[^\s,;]+", value):
            written = match[0]
            if NO_IMAGE.fullmatch(written):
                continue
            variable = re.fullmatch(r"\$\(([A-Za-z_]\w*)\)", written)
            if variable and is_image_name(variable[1]):
                continue  # Pinned where the variable has its value.
            if "{{" in value:
                yield Mention(value, start, named=True)
                return
            scheme = _SCHEME.match(written)
            skipped = scheme.end() if scheme else 0
            yield Mention(written[skipped:], start + match.start() + skipped, named=True)

    def _assigned(self, text: Text, value: str) -> Iterator[Mention]:
        """The images of `name: REF` and `name = REF` in a text of any form."""
        for match in _ASSIGNED.finditer(value):
            if not is_image_name(match["name"]) or NO_IMAGE.fullmatch(match["held"]):
                continue
            if match["by"] == "=" and not re.fullmatch(r"[\w./:@-]+", match["held"]):
                continue  # Of a program.
            alone = match["start"] is not None and not value[match.end() :].partition("\n")[0].strip("\"' \t\r")
            sure = match["name"] == "image" if match["by"] == ":" else alone or not re.search(r"\s", value)
            if sure or re.search(r"[/:@].", match["held"]):  # Prose says the word as well.
                yield Mention(match["held"], -1, named=True)

    def _structured(self, value: str, name: str) -> list[Mention] | None:
        """What a text that is YAML or JSON, and stands at this name, names; None where it is neither."""
        if not re.search(r"[:{\[-]", value) or not (is_image_name(name) or _TELLING.search(value)):
            return None
        if (found := loose_yaml.scalars(value)) is None:
            return None
        if (manifests := self._manifests(value)) is not None:
            return manifests
        mentions: list[Mention] = []
        for keys, scalar, beside in found:
            parent, key = (name, name, *keys)[-2:]
            image = is_image_name(key)
            if key.lower() == "value" and is_image_name(beside.get("path", "").rsplit("/", 1)[-1]):
                image = True  # An operation of a JSON patch.
            if whole := part(parent, key, scalar, beside):
                mentions.append(Mention(whole, -1, named=True))
            elif image and not scalar.startswith(("{", "[")) and "\n" not in scalar.strip():
                mentions += [] if NO_IMAGE.fullmatch(scalar.strip()) else [Mention(scalar.strip(), -1, named=True)]
            else:
                mentions += self._inside(scalar, key)
        return mentions

    def _inside(self, value: str, name: str = "") -> list[Mention]:
        """What a text inside of another names; the name is the key that it stands at."""
        deeper = Texts([], self._registry, self._names, self._kinds, self._depth + 1)
        found = deeper._of(Text((name,), value, "", name), named=False)
        return [replace(one, start=-1) for one in found]

    def _manifests(self, value: str) -> list[Mention] | None:
        """What the manifests in a text name, by their schema; None where it holds something else as well."""
        bodies, problem = embedded.read(value)
        known = [isinstance(body, dict) and (body.get("apiVersion"), body.get("kind")) in self._kinds.kinds for body in bodies]
        if problem or not known or not all(known):
            return None
        mentions: list[Mention] = []
        for body in bodies:
            walk = self._kinds.walk(Manifest("", body, {}))
            texts = walk.texts
            mentions += [Mention(text.value, -1, named=True) for text in texts if (text.owner, text.field) in IMAGE_FIELDS]
            inner = Texts(texts, self._registry, self._names, self._kinds, self._depth + 1, custom=walk.custom)
            mentions += [replace(one, start=-1) for _, found in inner.mentions() for one in found]
        return mentions

    def _loose(self, value: str, name: str, start: int) -> Iterator[Mention]:
        """What looks like an image in a text whose place does not say that it holds one."""
        for match in _TOKEN.finditer(value):
            token = _SCHEME.sub("", match[0].rstrip(".:"))
            if token and self._looks(token, name):
                yield Mention(token, start + match.end() - len(match[0]) if token == match[0] else -1, named=False)

    def _looks(self, token: str, name: str) -> bool:
        try:
            ref = ImageRef.parse(token)
        except ValueError:
            return "@sha256:" in token or bool(self._registry and f"{self._registry}/" in token)
        if ref.digest or (self._registry and ref.registry and under(ref, self._registry)):
            return True
        if ref.tag in _EFFECTS:
            return False
        if ref.registry and _WELL_KNOWN.fullmatch(ref.registry.lower().partition(":")[0]):
            return bool(ref.tag) or not _REGISTRY_NAMED.search(name)
        if ref.repository.rsplit("/", 1)[-1] in self._names:
            # Without a path, a number after a name is a port.
            return "/" in str(ref) or bool(ref.tag and not ref.tag.isdigit())
        return bool(ref.registry and ref.tag) and ref.registry not in _NO_REGISTRIES and not name.startswith("-")


@functools.lru_cache(maxsize=64)
def _literals(program: str) -> tuple[str, ...]:
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return (program,)
    return tuple(node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
