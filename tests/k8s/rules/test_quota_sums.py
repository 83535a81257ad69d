"""What a pod asks for at once, and how many of them there are at a time, as the server's quota counts."""

from __future__ import annotations

import pytest

from tests.k8s.rules.judged import IMAGE, told

GPU = "nvidia.com/gpu"


def container(name: str, gpus: int, more: str = "") -> str:
    return f"{{name: {name}, image: '{IMAGE}', resources: {{limits: {{{GPU}: '{gpus}'}}}}{more}}}"


def spec(*init: str, main: int = 1) -> str:
    return f"{{restartPolicy: Never, initContainers: [{', '.join(init)}], containers: [{container('main', main)}]}}"


def job(fields: str, pod: str) -> str:
    return (
        f"apiVersion: batch/v1\nkind: Job\nmetadata: {{name: j, namespace: q}}\nspec: {{{fields}template: {{spec: {pod}}}}}\n"
    )


def cron(fields: str, pod: str) -> str:
    return (
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: j, namespace: q}\n"
        f"spec: {{schedule: '0 3 * * *', jobTemplate: {{spec: {{{fields}template: {{spec: {pod}}}}}}}}}\n"
    )


SIDECAR = ", restartPolicy: Always"
# The objects, and the GPUs that they hold at most at once.
CASES = {
    "one container": (job("", spec()), 1),
    "an init container that ends": (job("", spec(container("i", 1))), 1),
    "an init container that asks for more": (job("", spec(container("i", 3))), 3),
    "sidecars": (job("", spec(container("i", 1, SIDECAR), container("o", 1, SIDECAR))), 3),
    "an init container after a sidecar": (job("", spec(container("i", 2, SIDECAR), container("o", 4))), 6),
    "an init container before a sidecar": (job("", spec(container("o", 4), container("i", 2, SIDECAR))), 4),
    "parallel pods": (job("parallelism: 4, completions: 8, ", spec()), 4),
    "fewer completions than parallel pods": (job("parallelism: 4, completions: 2, ", spec()), 2),
    "a work queue": (job("parallelism: 3, ", spec()), 3),
    "completions one after the other": (job("completions: 5, ", spec()), 1),
    "parallel pods of a cron job": (cron("parallelism: 2, completions: 2, ", spec()), 2),
    "sidecars of parallel pods": (job("parallelism: 2, ", spec(container("i", 1, SIDECAR))), 4),
}


@pytest.mark.parametrize("case", CASES)
def test_a_quota_of_as_many_is_enough_and_one_less_is_not(case: str) -> None:
    text, most = CASES[case]
    for hard in (most, most - 1):
        quota = (
            "---\napiVersion: v1\nkind: ResourceQuota\nmetadata: {name: gpus, namespace: q}\n"
            f"spec: {{hard: {{requests.{GPU}: '{hard}'}}}}\n"
        )
        wrong = [one for one in told(text + quota) if one.startswith("quota")]
        assert bool(wrong) is (hard < most), wrong
