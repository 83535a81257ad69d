"""An experiment as it stands in git: `experiments/<team>/<model>/<run>.yaml`, read, and checked against everything it names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import console, paths
from common.errors import UsageError
from k8s.objects import findings, strict_yaml
from k8s.objects.findings import Finding
from k8s.training import dataset, lengths, rows, rules
from k8s.training.dataset import Dataset
from k8s.training.keys import Known
from lockfiles.models import lockfile as models_lock
from lockfiles.models.lockfile import PinnedModel

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
# A version is `<run>-<12 hex>` and may have 50 characters; a namespace of models two of these and a dash.
_LONGEST_RUN, _LONGEST_NAME = 37, 40
_SHAPE = "experiments/<team>/<model>/<run>.yaml"
# The one key that is ours: LLaMA-Factory starts a process for each GPU that it sees.
GPUS = "gpus"


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment, nothing wrong with it.

    Attributes:
        file: `experiments/<team>/<model>/<run>.yaml`.
        team: who trains.
        model: what it becomes.
        run: which attempt.
        text: the file's bytes.
        config: what it says.
        dataset: what it trains on.
        base: what it starts from.
        gpus: that it asks for; 0 where it does not say: one, or none where the environment has none.
    """

    file: str
    team: str
    model: str
    run: str
    text: bytes
    config: Mapping[str, Any]
    dataset: Dataset
    base: PinnedModel
    gpus: int

    @property
    def name(self) -> str:
        """What its model and dataset are called in the registry."""
        return f"{self.team}-{self.model}"


def folder() -> Path:
    """Where experiments lie."""
    return paths.ROOT / "experiments"


def read(path: str, known: Known) -> Experiment:
    """Read an experiment; everything that is wrong with it is printed, at once.

    Args:
        path: of its file, from here or from the checkout's root.
        known: what LLaMA-Factory of the lock takes.

    Raises:
        UsageError: no such file, or something is wrong with it.
        LockError: `lockfiles/models.lock` was edited into something else.
    """
    place = locate(path)
    team, model, run = place.parts[-3], place.parts[-2], place.stem
    file = str(place.relative_to(paths.ROOT))
    try:
        data = place.read_bytes()
        text = data.decode()
    except OSError as problem:
        raise UsageError(f"the experiment cannot be read: {problem.strerror}", where=file, fix="look at the file") from None
    except UnicodeDecodeError:
        raise UsageError("the experiment is not UTF-8", where=file, fix="save it as UTF-8") from None
    config, lines, found = _config(text, file)
    found += _names(place, file)
    gpus, wrong = _gpus(config.pop(GPUS, 0), lines, file)
    found += wrong
    base, data_set = None, Dataset(())
    if config:
        found += rules.check(config, lines, file, known)
        base, wrong = _base(config, lines, file)
        found += wrong
        # A template that there is not is said above.
        takes = known.templates.get(str(config.get("template")), frozenset(rows.MEDIA))
        data_set, wrong = _dataset(config, lines, place, file, takes)
        found += wrong
    if found or base is None:
        raise _refused(sorted(set(found)), file)
    return Experiment(file, team, model, run, data, config, data_set, base, gpus)


def locate(path: str) -> Path:
    """The file that a person means.

    Raises:
        UsageError: there is none, or it is no experiment's place.
    """
    for start in (Path.cwd(), paths.ROOT):
        place = (start / path).resolve()
        if place.is_file():
            inside = place.relative_to(folder().resolve()) if place.is_relative_to(folder().resolve()) else None
            if inside is None or len(inside.parts) != 3 or place.suffix != ".yaml":
                raise UsageError("not where an experiment stands", where=paths.shown(place), fix=f"put it at {_SHAPE}")
            return paths.ROOT / "experiments" / inside
    there = sorted(str(one.relative_to(paths.ROOT)) for one in folder().glob("*/*/*.yaml"))
    fix = f"there are: {', '.join(there[:5])}{' …' if len(there) > 5 else ''}" if there else f"write one at {_SHAPE}"
    raise UsageError("no such experiment", where=path, fix=fix)


def _refused(found: list[Finding], file: str) -> UsageError:
    for one in found:
        console.warn(one.text())
    many = "s" if len(found) > 1 else ""
    fix = "nothing was sent; each line above says what to do" if len(found) != 1 else f"{found[0].fix}; nothing was sent"
    what = f"{len(found)} finding{many}" + (f": {found[0].what}" if len(found) == 1 else "")
    return UsageError(what, where=file, fix=fix)


