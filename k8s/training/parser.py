"""LLaMA-Factory's own parser, asked on this machine before anything is sent: where its engine has the train image already.

The same program runs as the first step of the workflow (k8s/pipeline/check.py); here it answers before the data is pushed.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from common import console, host
from common.errors import ExitCode, MissingEnvironmentError, UsageError
from k8s.training.runs import Run
from oci.reference import ImageRef

if TYPE_CHECKING:
    import docker

# Seconds; it takes ten, most of it to load torch.
_PATIENCE = 120
_PROGRAM = ["python", "-m", "pinwheel_pipeline.check"]


def ask(run: Run, image: ImageRef) -> None:
    """Let the parser judge a run's configurations, if that can be done here; else say that it was not.

    Args:
        run: to be submitted.
        image: the train image, by digest. It is not pulled.

    Raises:
        UsageError: LLaMA-Factory refuses.
    """
    import docker.errors

    try:
        with contextlib.closing(host.engine()) as client:
            code, said = _ended(client, run, image.digest)
    except docker.errors.ImageNotFound:
        code, said = -1, "the engine has not the train image"
    except MissingEnvironmentError as problem:
        code, said = -1, problem.what
    except (docker.errors.DockerException, requests.RequestException, OSError) as problem:
        code, said = -1, f"the engine does not run it: {type(problem).__name__}"
    if code == ExitCode.USAGE:
        raise UsageError(said.removeprefix("check: "), where=run.experiment, fix="nothing was sent")
    if code:
        console.info(f"not checked here whether LLaMA-Factory takes the configuration: {said or f'code {code}'}")
    else:
        console.done("LLaMA-Factory takes the configuration: asked its own parser, in the train image")


def _ended(client: docker.DockerClient, run: Run, digest: str) -> tuple[int, str]:
    """The program's exit code in the image, and its last line of errors."""
    from docker.types import Mount

    with tempfile.TemporaryDirectory(prefix="pinwheel-") as name:
        folder = Path(name)
        # The image's user is another than ours.
        folder.chmod(0o755)
        for file, text in run.files().items():
            (folder / file).write_text(text, encoding="utf-8")
        # An engine of another machine has no such folder, and refuses.
        mount = Mount("/config", str(folder), "bind", read_only=True)
        made = client.containers.create(
            digest,
            _PROGRAM,
            working_dir="/opt/pinwheel",
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            tmpfs={"/tmp": "rw,nosuid,nodev,size=1g,mode=1777"},  # noqa: S108 - the container's own
            mounts=[mount],
        )
        try:
            made.start()
            code = int(made.wait(timeout=_PATIENCE)["StatusCode"])
            lines = made.logs(stdout=False).decode(errors="replace").strip().splitlines()
        finally:
            made.remove(force=True)
    return code, lines[-1].strip() if lines else ""
