"""Secrets that others could read are refused wherever people write them; what only is called so is not."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s.rules.leaks import is_secret
from tests.k8s.rules.judged import pod, told

# Put together here, so that no scanner of this repository takes them for real ones.
HUGGING_FACE = "hf_" + "aXcWeFqHiJ" * 3 + "kLmN"
GITHUB = "ghp_" + "aB3dE5fG7h" * 3 + "iJ9kLm"
SSH = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\\n" + base64.b64encode(b"openssh-key-v1\0" + bytes(range(90))).decode()
REFERENCE = "valueFrom: {secretKeyRef: {name: inference-api-key, key: API_KEY}}"
SECRETS = {("shop", "inference-api-key"): frozenset({"API_KEY"})}
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s, namespace: shop}\ndata:\n  "

LEAKS = {
    "flag_and_value": pod(container="args: [--model, /m, --api-key, not-a-real-key-0123456789]"),
    "flag_with_value": pod(container="args: ['--api-key=not-a-real-key-0123456789']"),
    "flag_in_the_command": pod(container="command: [server, --redis-password, hunter22]"),
    "flag_in_a_script": pod(container="command: [sh, -c], args: ['exec vllm serve /m --api-key not-a-real-one']"),
    "variable_in_a_script": pod(container="command: [sh, -c, 'PGPASSWORD=not-a-real-one psql -c x']"),
    "header_in_a_command": pod(container="command: [curl, --fail, -H, 'Authorization: Bearer not-a-real-one', http://x]"),
    "header_of_a_probe": pod(
        container="livenessProbe: {httpGet: {port: 80, httpHeaders: [{name: Authorization, value: Basic bm90LWEtcmVhbA==}]}}"
    ),
    "token_by_its_form": pod(container=f"args: ['{HUGGING_FACE}']"),
    "token_by_its_form_in_a_config_map": CONFIG + f"notes: 'use {GITHUB}'",
    "private_key_in_a_config_map": CONFIG + f'id: "{SSH}"',
    "password_in_an_address": pod(container="env: [{name: DATABASE_URL, value: 'postgres://app:not-a-real-one@db:5432/app'}]"),
    "password_in_an_address_in_args": pod(container="args: ['--broker=amqp://user:not-a-real-one@mq/']"),
    "password_in_an_address_in_a_config_map": CONFIG + "url: 'redis://:not-a-real-one@cache:6379/0'",
    "config_map_that_is_an_environment": CONFIG + "HF_TOKEN: not-a-real-one",
    "config_map_that_holds_a_file": CONFIG + "app.yaml: |\n    server: x\n    db:\n      password: not-a-real-one\n",
    "config_map_that_holds_properties": CONFIG + "app.properties: |\n    a=b\n    spring.datasource.password=not-a-real-one\n",
    "variable_without_underscore": pod(container="env: [{name: PGPASSWORD, value: not-a-real-one}]"),
    "variable_of_a_service": pod(container="env: [{name: OPENAI_KEY, value: not-a-real-one}]"),
    "variable_that_is_no_place_in_a_store": pod(container="env: [{name: DB_PASSWORD, value: 'vault:pass#1x'}]"),
    "key_of_a_service_beside_a_fingerprint": pod(container="env: [{name: ACME_KEY, value: A035C8C19219BA821ECEA86B64E628F8}]"),
    "variable_in_lower_case": pod(container="env: [{name: api_token, value: not-a-real-one}]"),
    "variable_in_camel_case": pod(container="env: [{name: clientSecret, value: not-a-real-one}]"),
}
SHOWN = {
    "by_the_kubelet": pod(container=f"args: ['--api-key=$(KEY)'], env: [{{name: KEY, {REFERENCE}}}]"),
    "by_a_shell": pod(
        container=f"command: [sh, -c], args: ['exec vllm serve /m --api-key $KEY'], env: [{{name: KEY, {REFERENCE}}}]"
    ),
    "by_a_shell_in_braces": pod(container=f"command: [bash, -ec, 'x --key \"${{KEY}}\"'], env: [{{name: KEY, {REFERENCE}}}]"),
}
NO_LEAKS = {
    "switches": pod(
        container="env: [{name: MYSQL_RANDOM_ROOT_PASSWORD, value: 'yes'}, {name: HF_HUB_DISABLE_IMPLICIT_TOKEN, value: '1'}, "
        "{name: ALLOW_EMPTY_PASSWORD, value: 'yes'}]"
    ),
    "names": pod(
        container="env: [{name: ETCD_INITIAL_CLUSTER_TOKEN, value: etcd-cluster-1}, {name: S3_KEY, value: data/train/one}]"
    ),
    "none_at_all": pod(container="env: [{name: OPENAI_API_KEY, value: EMPTY}, {name: HF_TOKEN, value: ''}]"),
    "a_file": pod(container="env: [{name: TLS_PRIVATE_KEY, value: /certs/tls.key}], args: [--private-key, /certs/tls.key]"),
    "where_it_is": pod(
        container="args: ['--token-file=/var/run/t', '--tls-secret=web-tls', '--tokenizer=/m', '--max-tokens=4096']"
    ),
    "what_the_kubelet_fills_in": pod(container="env: [{name: A_PASSWORD, value: $(OTHER)}]"),
    "address_without_login": pod(container="env: [{name: URL, value: 'http://db:5432/a@b'}]"),
    "address_that_is_filled_in": pod(container="args: ['postgres://app:$(PASSWORD)@db/app', 'http://u:<password>@h']"),
    "settings": CONFIG
    + "app.yaml: |\n    password: ${DB_PASSWORD}\n    token_file: /run/t\n    secretKeyRef: {name: a}\n    tokenizer: x\n",
    "public_key": pod(
        container="env: [{name: SSH_PUBLIC_KEY, value: ssh-ed25519-AAAAC3NzaC1}, {name: PARTITION_KEY, value: customer-number}]"
    ),
}


@pytest.mark.parametrize("case", LEAKS)
def test_refuses(case: str) -> None:
    wrong = told(LEAKS[case])
    assert wrong
    assert all(one.startswith("secret-") and "and so in git" in one for one in wrong), wrong


@pytest.mark.parametrize("case", SHOWN)
def test_refuses_a_secret_in_a_command_line(case: str) -> None:
    (wrong,) = told(SHOWN[case], secrets=SECRETS)
    assert wrong.startswith("secret-in-command-line")
    assert "the whole node can read" in wrong


@pytest.mark.parametrize("case", NO_LEAKS)
def test_takes(case: str) -> None:
    assert told(NO_LEAKS[case]) == []


def test_no_secret_is_repeated_in_a_message() -> None:
    for text in LEAKS.values():
        for one in told(text):
            assert not any(part in one for part in ("not-a-real", "hunter22", HUGGING_FACE, GITHUB)), one


def test_a_long_word_is_judged_in_a_moment() -> None:
    """From each of its letters it might be the scheme of an address with a login."""
    began = time.monotonic()
    assert told(CONFIG + f"words: '{'a-' * 200_000}'\n") == []
    assert time.monotonic() - began < 60


@given(
    st.from_regex(r"[A-Z]{2,8}_(TOKEN|PASSWORD|API_KEY|SECRET)", fullmatch=True),
    st.from_regex(r"[a-z]{4}-[a-z0-9]{12}", fullmatch=True),
)
def test_what_is_called_a_secret_is_one_unless_it_is_filled_in(name: str, value: str) -> None:
    if not name.startswith(
        ("NO_", "IS_", "HAS_", "MAX_", "MIN_", "NUM_", "TLS_", "CERT_", "USE_", "ALLOW_", "EMPTY_", "ENABLE_", "RANDOM_")
    ):
        assert is_secret(name, value) or "CLUSTER" in name
    for filled in (f"$({value})", f"${{{value}}}", f"{{{{{value}}}}}", f"<{value}>", f"/{value}"):
        assert not is_secret(name, filled)
