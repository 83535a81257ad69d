"""Other people's images in an environment's file, and one spelling of references that mean the same place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UsageError
from k8s.envs import environment
from k8s.envs.other_images import canonical, under
from oci.reference import ImageRef
from tests.k8s.envs.test_environment import GOOD

DIGEST = f"@sha256:{'a' * 64}"
ENTRY = f"{{reference: q.example/a/b{DIGEST}, reason: r, until: 2027-06-30}}"


def spelled(text: str) -> str:
    return str(canonical(ImageRef.parse(text)))


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("nginx", "docker.io/library/nginx"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("acme/app", "docker.io/acme/app"),
        ("Index.Docker.io/nginx", "docker.io/library/nginx"),
        ("registry-1.docker.io:443/library/nginx", "docker.io/library/nginx"),
        ("Registry.Example.Com/llm/x", "registry.example.com/llm/x"),
        ("registry.example.com:443/llm/x", "registry.example.com/llm/x"),
        ("registry.example.com:0443/llm/x", "registry.example.com/llm/x"),
        ("registry.example.com:80/llm/x", "registry.example.com/llm/x"),
        ("registry.example.com:4430/llm/x", "registry.example.com:4430/llm/x"),
        ("LOCALHOST:5000/x", "localhost:5000/x"),
        (f"q.example/x:v1{DIGEST}", f"q.example/x{DIGEST}"),
    ],
)
def test_what_means_the_same_place_is_compared_as_one(written: str, means: str) -> None:
    assert spelled(written) == means
    assert spelled(means) == means


@pytest.mark.parametrize(
    ("written", "registry", "rest"),
    [
        ("r.example/llm/x", "r.example/llm", "x"),
        ("R.EXAMPLE:443/llm/x/y", "r.example/llm", "x/y"),
        ("r.example/llmx/x", "r.example/llm", ""),
        ("r.example/x", "r.example/llm", ""),
        ("r.example.evil.example/llm/x", "r.example/llm", ""),
        ("r.example:5000/llm/x", "r.example/llm", ""),
        ("nginx", "docker.io", "library/nginx"),
        ("team/x", "docker.io/team", "x"),
        ("teams/x", "docker.io/team", ""),
    ],
)
def test_ours_is_what_lies_below_our_registry(written: str, registry: str, rest: str) -> None:
    assert under(ImageRef.parse(written), registry) == rest


@given(st.sampled_from(["r.example", "R.Example", "r.example:443", "r.EXAMPLE:80"]), st.sampled_from(["a", "a/b", "llm/x"]))
def test_no_spelling_of_our_registry_makes_an_image_foreign(host: str, path: str) -> None:
    assert under(ImageRef.parse(f"{host}/llm/{path}{DIGEST}"), "r.example/llm") == path


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (ENTRY.replace(DIGEST, ":v1"), "other-images[0].reference: q.example/a/b:v1 is not by digest"),
        (ENTRY.replace("q.example/", ""), "is not by digest: write host/path@sha256"),
        (ENTRY.replace("q.example/a/b", "Not An"), "is no reference"),
        (
            ENTRY.replace("q.example/a/b", "R.example:443/llm/llama-factory-api"),
            "is an image of ours, which is proven, not allowed",
        ),
        (ENTRY.replace("reason: r, ", ""), "other-images[0].reason: missing"),
        (ENTRY.replace("reason: r", "reason: ''"), "expected a string, got ''"),
        (ENTRY.replace(", until: 2027-06-30", ""), "other-images[0].until: missing"),
        (ENTRY.replace("2027-06-30", "2027-02-30"), "expected a day such as 2027-06-30, got '2027-02-30'"),
        (ENTRY.replace("2027-06-30", "never"), "expected a day"),
        (ENTRY.replace("2027-06-30", "'20270630'"), "expected a day"),
        (ENTRY.replace("reason: r", "reason: r, force: true"), "other-images[0].force: unknown key"),
        (f"{ENTRY}, {ENTRY.replace('q.example', 'Q.example:443')}", "stands twice"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_key(entry: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        environment.parse(GOOD + f"other-images: [{entry}]\n", "e", "e.yaml")
    assert message in caught.value.line()


def test_a_copy_in_a_folder_of_our_registry_may_be_allowed() -> None:
    entry = ENTRY.replace("q.example/a/b", "r.example/llm/copies/door")
    (one,) = environment.parse(GOOD + f"other-images: [{entry}]\n", "e", "e.yaml").other_images
    assert str(one.reference) == f"r.example/llm/copies/door{DIGEST}"
