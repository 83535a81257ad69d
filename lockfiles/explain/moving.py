"""The requirements of an input as things that can move: where each stands, where it can go, and the input it would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from lockfiles.explain.catalogue import Catalogue
from lockfiles.explain.conflicts import bound
from lockfiles.inputs import SetInput
from lockfiles.python import metadata


@dataclass(frozen=True, slots=True)
class Move:
    """One requirement of the input and what takes its place.

    Attributes:
        old: the line as it stands.
        new: the line that resolves.
        passed: releases of the package between the two, the new one included.
        up: whether the new version is the newer.
    """

    old: str
    new: str
    passed: int
    up: bool


class Requirements:
    """The requirements of one input that name a version.

    Args:
        wanted: the input.
        catalogue: the index.
        python: the base's version.
    """

    def __init__(self, wanted: SetInput, catalogue: Catalogue, python: str) -> None:
        self._wanted, self._catalogue, self._python = wanted, catalogue, python
        fixed = {canonicalize_name(Requirement(text).name) for text in wanted.overrides}
        fixed |= {canonicalize_name(one.name) for one in wanted.sdists}
        self._asked: dict[str, Requirement] = {}
        for one in map(Requirement, wanted.requires):
            if one.marker is None or one.marker.evaluate(metadata.target(python)):
                self._asked[canonicalize_name(one.name)] = one
        # A requirement without a version leaves nothing to move; overrides and sources are the user's word.
        self.movable = tuple(name for name, one in self._asked.items() if one.specifier and name not in fixed)

    def ranges(self, names: Sequence[str]) -> list[dict[str, str]]:
        """What the resolver is asked first: of one requirement both directions apart, of several any versions."""
        if len(names) > 1:
            return [dict.fromkeys(names, "")]
        low, high = self._anchors(names[0])
        return [{names[0]: f"<{low}"}, {names[0]: f">={high},!={high}"}]

    def steps(self, name: str) -> list[tuple[int, Version]]:
        """Versions a requirement can move to and how many releases that passes, the nearest first, upwards before downwards."""
        low, high = self._anchors(name)
        early = low.is_prerelease or high.is_prerelease
        versions = [
            release.version
            for release in self._catalogue.matching(name, SpecifierSet())
            if not release.yanked and (early or not release.version.is_prerelease)
        ]
        above = list(enumerate((version for version in versions if version > high), 1))
        below = list(enumerate((version for version in reversed(versions) if version < low), 1))
        return sorted([*above, *below], key=lambda step: (step[0], step[1] < low))

    def _anchors(self, name: str) -> tuple[Version, Version]:
        """Where a requirement stands: the lowest and highest version it allows, or names if there is none."""
        specifier = self._asked[name].specifier
        allowed = [release.version for release in self._catalogue.matching(name, specifier)]
        named = [bound(one) for one in specifier]
        return min(allowed or named), max(allowed or named)

    def with_versions(self, versions: Mapping[str, Version]) -> SetInput:
        """The input with exactly these versions."""
        return self.rewritten({name: f"=={version}" for name, version in versions.items()})

    def rewritten(self, specifiers: Mapping[str, str]) -> SetInput:
        """The input with other specifiers for some packages; an empty one leaves the version free."""
        lines = []
        for text in self._wanted.requires:
            one = Requirement(text)
            if one.marker and not one.marker.evaluate(metadata.target(self._python)):
                lines.append(text)
                continue
            if (specifier := specifiers.get(canonicalize_name(one.name))) is not None:
                # The name and its extras stay as they were written.
                head = text[: text.index("]") + 1] if one.extras else one.name
                text = head + specifier + (f" ; {one.marker}" if one.marker else "")
            lines.append(text)
        return replace(self._wanted, requires=tuple(lines))

    def moves(self, versions: Mapping[str, Version]) -> tuple[Move, ...]:
        """The lines that change for these versions."""
        found = []
        for old, new in zip(self._wanted.requires, self.with_versions(versions).requires, strict=True):
            if old != new:
                name = canonicalize_name(Requirement(old).name)
                passed = next((n for n, version in self.steps(name) if version == versions[name]), 0)
                found.append(Move(old, new, passed, versions[name] > self._anchors(name)[1]))
        return tuple(found)
