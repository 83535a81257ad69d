"""The programs that run inside the images, as far as they run without one."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from smoke.boxes import session
from smoke.payload import tiny
from smoke.rungs import servers
from smoke.rungs.table import MERGED, VLLM

PAYLOAD = Path(tiny.__file__).parent


def test_rows_are_distinct_and_long_enough_to_prove_something() -> None:
    rows = tiny.rows()
    assert len(rows) == 8
    assert len({row["instruction"] for row in rows}) == len({row["output"] for row in rows}) == 8
    assert all(set(row) == {"instruction", "input", "output"} and not row["input"] for row in rows)
    assert min(len(row["output"]) for row in rows) > 30


def test_chat_template_has_exactly_the_pieces_that_llama_factory_trains_on() -> None:
    # Its qwen3_nothink: "<|im_start|>user\n{{content}}<|im_end|>\n<|im_start|>assistant\n" and "{{content}}<|im_end|>\n".
    # No Jinja here: the rung `train` compares the rendered text with what LLaMA-Factory prints.
    assert tiny.chat_template() == (
        "{% for message in messages %}"
        r"{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
        "{% endfor %}"
        r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


@pytest.mark.parametrize("gpu", [False, True])
def test_configurations_read_back_as_yaml(gpu: bool) -> None:
    for config in tiny.configs(gpu=gpu).values():
        assert yaml.safe_load(tiny.yaml(config)) == config


def test_training_on_the_cpu_and_on_the_gpu() -> None:
    cpu, gpu = tiny.configs(gpu=False)["train.yaml"], tiny.configs(gpu=True)["train.yaml"]
    assert (cpu["use_cpu"], cpu["bf16"], cpu["fp16"]) == (True, False, False)
    assert gpu["bf16"] is True
    assert "use_cpu" not in gpu
    shared = {"use_cpu", "bf16", "fp16"}
    assert {key: value for key, value in cpu.items() if key not in shared} == {
        key: value for key, value in gpu.items() if key not in shared
    }
    assert "modules_to_save" not in cpu
    assert (cpu["lora_alpha"], cpu["lora_rank"], cpu["do_train"]) == (32, 16, True)


def test_all_steps_name_the_same_model_template_and_adapter() -> None:
    configs = tiny.configs(gpu=False)
    assert {config["template"] for config in configs.values()} == {"qwen3_nothink"}
    assert {config["model_name_or_path"] for config in configs.values()} == {"model"}
    train, export, api = (configs[f"{name}.yaml"] for name in ("train", "export", "api"))
    assert train["output_dir"] == export["adapter_name_or_path"] == api["adapter_name_or_path"] == "adapter"
    assert f"{servers.TUNED}=adapter" in servers.command(VLLM, gpu=False, vllm="0.28.0+cpu")
    assert str(export["export_dir"]) in servers.command(MERGED, gpu=False, vllm="0.28.0+cpu")


def test_other_trainings_differ_from_the_first_in_what_they_are_about_alone() -> None:
    configs = tiny.configs(gpu=False)
    train = configs["train.yaml"]

    def differs(name: str) -> set[str]:
        other = configs[name]
        return {key for key in train.keys() | other.keys() if train.get(key) != other.get(key)}

    assert differs("again.yaml") == {"output_dir"}
    assert differs("killed.yaml") == {"output_dir", "save_strategy", "save_steps"}
    assert differs("resume.yaml") == {"output_dir", "overwrite_output_dir", "resume_from_checkpoint"}
    assert differs("misspelt.yaml") == {"output_dir", tiny.MISSPELT}
    assert differs("no-dataset.yaml") == {"output_dir", "dataset"}
    killed, resume = configs["killed.yaml"], configs["resume.yaml"]
    assert resume["resume_from_checkpoint"] == f"{killed['output_dir']}/checkpoint-{killed['save_steps']}"
    # Emptying the directory would take the checkpoint along.
    assert (killed["output_dir"], resume["overwrite_output_dir"]) == (resume["output_dir"], False)
    assert configs["misspelt.yaml"]["output_dir"] == configs["no-dataset.yaml"]["output_dir"] != train["output_dir"]


@pytest.mark.parametrize("script", sorted(PAYLOAD.glob("*.py")), ids=lambda script: str(script.name))
def test_imports_nothing_of_pinwheel(script: Path) -> None:
    named = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            # A neighbour travels along, and is there under its own name, too.
            named.add(str(node.module).removeprefix("smoke.payload.").partition(".")[0])
    assert named <= {
        *sys.stdlib_module_names,
        *(neighbour.stem for neighbour in PAYLOAD.glob("*.py")),
        "llamafactory",
        "openai",
        "packaging",
        "peft",
        "tokenizers",
        "torch",
        "transformers",
    }


def test_neighbours_are_found_by_who_runs_as_a_plain_program(tmp_path: Path) -> None:
    argv = [sys.executable, str(PAYLOAD / "ask.py"), "--help"]
    done = subprocess.run(argv, cwd=tmp_path, env={}, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_contract_runs_as_plain_python() -> None:
    done = subprocess.run(
        [sys.executable, "-I", PAYLOAD / "contract.py", "sh", "not-there"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = json.loads(done.stdout)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["prefix"] == sys.prefix
    assert "/tmp" in found["writable"]
    assert "lo" in found["interfaces"]
    assert found["programs"] == {"sh": shutil.which("sh"), "not-there": None}


# As uvicorn ends: it puts the handler back that stood before, and sends itself the signal once more.
UVICORN = """
import atexit, os, signal, sys
def main():
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    os.kill(os.getpid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
    atexit.register(print, "engine ended", sys.argv)
    signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize(
    ("program", "code", "printed"),
    [
        ([str(PAYLOAD / "api.py"), "api.yaml"], 0, "engine ended ['llamafactory-cli', 'api', 'api.yaml']\n"),
        # What it is there for: without it the process is gone before it could end anything.
        (["-c", "from llamafactory.cli import main; main()"], -15, ""),
    ],
)
def test_api_ends_in_order_where_it_is_not_process_1(tmp_path: Path, program: list[str], code: int, printed: str) -> None:
    (tmp_path / "llamafactory").mkdir()
    (tmp_path / "llamafactory/cli.py").write_text(UVICORN)
    env = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-S", *program], env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (code, printed)


def test_the_whole_payload_travels() -> None:
    data = session.payload(owner="1")
    for file in PAYLOAD.iterdir():
        if file.is_file():
            assert file.read_bytes() in data
