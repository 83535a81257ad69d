"""Which keys a training's configuration may have and of what kind their values are, read from the locked wheels themselves.

LLaMA-Factory hands a configuration to transformers' HfArgumentParser, which takes the fields of five dataclasses
(llamafactory/hparams/parser.py, `_TRAIN_ARGS`) and converts nothing. Both wheels are in `train.lock`; they are parsed, never
imported: the toolkit's environment holds no torch, and what is read here is what the image runs, byte for byte.
"""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import LockError
from lockfiles import lockfile, store
from lockfiles.model import SetLock, Wheel
from lockfiles.python import index
from lockfiles.store import mirror

_FACTORY, _TRANSFORMERS = "llamafactory", "transformers"
# The dataclasses of a training, and the modules that hold them and their bases.
_ROOTS = ("ModelArguments", "DataArguments", "TrainingArguments", "FinetuningArguments", "GeneratingArguments")
_FACTORY_MODULES = tuple(
    f"{_FACTORY}/hparams/{name}_args.py" for name in ("model", "data", "training", "finetuning", "generating")
)
_TRANSFORMERS_MODULES = tuple(f"{_TRANSFORMERS}/{name}.py" for name in ("training_args_seq2seq", "training_args"))
# Where the choices of fields are enumerated.
_ENUMS = (
    f"{_FACTORY}/extras/constants.py",
    f"{_TRANSFORMERS}/training_args.py",
    f"{_TRANSFORMERS}/trainer_utils.py",
    f"{_TRANSFORMERS}/debug_utils.py",
)
_TEMPLATES = f"{_FACTORY}/data/template.py"
# What LLaMA-Factory calls the class of transformers that its TrainingArguments derives from.
_BASE = "BaseTrainingArguments"
# The column of rows for each placeholder that a template may know.
_MEDIA = {"image_token": "images", "video_token": "videos", "audio_token": "audios"}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    # An integer is a float to Python; the other way round a batch size of 1.5 would pass.
    "float": (float, int),
    "str": (str,),
    "Path": (str,),
    "list": (list,),
    "dict": (dict,),
    "None": (type(None),),
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        name: as it is written.
        types: that its value may have; empty: any, its annotation is not simple.
        choices: that a value which is a string may be; empty: any string.
        kind: the annotation, for people.
    """

    name: str
    types: tuple[type, ...]
    choices: frozenset[Any]
    kind: str

    def takes(self, value: Any) -> bool:
        """Whether a value is of the kind that the annotation says."""
        if self.choices and isinstance(value, str):
            return value in self.choices
        if not self.types:
            return True
        if isinstance(value, bool):
            return bool in self.types
        return isinstance(value, self.types)


@dataclass(frozen=True, slots=True)
class Known:
    """What LLaMA-Factory of the lock knows.

    Attributes:
        version: of LLaMA-Factory.
        keys: by name.
        templates: its chat templates, and the columns of media that each takes: `images`, `videos`, `audios`.
        packages: names of everything in the train image's lock.
    """

    version: str
    keys: Mapping[str, Key]
    templates: Mapping[str, frozenset[str]]
    packages: frozenset[str]


def known() -> Known:
    """Read the wheels of `train.lock`; they are fetched when the store has them not.

    Raises:
        LockError: the lock is missing or broken, a wheel is altered, or is not built as this reader knows it.
        MissingEnvironmentError: a wheel is not in the store and cannot be fetched.
    """
    lock = lockfile.read_set("train")
    wheels = {wheel.name: wheel for wheel in lock.wheels if wheel.name in {_FACTORY, _TRANSFORMERS}}
    _fetch(wheels.values())
    modules = _modules(wheels[_FACTORY], (*_FACTORY_MODULES, _TEMPLATES, *_ENUMS))
    modules |= _modules(wheels[_TRANSFORMERS], (*_TRANSFORMERS_MODULES, *_ENUMS))
    return of_modules(modules, lock)


def of_modules(modules: Mapping[str, ast.Module], lock: SetLock) -> Known:
    """What the parsed modules of both wheels say.

    Args:
        modules: by path in their wheel.
        lock: they are of.

    Raises:
        LockError: they are not built as this reader knows them.
    """
    enums = dict(_enums(modules[name] for name in _ENUMS))
    classes = {one.name: one for name in _FACTORY_MODULES for one in modules[name].body if isinstance(one, ast.ClassDef)}
    under = {one.name: one for name in _TRANSFORMERS_MODULES for one in modules[name].body if isinstance(one, ast.ClassDef)}
    keys: dict[str, Key] = {}
    for root in _ROOTS:
        for name, annotation in _fields(root, classes, under):
            keys[name] = _key(name, annotation, enums)
    templates = dict(_templates(modules[_TEMPLATES]))
    # A few that every version has: without them this is no list of keys but a reader that no longer fits.
    if (
        not {"model_name_or_path", "dataset", "output_dir", "stage", "num_train_epochs", "do_train"} <= keys.keys()
        or not templates
    ):
        fix = "train.lock holds a LLaMA-Factory or transformers that Pinwheel does not know yet: mend k8s/training/keys.py"
        raise LockError("the wheels of the train image are not built as expected", where="lockfiles/train.lock", fix=fix)
    version = next(wheel.version for wheel in lock.wheels if wheel.name == _FACTORY)
    return Known(version, dict(sorted(keys.items())), templates, frozenset(wheel.name for wheel in lock.wheels))


def _fetch(wheels: Iterable[Wheel]) -> None:
    wanted = store.missing(wheel.artifact for wheel in wheels)
    if not wanted:
        return
    with index.session() as http:
        left = store.take(wanted, mirror.places(), http)
        store.download(left, index.Locator(http), http)


def _modules(wheel: Wheel, names: Iterable[str]) -> dict[str, ast.Module]:
    top = f"{wheel.name}/"
    # Opened and hashed at once: what is parsed is what the lock names.
    with store.opened(wheel.artifact) as file, zipfile.ZipFile(file) as archive:
        return {name: ast.parse(archive.read(name), name) for name in names if name.startswith(top)}


def _fields(
    name: str, classes: Mapping[str, ast.ClassDef], under: Mapping[str, ast.ClassDef]
) -> Iterator[tuple[str, ast.expr]]:
    """The annotated fields of a dataclass and its bases, the bases first; those that no one may set are left out."""
    if name == _BASE:
        yield from _fields("Seq2SeqTrainingArguments", under, {})
        return
    found = classes.get(name)
    if found is None:
        return
    for base in found.bases:
        if isinstance(base, ast.Name):
            yield from _fields(base.id, classes, under)
    for one in found.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and _settable(one):
            yield one.target.id, one.annotation


def _settable(field: ast.AnnAssign) -> bool:
    if "ClassVar" in ast.unparse(field.annotation):
        return False
    options = field.value.keywords if isinstance(field.value, ast.Call) else []
    return not any(one.arg == "init" and ast.unparse(one.value) == "False" for one in options)


def _key(name: str, annotation: ast.expr, enums: Mapping[str, frozenset[str]]) -> Key:
    types: list[type] = []
    choices: set[Any] = set()
    simple = True
    for part in _union(annotation):
        text = ast.unparse(part)
        outer = text.partition("[")[0]
        if outer == "Literal" and isinstance(part, ast.Subscript):
            members = part.slice.elts if isinstance(part.slice, ast.Tuple) else [part.slice]
            values = [ast.literal_eval(one) for one in members]
            choices |= set(values)
            types += [type(value) for value in values]
        elif outer in enums:
            choices |= enums[outer]
            types.append(str)
        elif outer in _TYPES:
            types += _TYPES[outer]
        else:
            simple = False
    kind = ast.unparse(annotation)
    strings = frozenset(one for one in choices if isinstance(one, str))
    # `Literal[…] | str` takes any string; an enumeration beside `str` does not, as the string is made one of its members.
    literal_and_any = "Literal" in kind and any(ast.unparse(part) == "str" for part in _union(annotation))
    return Key(name, tuple(dict.fromkeys(types)) if simple else (), frozenset() if literal_and_any else strings, kind)


def _union(annotation: ast.expr) -> Iterator[ast.expr]:
    """The parts of `A | B`, `Optional[A]` and `Union[A, B]`."""
    if isinstance(annotation, ast.BinOp):
        yield from _union(annotation.left)
        yield from _union(annotation.right)
    elif isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) in {"Optional", "Union"}:
        members = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        for one in members:
            yield from _union(one)
        if ast.unparse(annotation.value) == "Optional":
            yield ast.Constant(None)
    else:
        yield annotation


def _enums(modules: Iterable[ast.Module]) -> Iterator[tuple[str, frozenset[str]]]:
    """Enumerations of strings, with their values."""
    for module in modules:
        for one in module.body:
            if isinstance(one, ast.ClassDef) and any("Enum" in ast.unparse(base) for base in one.bases):
                values = [
                    item.value.value
                    for item in one.body
                    if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)
                ]
                if strings := frozenset(value for value in values if isinstance(value, str)):
                    yield one.name, strings


def _templates(module: ast.Module) -> Iterator[tuple[str, frozenset[str]]]:
    """What `register_template(name=…, mm_plugin=get_mm_plugin(…))` is called with; the example in its own docstring is none."""
    for one in ast.walk(module):
        if isinstance(one, ast.Call) and ast.unparse(one.func) == "register_template":
            options = {option.arg: option.value for option in one.keywords}
            name, plugin = options.get("name"), options.get("mm_plugin")
            tokens = {option.arg for option in plugin.keywords} if isinstance(plugin, ast.Call) else set()
            if isinstance(name, ast.Constant):
                yield str(name.value), frozenset(column for token, column in _MEDIA.items() if token in tokens)
