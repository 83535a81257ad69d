"""A question to the model that a cluster serves: through `kubectl port-forward`, with the API key from its Secret.

Nothing of the cluster has to be reachable from outside for it, and the key is in no argument, file or line of output.
"""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from common import child_environment
from common.errors import MissingEnvironmentError, PolicyError, UsageError
from k8s.rollouts.kubectl import Kubectl, refusal

# What the set's Service, Secret and Deployment are called (k8s/manifests/inference/).
_NAMESPACE, _SERVICE, _PORT = "llm-inference", "llama-factory-inference", 8000
_SECRET, _KEY = "inference-api-key", "API_KEY"
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ->")
# Seconds for a token: a large model reads a long prompt before the first.
_PATIENCE = 300.0


def answer(kubectl: Kubectl, question: str) -> Iterator[str]:
    """Ask the served model, and give its answer as it comes, piece by piece.

    The most likely words are taken: the same question gets the same answer.

    Args:
        kubectl: of the cluster.
        question: of the user.

    Raises:
        UsageError: the question is empty.
        MissingEnvironmentError: the cluster does not answer, no pod serves, or the server does not answer.
        PolicyError: you may not read the key, or the server does not take it.
    """
    if not question.strip():
        raise UsageError("the question is empty", fix='write it in quotes: invoke ask --env NAME "…"')
    deployment = kubectl.get("deployments.apps", _NAMESPACE, _SERVICE)
    title = f"Deployment {_NAMESPACE}/{_SERVICE}"
    if deployment is None:
        raise MissingEnvironmentError(f"the cluster has no {title}", where=kubectl.context, fix="deploy it: `invoke deploy`")
    if not (deployment.get("status") or {}).get("availableReplicas"):
        none_yet = deployment["spec"].get("replicas") == 0
        fix = "train a model: `invoke train`" if none_yet else f"see why: `{kubectl.shown} -n {_NAMESPACE} get pods`"
        raise MissingEnvironmentError(f"no pod of {title} serves", where=kubectl.context, fix=fix)
    key = _api_key(kubectl)
    with _forwarded(kubectl) as port:
        yield from _streamed(port, key, question)


def _api_key(kubectl: Kubectl) -> str:
    args = ["get", "secret", _SECRET, "-n", _NAMESPACE, "-o", f"jsonpath={{.data.{_KEY}}}"]
    found = kubectl.request(args)
    if found.code or not found.stdout:
        fix = f"let your account `get` it, or make it: `invoke secrets`; its key is {_KEY}"
        raise refusal(found, f"the API key cannot be read from Secret {_NAMESPACE}/{_SECRET}", fix)
    return base64.b64decode(found.stdout).decode()


@contextmanager
def _forwarded(kubectl: Kubectl) -> Iterator[int]:
    """A port of this machine that leads to the Service while the block runs."""
    argv = [*kubectl.argv(["port-forward", "-n", _NAMESPACE, f"service/{_SERVICE}", f":{_PORT}", "--address=127.0.0.1"])]
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**child_environment.chosen("kubectl"), **kubectl.env},
        text=True,
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - for the types
            yield _port(process.stdout, kubectl)
        finally:
            process.terminate()


def _port(output: IO[str], kubectl: Kubectl) -> int:
    lines = []
    for line in output:
        if match := _FORWARDING.search(line):
            return int(match[1])
        lines.append(line.strip())
    why = " | ".join(lines) or "kubectl says nothing"
    fix = f"let your account `create` pods/portforward in {_NAMESPACE}, and see that a pod is ready"
    raise MissingEnvironmentError(f"no way to {_SERVICE}", where=f"{kubectl.context}: {why}", fix=fix)


def _streamed(port: int, key: str, question: str) -> Iterator[str]:
    import openai

    # A proxy of the user's does not lead to this machine.
    with (
        openai.DefaultHttpxClient(trust_env=False, timeout=_PATIENCE) as http,
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, http_client=http, max_retries=0) as client,
    ):
        try:
            model = next(iter(client.models.list())).id
            messages: Any = [{"role": "user", "content": question}]
            stream: Any = client.chat.completions.create(model=model, messages=messages, stream=True, temperature=0)
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content
        except openai.AuthenticationError:
            fix = "pods read it when they start: restart them after `invoke secrets`"
            raise PolicyError("the server does not take the API key", where=f"Secret {_NAMESPACE}/{_SECRET}", fix=fix) from None
        except (openai.OpenAIError, StopIteration) as problem:
            what = f"the server does not answer: {type(problem).__name__}"
            fix = f"see its log: `kubectl -n {_NAMESPACE} logs deployment/{_SERVICE}`"
            raise MissingEnvironmentError(what, where=str(problem)[:200] or _SERVICE, fix=fix) from None
