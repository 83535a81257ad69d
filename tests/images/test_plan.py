"""Which wheels share a layer: packages that come and go move no other, and images share what they have in common."""

from __future__ import annotations

import dataclasses
import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import plan, spec
from images.plan import LayerPlan
from images.recipe import Recipe, recipe_of
from lockfiles import lockfile
from lockfiles.model import Artifact, SetLock, Wheel

BASE = lockfile.read_base()
IMAGE = dataclasses.replace(spec.read("train"), conflicts=(), record_errors=(), left_out=())
NAMES = st.from_regex(r"[a-z]{1,8}(-[a-z]{1,4})?", fullmatch=True)
SMALL = st.integers(1, plan.BIG - 1)
BIG = st.integers(plan.BIG, 2_000_000_000)


def wheel(name: str, size: int) -> Wheel:
    return Wheel(name, "1.0", Artifact(f"{name}-1.0-py3-none-any.whl", size, f"{size:064x}"))


def sets(least: int = 1, most: int = 40) -> st.SearchStrategy[list[Wheel]]:
    one = st.builds(wheel, NAMES, SMALL | BIG)
    return st.lists(one, unique_by=lambda w: w.name, min_size=least, max_size=most)


def places(wheels: list[Wheel]) -> dict[str, str]:
    """The group of each package."""
    return {one.name: name for name, group in plan.groups(wheels).items() for one in group}


def layers(wheels: list[Wheel]) -> dict[str, LayerPlan]:
    lock = SetLock("x", "", "", "3.11.2", "2.36", tuple(sorted(wheels, key=lambda w: w.name)))
    return {one.what.partition(":")[0]: one for one in plan.wheel_layers(BASE, lock, IMAGE)}


@functools.cache
def recipe(role: str) -> Recipe:
    return recipe_of(spec.read(role), BASE)


@given(sets(), NAMES, SMALL)
@settings(deadline=None, max_examples=30)
def test_a_small_package_that_comes_or_goes_moves_no_other_and_touches_one_layer(
    wheels: list[Wheel], name: str, size: int
) -> None:
    without = [one for one in wheels if one.name != name]
    newcomer = wheel(name, size)
    before, after = layers(without), layers([*without, newcomer])
    changed = {what for what in before.keys() | after.keys() if before.get(what) != after.get(what)}
    assert changed == {places([newcomer])[name]}
    assert places(without) == {k: v for k, v in places([*without, newcomer]).items() if k != name}


@given(sets(), NAMES, BIG)
@settings(deadline=None, max_examples=30)
def test_a_big_package_is_a_layer_alone_and_touches_no_other(wheels: list[Wheel], name: str, size: int) -> None:
    without = [one for one in wheels if one.name != name]
    before, after = layers(without), layers([*without, wheel(name, size)])
    assert {what: one for what, one in after.items() if what != f"{name} 1.0"} == before
    assert [one.name for one in after[f"{name} 1.0"].wheels] == [name]


@given(st.integers(-3, 60), st.integers(0, plan.ALONE), BIG)
@settings(deadline=None, max_examples=30)
def test_without_room_for_all_the_smallest_of_the_big_share_and_one_more_moves_one_other_at_most(
    over: int, middle: int, size: int
) -> None:
    wheels = [wheel(f"p{number}", plan.BIG + 1000 * number) for number in range(plan.ALONE + over)]
    newcomer = wheel("new", max(size, plan.BIG + 1000 * middle + 1))
    before, after = places(wheels), places([*wheels, newcomer])
    moved = [name for name in before if before[name] != after[name]]
    assert len(moved) == (1 if over >= 0 and after["new"] == "new" else 0)
    assert all(before[name] == name for name in moved)
    found = plan.groups([*wheels, newcomer])
    assert len(found) + 2 <= plan.MOST
    shared = [one.artifact.size for name, group in found.items() if name.startswith("bucket") for one in group]
    assert max(shared, default=0) < min(found[n][0].artifact.size for n in found if not n.startswith("bucket"))


@given(st.permutations([wheel(f"p{number}", 10**5 * 3**number) for number in range(9)]))
@settings(deadline=None, max_examples=20)
def test_the_order_of_the_lock_does_not_matter(wheels: list[Wheel]) -> None:
    assert list(plan.groups(wheels).items()) == list(plan.groups(sorted(wheels, key=lambda w: w.name)).items())


def test_the_heaviest_lie_at_the_bottom_and_a_slightly_larger_release_swaps_no_layers() -> None:
    wheels = [wheel("a", 3 << 20), wheel("b", 3_500_000), wheel("c", 900 << 20), wheel("d", 10), wheel("e", 20)]
    order = list(plan.groups(wheels))
    assert order[:3] == ["c", "a", "b"]
    assert all(name.startswith("bucket") for name in order[3:])
    grown = [dataclasses.replace(one, artifact=dataclasses.replace(one.artifact, size=3_900_000)) for one in wheels[:1]]
    assert list(plan.groups([*grown, *wheels[1:]])) == order


@pytest.mark.parametrize("role", spec.roles())
def test_every_image_has_room_to_grow_and_holds_each_wheel_once(role: str) -> None:
    image = recipe(role)
    assert len(image.plans) <= plan.MOST
    assert len([one for one in image.lock.wheels if one.artifact.size >= plan.BIG]) < plan.ALONE
    held = [one.name for layer in image.wheels for one in layer.wheels]
    assert sorted(held) == [one.name for one in image.lock.wheels]


@pytest.mark.parametrize(
    ("one", "other"), [("train", "api"), ("train", "api-cpu"), ("api", "api-cpu"), ("train-cu128", "api-cu128")]
)
def test_images_share_nearly_all_bytes_of_the_wheels_that_they_have_in_common(one: str, other: str) -> None:
    left, right = recipe(one), recipe(other)
    same = {w.artifact for w in left.lock.wheels} & {w.artifact for w in right.lock.wheels}
    keys = {layer.key for layer in right.wheels}
    shared = sum(layer.weight for layer in left.wheels if layer.key in keys)
    assert shared >= 0.99 * sum(artifact.size for artifact in same)


def test_what_is_left_out_is_left_out_of_a_package_that_some_set_holds() -> None:
    held = {wheel.name for role in spec.roles() for wheel in lockfile.read_set(spec.read(role).set).wheels}
    assert {one.package for one in spec.read("train").left_out} <= held
