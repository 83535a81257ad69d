"""Image references."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.reference import ImageRef, check_digest

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("debian", ("", "debian", "", "")),
        ("debian:12", ("", "debian", "12", "")),
        ("library/debian:12", ("", "library/debian", "12", "")),
        ("localhost/x", ("localhost", "x", "", "")),
        ("127.0.0.1:5000/a/b:1", ("127.0.0.1:5000", "a/b", "1", "")),
        ("[::1]:5000/a", ("[::1]:5000", "a", "", "")),
        (f"r.example.com/a:1@{DIGEST}", ("r.example.com", "a", "1", DIGEST)),
        (f"a__b/c-d.e@{DIGEST}", ("", "a__b/c-d.e", "", DIGEST)),
    ],
)
def test_a_reference_is_read_as_docker_reads_it(text: str, parts: tuple[str, str, str, str]) -> None:
    ref = ImageRef.parse(text)
    assert (ref.registry, ref.repository, ref.tag, ref.digest) == parts
    assert str(ref) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "A",
        "a:",
        "a@",
        "a@sha256:12",
        f"a@{DIGEST}0",
        "a b",
        "a/",
        "/a",
        "a//b",
        "r.example.com/",
        "a:-x",
        "-a.com/x",
        "a:b/c",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        ImageRef.parse(text)


@given(st.text(alphabet="ab0:/@.-_", max_size=30))
def test_whatever_parses_prints_back_to_itself(text: str) -> None:
    try:
        ref = ImageRef.parse(text)
    except ValueError:
        return
    assert str(ref) == text
    assert ImageRef.parse(str(ref.pin(DIGEST))).pinned


@pytest.mark.parametrize(
    "text", ["sha256:" + "A" * 64, "sha512:" + "a" * 64, "a" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 64 + "\n"]
)
def test_a_digest_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a sha256 digest"):
        check_digest(text)
