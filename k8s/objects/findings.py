"""What a check found: one line each, always with the file, the object, the path and what to do."""

from __future__ import annotations

from dataclasses import dataclass

Path = tuple[str | int, ...]


def shown(path: Path) -> str:
    """A path as kubectl and jsonpath write it: `spec.template.spec.containers[0].image`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif "." in step or "/" in step:
            text += f"[{step!r}]"
        else:
            text += f".{step}" if text else step
    return text


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong with a manifest. Sorts by file and line.

    Attributes:
        file: as a person would open it.
        line: in that file, from 1.
        title: the object, `Deployment llm-inference/llama-factory-inference`; empty when the file is not even YAML.
        path: within the object; empty when the object as a whole is meant.
        what: what is wrong.
        fix: what to do about it.
    """

    file: str
    line: int
    title: str
    path: str
    what: str
    fix: str

    def text(self) -> str:
        """The finding as one line."""
        parts = [f"{self.file}:{self.line}", self.title, self.path]
        return " ".join(f"{': '.join(part for part in parts if part)}: {self.what}: {self.fix}".split())
