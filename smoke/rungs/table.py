"""The rungs there are: the code of each, its time limit, and what to do when it fails. docs/smoke.md prints the same table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a rung beforehand.

    Attributes:
        code: its own exit code, in the receipt; `invoke smoke` itself ends with 13 whichever fails.
        limit: seconds its work may take, on two slow cores.
        fix: what to do when it fails.
    """

    code: int
    limit: float
    fix: str


_IMAGE = "the image was built wrong: look at the rung's log, then at its lock and image.toml"
_TRAIN = "the log holds LLaMA-Factory's own words; `invoke lock --explain` says what moved in the set"
_SERVE = "the log holds the server's own words; compare the versions with those of the last passed receipt"
_STOP = "the server must be process 1 and end on SIGTERM: look at how it is started, and at its log"
_GPU_ONLY = "GPU memory given back"
VLLM, MERGED, FACTORY = "vllm serve", "vllm serve merged", "llamafactory-cli api"

KNOWN: dict[str, Known] = {
    "preflight": Known(10, 30, "do as `invoke smoke` says: it ends with 10, and no receipt is written"),
    "contract of train": Known(20, 120, _IMAGE),
    "contract of api": Known(21, 120, _IMAGE),
    "device of train": Known(30, 240, "torch does not see what it should: look at the driver, and at the rung's log"),
    "device of api": Known(31, 240, "torch does not see what it should: look at the driver, and at the rung's log"),
    "tiny model": Known(40, 120, _TRAIN),
    "train": Known(41, 300, _TRAIN),
    "train again": Known(42, 300, "a training that differs from run to run: look for what is not seeded"),
    "resume": Known(43, 400, _TRAIN),
    "broken config": Known(44, 300, "a failed training must be seen as failed: look at the rung's log"),
    "export": Known(50, 300, _TRAIN),
    "adapter and merge agree": Known(51, 300, "the export computes something else than the adapter: do not deploy exports"),
    f"{VLLM}: ready": Known(60, 600, _SERVE),
    f"{VLLM}: answers": Known(61, 180, _SERVE),
    f"{VLLM}: streaming": Known(62, 180, _SERVE),
    f"{VLLM}: protocol": Known(63, 180, _SERVE),
    f"{VLLM}: refusals": Known(64, 180, _SERVE),
    f"{VLLM}: load": Known(65, 180, _SERVE),
    f"{VLLM}: hang-up": Known(66, 180, _SERVE),
    f"{VLLM}: metrics": Known(67, 60, _SERVE),
    f"{VLLM}: stop": Known(68, 60, _STOP),
    f"{MERGED}: ready": Known(70, 600, _SERVE),
    f"{MERGED}: answers": Known(71, 180, _SERVE),
    f"{MERGED}: stop": Known(78, 60, _STOP),
    f"{FACTORY}: ready": Known(80, 600, _SERVE),
    f"{FACTORY}: answers": Known(81, 180, _SERVE),
    f"{FACTORY}: streaming": Known(82, 180, _SERVE),
    f"{FACTORY}: protocol": Known(83, 180, _SERVE),
    f"{FACTORY}: refusals": Known(84, 180, _SERVE),
    f"{FACTORY}: load": Known(85, 180, _SERVE),
    f"{FACTORY}: hang-up": Known(86, 180, _SERVE),
    f"{FACTORY}: stop": Known(88, 60, _STOP),
    "the base model does not know": Known(
        90, 30, "the answers do not come from the training: look at the base model's answers"
    ),
    _GPU_ONLY: Known(91, 60, "something still holds GPU memory: `nvidia-smi` names it"),
}


def rungs(*, gpu: bool) -> frozenset[str]:
    """The rungs that a run of the images has.

    Args:
        gpu: whether it is on a GPU.
    """
    return frozenset(KNOWN) - (frozenset() if gpu else {_GPU_ONLY})
