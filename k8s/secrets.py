"""`invoke secrets`: the Secrets an environment lists, made or rotated from the caller's variables or files.

Where a value comes from, the first of: the file `<folder>/<namespace>/<name>/<KEY>`, the file `<folder>/<KEY>`, the variable
`<NAME>_<KEY>` (upper case, other characters than letters and digits as `_`), the variable `<KEY>`. What is offered is written,
what is not offered stays as it is in the cluster.

A value is read, put into a manifest on kubectl's standard input, and nowhere else: no argument, no file, no line of output, and
not into a message of the server's either.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common import console, paths
from common.errors import PinwheelError, PolicyError, UsageError
from common.run import Result
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget
from k8s.objects import manifests, strict_yaml
from k8s.rollouts.conflicts import conflicts
from k8s.rollouts.kubectl import Kubectl, Patience, brief, refusal


@dataclass(frozen=True, slots=True)
class Offer:
    """A value that the caller offers.

    Attributes:
        source: the file or variable, for people.
        value: never shown.
    """

    source: str
    value: bytes = field(repr=False)


def put(env_name: str, *, folder: str = "", patience: Patience | None = None) -> str:
    """Make or rotate the Secrets of an environment, and say which keys are there and which are missing.

    Args:
        env_name: one of `k8s/envs/`.
        folder: with a file for each value; default: the caller's variables only.
        patience: how long to wait for the cluster.

    Returns:
        The outcome in a few words.

    Raises:
        UsageError: the environment is unknown or no cluster, the folder is none, or a value cannot be meant; nothing was sent.
        PolicyError: a key is missing in the cluster and was not offered, or the cluster refuses a Secret.
        MissingEnvironmentError: no kubectl, no such context, no answer from the cluster.
    """
    env = environment.load(env_name)
    if not isinstance(env.target, ClusterTarget):
        fix = "make the Secrets where the directory is applied"
        raise UsageError(
            f"{env.name} is rendered into a directory: there is no cluster to hold Secrets", where=env.file, fix=fix
        )
    if folder and not Path(folder).is_dir():
        raise UsageError("no such folder", where=folder, fix="name a folder with a file for each key")
    offers = {
        (*place, key): offer
        for place, keys in sorted(env.secrets.items())
        for key in sorted(keys)
        if (offer := offered(*place, key, folder)) is not None
    }
    console.info(f"environment  {env.name}: {env.where}")
    kubectl = Kubectl(env.target, patience or Patience())
    kubectl.preflight(env.kubernetes)
    there = {place: kubectl.secret_keys(*place) for place in sorted(env.secrets)}
    missing, written = [], 0
    for (namespace, name), keys in sorted(env.secrets.items()):
        fresh = {key: offers[(namespace, name, key)] for key in sorted(keys) if (namespace, name, key) in offers}
        if fresh:
            _write(kubectl, namespace, name, fresh, there[(namespace, name)])
            written += len(fresh)
        for key in sorted(keys):
            title = f"Secret {namespace}/{name}: {key}"
            if key in fresh:
                console.done(
                    f"{'rotated' if key in there[(namespace, name)] else 'created'}      {title}, from {fresh[key].source}"
                )
            elif key in there[(namespace, name)]:
                console.info(f"there        {title}, left as it is")
            else:
                console.warn(f"missing      {title}: set {_variable(name, key)}")
                missing.append(f"{namespace}/{name}: {key}")
    if missing:
        what = f"{len(missing)} keys are missing" if len(missing) > 1 else "a key is missing"
        fix = "offer them by variable, or by file with --folder; each line above names the variable"
        raise PolicyError(f"{what}: pods that need them do not start", where="; ".join(missing), fix=fix)
    if written:
        console.info("pods read a Secret's variables when they start: restart those that run to hand them new values")
    return f"{written} keys written, {sum(map(len, env.secrets.values())) - written} left as they are, none missing"


def _variable(name: str, key: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", f"{name}_{key}".upper())


def offered(namespace: str, name: str, key: str, folder: str) -> Offer | None:
    """What the caller offers for a key; None: nothing.

    Raises:
        UsageError: a value that cannot be meant, or a file that cannot be read.
    """
    places = (Path(folder, namespace, name, key), Path(folder, key)) if folder else ()
    for place in places:
        if place.is_file():
            try:
                return _sound(Offer(str(place), place.read_bytes()))
            except OSError as problem:
                raise UsageError(f"a value cannot be read: {problem.strerror}", where=str(place), fix="mend it") from None
    for variable in (_variable(name, key), key):
        # An empty variable of a CI is one whose secret is not set there: a mistake to be told of, not to be passed over.
        if variable in os.environ:
            return _sound(Offer(f"${variable}", os.fsencode(os.environ[variable])))
    return None


def _sound(offer: Offer) -> Offer:
    if not offer.value.strip():
        raise UsageError("a value is empty", where=offer.source, fix="write the value there, or remove it; nothing was sent")
    if offer.value.endswith((b"\n", b"\r")):
        fix = "programs would send it along: write the value without it (`printf %s`, not `echo`); nothing was sent"
        raise UsageError("a value ends with a line break", where=offer.source, fix=fix)
    return offer


def _write(kubectl: Kubectl, namespace: str, name: str, fresh: Mapping[str, Offer], held: frozenset[str]) -> None:
    """Apply the offered keys of one Secret.

    Each key has a field manager of its own below ours: an apply takes away what its manager applied before and leaves out now,
    and a key that is not offered today must stay.
    """
    for key, offer in fresh.items():
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "data": {key: base64.b64encode(offer.value).decode()},
        }
        answer = kubectl.apply(strict_yaml.dump([body]), part=key)
        if answer.code and f'namespaces "{namespace}" not found' in answer.stderr:
            _make_namespace(kubectl, namespace)
            answer = kubectl.apply(strict_yaml.dump([body]), part=key)
        if answer.code:
            raise _refused(answer, f"{namespace}/{name}: {key}", offer, sorted(held))


def _make_namespace(kubectl: Kubectl, namespace: str) -> None:
    """Make the namespace as the deploy will, from this checkout's own manifest: Secrets come before the first deploy."""
    objects, _ = manifests.load([paths.K8S / "manifests"])
    own = [manifest.body for manifest in objects if (manifest.kind, manifest.name) == ("Namespace", namespace)]
    if not own:
        fix = "look at `secrets` in the environment, or make the namespace"
        raise PolicyError(f"there is no namespace {namespace}, and no manifest of it", where="k8s/manifests", fix=fix)
    answer = kubectl.apply(strict_yaml.dump(own[:1]))
    if answer.code:
        raise refusal(answer, f"the cluster refuses the namespace {namespace}", "see its words; no Secret of it was sent")
    console.done(f"created      Namespace {namespace}")


def _refused(answer: Result, title: str, offer: Offer, held: Sequence[str]) -> PinwheelError:
    owned = conflicts(answer.stderr)
    if owned:
        fix = "delete that key or the Secret there and run this again; nothing is ever taken by force"
        owners = ", ".join(sorted({conflict.owner for conflict in owned}))
        return PolicyError(f"Secret {title} belongs to {owners}", where=f"it holds {', '.join(held) or 'nothing'}", fix=fix)
    clean = Result(answer.code, "", scrubbed(answer.stderr, offer.value))
    problem = refusal(clean, f"the cluster refuses Secret {title}", "see its words; what came before was written")
    return type(problem)(problem.what, where=brief(clean), fix=problem.fix)


def scrubbed(text: str, value: bytes) -> str:
    """A text without the value, plain or in base64."""
    for form in (value.decode(errors="replace"), base64.b64encode(value).decode()):
        text = text.replace(form, "…")
    return text
