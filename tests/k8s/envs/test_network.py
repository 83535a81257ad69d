"""How an environment says that its registry is reached, and on which ports it, the hub and the API server answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.errors import UsageError
from k8s.envs import environment, table
from k8s.envs.environment import Environment
from oci.client import access
from oci.client.access import Access
from tests.k8s.conftest import Checkout
from tests.k8s.envs.test_environment import GOOD
from tests.oci.real import CERTIFICATE

PLAIN = "{host: r.example:5000/llm, plain-http: true}"


def parse(registry: str, more: str = "", name: str = "e") -> Environment:
    return environment.parse(GOOD.replace("r.example/llm", registry) + more, name, "e.yaml")


@pytest.mark.parametrize(
    ("registry", "more", "message"),
    [
        ("{ca: a.crt}", "", "registry.host: missing"),
        ("{host: llm}", "", "registry.host: 'llm' is not a registry host with an optional path"),
        ("r.example:70000/llm", "", "registry: 'r.example:70000/llm' is not a registry host"),
        ("r.example:0", "", "registry: 'r.example:0' is not a registry host"),
        ("{host: r.example, insecure: true}", "", "registry.insecure: unknown key"),
        ("{host: r.example, ca: 5}", "", "registry.ca: expected a string, got 5"),
        ("{host: r.example, plain-http: 'yes'}", "", "registry.plain-http: expected true or false, got 'yes'"),
        ("{host: r.example, plain-http: true, ca: a.crt}", "", "registry.plain-http: without TLS nobody shows a certificate"),
        ("r.example", "ports: {hub: 443}\n", "ports.hub: expected a list of ports such as [443], got 443"),
        ("r.example", "ports: {hub: []}\n", "ports.hub: expected a list of ports"),
        ("r.example", "ports: {api-server: [https]}\n", "ports.api-server: expected a list of ports"),
        ("r.example", "ports: {api-server: [true]}\n", "ports.api-server: expected a list of ports"),
        ("r.example", "ports: {registry: [65536]}\n", "ports.registry: expected a list of ports"),
        ("r.example", "ports: {dns: [53]}\n", "ports.dns: unknown key"),
    ],
)
def test_a_wrong_registry_or_port_is_refused_with_file_and_key(registry: str, more: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(registry, more)
    assert message in caught.value.line()
    assert "(e.yaml)" in caught.value.line()


def test_production_speaks_tls() -> None:
    text = GOOD.replace("none", "{key: k}").replace("r.example/llm", PLAIN)
    with pytest.raises(UsageError, match="registry.plain-http: production speaks TLS"):
        environment.parse(text, "production", "p.yaml")
    assert environment.parse(text, "staging", "s.yaml").network.plain_http


@pytest.mark.parametrize(
    ("registry", "more", "ports"),
    [
        ("r.example/llm", "", {"registry": (443,), "hub": (443,), "api-server": (443, 6443)}),
        ("{host: r.example, plain-http: true}", "", {"registry": (80,)}),
        ("{host: 'r.example:5000/llm', ca: a.crt}", "", {"registry": (5000,)}),
        ("'[::1]:5000'", "", {"registry": (5000,)}),
        (PLAIN, "ports: {hub: [8443, 443], api-server: [16443], registry: [5000, 443]}\n", {
            "registry": (443, 5000), "hub": (443, 8443), "api-server": (16443,),
        }),
    ],
)  # fmt: skip
def test_ports_come_from_the_address_or_are_said(registry: str, more: str, ports: dict[str, tuple[int, ...]]) -> None:
    assert parse(registry, more).network.ports.items() >= ports.items()


def test_the_address_stays_the_text_that_references_begin_with() -> None:
    one = parse("{host: r.example:5000/llm/}")
    assert (one.registry, one.network.host) == ("r.example:5000/llm", "r.example:5000")


def test_the_authority_is_read_when_it_is_used(checkout: Checkout) -> None:
    one = parse("{host: r.example/llm, ca: k8s/keys/registry.crt}")
    with pytest.raises(UsageError, match=r"registry\.ca cannot be read: No such file.*k8s/keys/registry\.crt"):
        one.network.access()
    file = checkout.root / "k8s/keys/registry.crt"
    file.parent.mkdir()
    file.write_text("not one")
    with pytest.raises(UsageError, match=r"registry\.ca: it holds no certificate in PEM"):
        one.network.access()
    file.write_bytes(CERTIFICATE.read_bytes() + CERTIFICATE.with_suffix(".key").read_bytes())
    found = one.network.access()
    assert (found.host, found.plain_http, "PRIVATE" in found.ca) == ("r.example", False, False)


def test_what_the_environment_says_counts_more_than_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "host").write_text("folder.example")
    (tmp_path / "plain-http").write_text("true")
    monkeypatch.setenv(access.VARIABLE, str(tmp_path))
    assert parse("r.example/llm").network.access() == Access("folder.example", plain_http=True)
    assert parse(PLAIN).network.access() == Access("r.example:5000", plain_http=True)


def test_the_table_shows_both(checkout: Checkout) -> None:
    found = table.settings(parse("{host: r.example:5000, ca: k8s/keys/registry.crt}"))
    assert found["registry"] == "r.example:5000"
    assert re.fullmatch(r".*k8s/keys/registry\.crt", found["registry ca"])
    assert (found["ports registry"], found["ports api-server"]) == ("5000", "443, 6443")
    plain = table.settings(parse(PLAIN))
    assert (plain["registry plain-http"], plain["registry ca"]) == ("yes", "the system's")
