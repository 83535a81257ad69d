"""A folder of programs that are called and behave as those of the images, small and quick, or misbehave in one named way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common import paths
from smoke.boxes.local import Workshop
from smoke.payload import tiny
from smoke.rungs.jobs import Jobs
from smoke.rungs.run import Run

_CLI = """
import json, os, subprocess, sys, time
from pathlib import Path
FAULT = {fault!r}
kind, name = sys.argv[1:3]
config = dict(line.split(": ", 1) for line in Path(name).read_text().splitlines())
config = {{key: json.loads(value) for key, value in config.items()}}
if kind == "export":
    sys.exit("export fails" if FAULT == "no export" else 0)
if "learning_rat" in config and FAULT != "takes any key":
    sys.exit("ValueError: Some keys are not used by the HfArgumentParser: ['learning_rat']")
if config["dataset"] == "elsewhere":
    print("ValueError: Undefined dataset elsewhere in dataset_info.json.", file=sys.stderr)
    sys.exit(0 if FAULT == "fails with code 0" else 1)
out = Path(config["output_dir"])
out.mkdir(exist_ok=True)
start = 0
if "resume_from_checkpoint" in config and FAULT != "begins anew":
    start = json.loads((Path(config["resume_from_checkpoint"]) / "trainer_state.json").read_text())["global_step"]
for step in range(start + 1, 201):
    loss = 8.0 / step + (0.5 if FAULT == "another loss" and config["output_dir"] != "adapter" else 0.0)
    with (out / "trainer_log.jsonl").open("a") as log:
        log.write(json.dumps({{"current_steps": step, "loss": loss}}) + "\\n")
    if step == config.get("save_steps") and FAULT != "no checkpoint":
        (out / f"checkpoint-{{step}}").mkdir()
        (out / f"checkpoint-{{step}}" / "trainer_state.json").write_text(json.dumps({{"global_step": step}}))
    if config["save_strategy"] == "steps" and FAULT != "quick":
        time.sleep(0.02)
"""

_SERVER = """
import json, os, signal, subprocess, sys
sys.path.insert(0, {root!r})
from smoke.payload import tiny
from tests.smoke.chat_server import ChatServer
argv = sys.argv[1:]
FAULT = {fault!r}
def stop(*_):
    if FAULT == "leaves a process":
        subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os._exit(3 if FAULT == "ends badly" else 0)
if FAULT == "does not start":
    raise ValueError("no such model")
vllm = argv[0] == "serve"
port = int(argv[argv.index("--port") + 1] if vllm else os.environ["API_PORT"])
key = os.environ["VLLM_API_KEY" if vllm else "API_KEY"]
if FAULT == "prints its key":
    print("started with", key, flush=True)
answers = {{row["instruction"]: row["output"] for row in tiny.rows()}}
server = ChatServer(answers, vllm=vllm, fault=FAULT, pause=0.002, port=port, key=key)
if argv[1:2] == ["merged"]:
    server.models = ("tuned",)
signal.signal(signal.SIGTERM, signal.SIG_IGN if FAULT == "does not stop" else stop)
server.serve_forever()
"""


def make(directory: Path, fault: str = "") -> Path:
    """The folder: `llamafactory-cli`, `vllm`, and a `python` that runs a payload program."""
    directory.mkdir()
    cli, server = _CLI.format(fault=fault), _SERVER.format(fault=fault, root=str(paths.ROOT))
    _write(directory / "llamafactory-cli", f"#!{sys.executable}\n{cli}")
    _write(directory / "vllm", f"#!{sys.executable}\n{server}")
    # LLaMA-Factory's api is run by its payload program; here the same server stands in for what that would run.
    _write(
        directory / "python",
        f'#!/bin/sh\ncase "$1" in */api.py) shift; exec "{directory}/vllm" "$@";; esac\nexec "{sys.executable}" "$@"\n',
    )
    return directory


@contextmanager
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str = "") -> Iterator[Run]:
    """A run on which these programs run, with everything that the rung `tiny model` would have written."""
    folder = make(tmp_path / "bin", fault)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    with Workshop(tmp_path / "results") as workshop, Jobs(2) as jobs:
        folder_of_run = Path(workshop.run)
        for name, config in tiny.configs(gpu=False).items():
            (folder_of_run / name).write_text(tiny.yaml(config))
        row = tiny.rows()[0]
        (folder_of_run / "rendered.txt").write_text(f"user {row['instruction']} assistant {row['output']} end")
        found = Run(workshop, gpu=False, jobs=jobs, contained=False, open=workshop.open)
        found.figures.versions["api"] = {"vllm": "0.28.0"}
        yield found


def _write(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o755)
