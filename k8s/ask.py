"""`invoke ask`: a question to the model that an environment serves."""

from __future__ import annotations

from common import console
from common.errors import UsageError
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget
from k8s.rollouts import question
from k8s.rollouts.kubectl import Kubectl, Patience


def ask(env_name: str, text: str, *, patience: Patience | None = None) -> str:
    """Ask the served model and print its answer as it comes.

    Args:
        env_name: one of `k8s/envs/`.
        text: the question.
        patience: how long to wait for the cluster.

    Returns:
        The outcome in a few words.

    Raises:
        UsageError: the environment is unknown or no cluster, or the question is empty.
        MissingEnvironmentError: no kubectl, no such context, no answer from the cluster or the server.
        PolicyError: you may not read the key, or the server does not take it.
    """
    env = environment.load(env_name)
    if not isinstance(env.target, ClusterTarget):
        what = f"{env.name} is rendered into a directory: nothing is served there"
        raise UsageError(what, where=env.file, fix="ask where the directory is applied")
    words = 0
    for piece in question.answer(Kubectl(env.target, patience or Patience()), text):
        console.out.print(piece, end="", markup=False, soft_wrap=True)
        words += len(piece.split())
    console.out.print()
    return f"{words} words from {env.where}"
