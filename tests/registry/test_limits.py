"""What a registry does not take is refused before anything is sent."""

from __future__ import annotations

import pytest

from common.errors import RegistryError
from registry import limits

GB = 10**9


@pytest.mark.parametrize(
    ("host", "takes", "refuses"),
    [
        ("ghcr.io", 10 * GB, 10 * GB + 1),
        ("GHCR.io", 10 * GB, 10 * GB + 1),
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", 52_000 << 20, (52_000 << 20) + 1),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", 52_000 << 20, (52_000 << 20) + 1),
        ("public.ecr.aws", 10_000 << 20, (10_000 << 20) + 1),
        ("mine.azurecr.io", 200 << 30, (200 << 30) + 1),
        ("swr.eu-west-101.myhuaweicloud.eu", 10 * GB, 10 * GB + 1),
    ],
)
def test_a_layer_too_large_for_a_registry_names_layer_and_limit(host: str, takes: int, refuses: int) -> None:
    limits.check(host, 1000, [("torch 2", takes)])
    with pytest.raises(RegistryError, match=r"the layer 'torch 2' has .* GB, .* takes .* GB .*: split"):
        limits.check(host, 1000, [("base", 1), ("torch 2", refuses)])


@pytest.mark.parametrize("host", ["registry.example.com", "127.0.0.1:5000", "notghcr.io", "ghcr.io.example.com", "x.ghcr.io"])
def test_a_registry_nobody_documents_has_no_limit(host: str) -> None:
    limits.check(host, 1000, [("huge", 10**15)])


def test_too_many_layers_and_too_large_a_manifest_are_refused() -> None:
    limits.check("a.example.com", limits.LARGEST_MANIFEST, [("x", 1)] * limits.MOST_LAYERS)
    with pytest.raises(RegistryError, match="126 layers, engines take 125"):
        limits.check("a.example.com", 1, [("x", 1)] * 126)
    with pytest.raises(RegistryError, match="manifest has 4000001 bytes"):
        limits.check("a.example.com", limits.LARGEST_MANIFEST + 1, [])
