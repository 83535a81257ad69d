"""What a text of manifests is found to be, without a checkout: schema, images and rules."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from k8s.envs import environment
from k8s.envs.environment import Environment
from k8s.objects import manifests, schema
from k8s.objects.findings import Finding, named
from k8s.objects.manifests import Manifest
from k8s.prepare import pin
from k8s.rules import all as rules

IMAGE = "quay.io/acme/a@sha256:" + "a" * 64


@functools.cache
def _environment() -> Environment:
    return environment.load("staging")


def found(text: str, **changes: Any) -> list[Finding]:
    """Everything that is wrong with these manifests in an environment that differs by `changes`."""
    read = list(manifests.parse(text, "f.yaml"))
    wrong = [one for one in read if isinstance(one, Finding)]
    objects = [one for one in read if isinstance(one, Manifest)]
    env = dataclasses.replace(_environment(), **changes)
    kinds = schema.of_set(env.kubernetes, objects)
    walks = [kinds.walk(one) for one in objects]
    misfits = named("schema", (one for walk in walks for one in walk.findings))
    unpinned = named("image", pin.pin(walks, env, {})[2])
    return sorted({*wrong, *misfits, *unpinned, *rules.check(walks, env)})


def told(text: str, **changes: Any) -> list[str]:
    """The same as `rule: path: what`."""
    return [f"{one.rule}: {one.path}: {one.what}" for one in found(text, **changes)]


def pod(fields: str = "", container: str = "", *, labels: str = "app: web", kind: str = "Deployment") -> str:
    """A workload of one container; `fields` of its pod and `container` as flow mappings' insides."""
    one = f"[{{name: c, image: '{IMAGE}'{', ' if container else ''}{container}}}]"
    return (
        f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: web, namespace: shop}}\nspec:\n"
        f"  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{{labels}}}}}\n"
        f"    spec: {{{fields}{', ' if fields else ''}containers: {one}}}\n"
    )