def _config(text: str, file: str) -> tuple[dict[str, Any], Mapping[findings.Path, int], list[Finding]]:
    bodies = []
    for one in strict_yaml.documents(text, file):
        if isinstance(one, Finding):
            return {}, {}, [one]
        bodies.append(one)
    if len(bodies) != 1 or not isinstance(bodies[0][0], dict) or not bodies[0][0]:
        return {}, {}, [Finding(file, 1, "", "", "not one mapping of keys", "write a LLaMA-Factory configuration")]
    return bodies[0][0], bodies[0][1], []


def _gpus(value: Any, lines: Mapping[findings.Path, int], file: str) -> tuple[int, list[Finding]]:
    if type(value) is int and (value > 0 or (GPUS,) not in lines):
        return value, []
    fix = "write how many GPUs one pod gets: 1, 2, 4, …; or leave it out"
    return 0, [Finding(file, lines.get((GPUS,), 1), "", GPUS, f"{value!r} is no number of GPUs", fix)]


def _names(place: Path, file: str) -> Iterator[Finding]:
    team, model, run = place.parts[-3], place.parts[-2], place.stem
    for what, name, longest in (("team", team, _LONGEST_NAME), ("model", model, _LONGEST_NAME), ("run", run, _LONGEST_RUN)):
        if not _LABEL.fullmatch(name) or len(name) > longest:
            fix = (
                f"lower-case letters, digits and -, {longest} at most: it becomes part of names in the cluster and the registry"
            )
            yield Finding(file, 1, "", "", f"the {what} {name!r} cannot be a name", fix)
    for other in sorted(folder().glob("*/*/")):
        if other != place.parent and f"{other.parent.name}-{other.name}" == f"{team}-{model}" and any(other.glob("*.yaml")):
            fix = "rename one of the two: their models would have one name in the registry"
            yield Finding(file, 1, "", "", f"{paths.shown(other)} is called {team}-{model} as well", fix)


def _base(config: Mapping[str, Any], lines: Mapping[findings.Path, int], file: str) -> tuple[PinnedModel | None, list[Finding]]:
    key = "model_name_or_path"
    wanted = config.get(key)
    line = lines.get((key,), 1)
    if not isinstance(wanted, str):
        return None, []
    locked = models_lock.read_lock().models if models_lock.lock_path().exists() else ()
    named = [one for one in locked if wanted == one.name] or [one for one in locked if wanted and wanted == one.repo]
    if len(named) == 1 and lengths.configuration(named[0]).get("quantization_config"):
        fix = "pin the model it was made from, in 16 or 32 bits, in lockfiles/models.in"
        what = f"{wanted} is quantized: what is trained upon it could not be exported"
        return None, [Finding(file, line, "", key, what, fix)]
    if len(named) == 1:
        return named[0], []
    if named:
        names = ", ".join(one.name for one in named)
        return None, [Finding(file, line, "", key, f"{wanted} is locked more than once", f"write one of the names: {names}")]
    there = ", ".join(one.name for one in locked) or "none"
    fix = f"pin it in lockfiles/models.in, run `invoke lock`, and write its name there; locked are: {there}"
    return None, [Finding(file, line, "", key, f"no model {wanted!r} is locked", fix)]


def _dataset(
    config: Mapping[str, Any], lines: Mapping[findings.Path, int], place: Path, file: str, takes: frozenset[str]
) -> tuple[Dataset, list[Finding]]:
    beside = config.get("dataset_dir", "data")
    if not isinstance(beside, str):
        return Dataset(()), []
    where = (place.parent / beside).resolve()
    if beside.startswith(("/", "~")) or not where.is_relative_to(folder().resolve()):
        fix = "name a folder in experiments/, relative to the experiment; without it that is `data`"
        what = f"{beside!r} is no folder of experiments/"
        return Dataset(()), [Finding(file, lines.get(("dataset_dir",), 1), "", "dataset_dir", what, fix)]
    names: dict[str, None] = {}
    wrong = []
    for key in ("dataset", "eval_dataset"):
        value = config.get(key)
        if isinstance(value, str):
            # As LLaMA-Factory splits it.
            listed = [one.strip() for one in value.split(",")]
            names |= dict.fromkeys(filter(None, listed))
            if not all(listed):
                fix = "write names with a comma between"
                wrong.append(Finding(file, lines.get((key,), 1), "", key, f"{value!r} holds an empty name", fix))
    stage = config.get("stage")
    if not names or not isinstance(stage, str):
        return Dataset(()), wrong
    found_set, found = dataset.read(where, paths.shown(where), names, stage, takes)
    return found_set, [*wrong, *found]
