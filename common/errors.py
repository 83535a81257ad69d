"""Every error a user can cause, and the exit-code table.

The README prints the same table; `tests/common/test_errors.py` compares the two.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class ExitCode(enum.IntEnum):
    """What the process returns; one code for each class of failure."""

    OK = 0
    # Invoke's own, for what it cannot parse; and Python's, for an exception that nobody caught.
    INVOKE = 1
    USAGE = 2
    ENVIRONMENT = 10
    LOCK = 11
    BUILD = 12
    SMOKE = 13
    REGISTRY = 14
    POLICY = 15
    DEPLOY_ROLLED_BACK = 16
    DEPLOY_NOT_ROLLED_BACK = 17
    TRAINING = 18
    DRIFT = 19
    NOT_RECORDED = 20
    AUDIT = 21
    INTERRUPTED = 130
    TERMINATED = 143


MEANING: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.INVOKE: "no such command or flag (Invoke's own code), or a failed test; a traceback is a bug: please report it",
    ExitCode.USAGE: "wrong name, value or configuration file",
    ExitCode.ENVIRONMENT: "something is missing on this machine: engine, tool, GPU, driver, disk; or no cluster answers",
    ExitCode.LOCK: "a lock is stale or was edited, or bytes do not match the lock",
    ExitCode.BUILD: "the image could not be built",
    ExitCode.SMOKE: "an image did not do its job",
    ExitCode.REGISTRY: "the registry refused, failed, or holds another digest than was pushed",
    ExitCode.POLICY: "a manifest, an image, a model or a second deploy is refused, or the cluster refuses; what serves stays",
    ExitCode.DEPLOY_ROLLED_BACK: "the deploy failed and the last good set was put back",
    ExitCode.DEPLOY_NOT_ROLLED_BACK: "the deploy failed and could NOT be put back: look at the cluster",
    ExitCode.TRAINING: "a training failed in the cluster: the step that failed is named",
    ExitCode.DRIFT: "what runs, the record and this checkout differ",
    ExitCode.NOT_RECORDED: "the deploy runs, but its record could not be written, or what it left could not be deleted",
    ExitCode.AUDIT: "something that is locked or runs has a known defect above the policy",
    ExitCode.INTERRUPTED: "interrupted from the keyboard",
    ExitCode.TERMINATED: "told to end (SIGTERM)",
}


class PinwheelError(Exception):
    """A failure the user can act on.

    Args:
        what: what happened, one line, no full stop.
        where: the file, path, digest or host it concerns; may be empty.
        fix: what the user can do about it; may be empty.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(self.line())

    def line(self) -> str:
        """The error as one line: what happened (where): what to do."""
        text = self.what
        if self.where:
            text += f" ({self.where})"
        if self.fix:
            text += f": {self.fix}"
        return " ".join(text.split())


def of_code(code: ExitCode) -> type[PinwheelError]:
    """The class of errors that ends with this exit code; `PolicyError` where no class does."""
    return next((one for one in PinwheelError.__subclasses__() if one.exit_code == code), PolicyError)


class UsageError(PinwheelError):
    """A name, flag or configuration file that makes no sense."""

    exit_code = ExitCode.USAGE


class MissingEnvironmentError(PinwheelError):
    """This machine lacks something: engine, tool, GPU, driver, disk. Or a cluster does not answer."""

    exit_code = ExitCode.ENVIRONMENT


class LockError(PinwheelError):
    """A lock is stale or edited, or bytes do not match it."""

    exit_code = ExitCode.LOCK


class BuildError(PinwheelError):
    """An image could not be built from good inputs."""

    exit_code = ExitCode.BUILD


class SmokeError(PinwheelError):
    """An image was built but does not do its job."""

    exit_code = ExitCode.SMOKE


class RegistryError(PinwheelError):
    """A registry refused, failed or lied."""

    exit_code = ExitCode.REGISTRY


class PolicyError(PinwheelError):
    """A manifest or an image is refused; nothing was sent."""

    exit_code = ExitCode.POLICY


class DeployRolledBackError(PinwheelError):
    """A deploy failed; the last good set was put back."""

    exit_code = ExitCode.DEPLOY_ROLLED_BACK


class DeployNotRolledBackError(PinwheelError):
    """A deploy failed and the last good set could not be put back."""

    exit_code = ExitCode.DEPLOY_NOT_ROLLED_BACK


class TrainingError(PinwheelError):
    """A workflow that trains a model ended without one, or could not put it into service."""

    exit_code = ExitCode.TRAINING


class DriftError(PinwheelError):
    """What runs, what the record says was deployed, and what this checkout would deploy differ. Nothing was changed."""

    exit_code = ExitCode.DRIFT


class AuditError(PinwheelError):
    """Something that is locked or runs has a known defect that the policy does not allow."""

    exit_code = ExitCode.AUDIT


class DeployNotRecordedError(PinwheelError):
    """A deploy runs and was read back, but its record could not be written, or what it left could not be deleted."""

    exit_code = ExitCode.NOT_RECORDED
