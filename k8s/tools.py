"""`python -m k8s.tools`: write the ConfigMaps that bring k8s/pipeline/ into pods.

They are kept in git, as every manifest is, so that what runs can be read and `kubectl apply -f` needs no tool; a test asserts
that they are what this writes.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from common import console, paths
from common.files import write_whole

# Kubernetes refuses a ConfigMap of more than 1 MiB (kubernetes.io, "ConfigMaps"); server-side apply keeps more beside it.
MOST = 900_000
_LABELS = "app.kubernetes.io"


@dataclass(frozen=True, slots=True)
class ToolSet:
    """A ConfigMap of programs.

    Attributes:
        name: of the ConfigMap.
        namespace: where the pods are.
        component: of the label.
        programs: those that pods call; what they import comes with them.
        about: the file's first lines.
    """

    name: str
    namespace: str
    component: str
    programs: tuple[str, ...]
    about: str

    @property
    def file(self) -> Path:
        """Where it is kept."""
        return paths.K8S / "manifests" / self.component / "tools.yaml"


SETS = (
    ToolSet(
        "pipeline-tools",
        "llm-training",
        "training",
        ("step", "download", "register", "promote"),
        "The programs of the pipeline's steps, from k8s/pipeline/.",
    ),
    ToolSet(
        "model-tools", "llm-inference", "inference", ("fetch",), "What brings the model onto its volume, from k8s/pipeline/."
    ),
)


def text(tools: ToolSet) -> str:
    """The manifest, YAML."""
    lines = [
        f"# {tools.about} Written by `python -m k8s.tools`: edit those, not this.",
        "apiVersion: v1",
        "kind: ConfigMap",
        "metadata:",
        f"  name: {tools.name}",
        f"  namespace: {tools.namespace}",
        "  labels:",
        f"    {_LABELS}/name: {tools.name}",
        f"    {_LABELS}/component: {tools.component}",
        f"    {_LABELS}/part-of: pinwheel",
        f"    {_LABELS}/managed-by: pinwheel",
        "data:",
    ]
    for name in needed(tools.programs):
        lines.append(f"  {name}.py: |")
        lines += [f"    {line}".rstrip() for line in _source(name).read_text(encoding="utf-8").splitlines()]
    return "\n".join(lines) + "\n"


def needed(programs: tuple[str, ...]) -> list[str]:
    """The programs and what they import of each other, sorted."""
    found: set[str] = set()
    left = list(programs)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += _siblings(name)
    return sorted(found)


def _siblings(name: str) -> list[str]:
    imported = []
    for node in ast.walk(ast.parse(_source(name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported += [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.append(node.module)
    return [one for one in imported if one.isidentifier() and _source(one).exists()]


def _source(name: str) -> Path:
    return paths.K8S / "pipeline" / f"{name}.py"


def main() -> None:
    """Write them all."""
    for tools in SETS:
        write_whole(tools.file, text(tools))
        console.info(f"{paths.shown(tools.file)}: {', '.join(needed(tools.programs))}")


if __name__ == "__main__":
    main()
