"""docs/locks.md: every key of an input stands there, and every example of one is locked."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from common import paths
from lockfiles import check, inputs, lock, models, policy
from lockfiles.models import inputs as models_in
from tests.lockfiles import hub_server
from tests.lockfiles.conftest import OLD, built, versions
from tests.lockfiles.models import steps
from tests.lockfiles.models.test_registered import register
from tests.lockfiles.small_index import Index, serving, wheel
from tests.oci import double

pytestmark = pytest.mark.slow

PAGE = (paths.ROOT / "docs/locks.md").read_text()


def examples(file: str) -> list[str]:
    """The examples of an input of this name, without their indentation."""
    found = re.findall(rf"^    # {re.escape(file)}\n((?:    .*\n|\n)+)", PAGE, re.MULTILINE)
    return [re.sub(r"^    ", "", text, flags=re.MULTILINE) for text in found]


def test_every_key_of_an_input_is_described() -> None:
    section = PAGE[PAGE.index("## What an input says") : PAGE.index("## Checking")]
    for key in ("requires", "overrides", "[sources]", "[sdists.NAME]", "[shims]", "[agrees]", "[agrees.except]", "version"):
        assert f"`{key}`" in section
    for key in ("repo", "revision", "path", "artifact", "made", "files", "allow", "reason"):
        assert f"`{key}`" in section
    assert len(examples("small.in")) == 5


@pytest.mark.parametrize("number", range(5))
def test_every_example_of_a_set_is_locked(
    index: Index, locks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    text = examples("small.in")[number]
    for name, version in (("setuptools", "80.0"), ("gradio", "5.50.0"), ("torch", "2.13.0"), ("acme-core", "9.0")):
        index.add(name, version, uploaded=OLD)
    built(monkeypatch)
    monkeypatch.setattr("lockfiles.python.gpu.needs", lambda *_: None)  # torch here is a name alone
    # A wheel, at the address of the example and beside the checkout.
    data = wheel("flash-attn", "2.8.3")
    file = re.search(r"flash_attn.*?\.whl", PAGE)
    assert file
    index.files[f"files.example.com/{file[0]}"] = data
    text = text.replace("https://files.example.com/", index.url("files.example.com/"))
    text = text.replace("<sha256>", hashlib.sha256(data).hexdigest())
    (paths.ROOT / "wheels").mkdir()
    (paths.ROOT / "wheels/acme_prompts-1.2.0-py3-none-any.whl").write_bytes(wheel("acme-prompts", "1.2.0"))
    # A repository, at the address of the example and beside the checkout.
    fork = paths.ROOT.parent / "LLaMA-Factory"
    fork.mkdir(exist_ok=True)
    (fork / "pyproject.toml").write_text('[project]\nname = "llamafactory"\n')
    git = ["git", "-C", str(fork), "-c", "user.name=A", "-c", "user.email=a@example.com"]
    for argv in (["init", "--quiet"], ["add", "-A"], ["commit", "--quiet", "--allow-empty", "-m", "one"]):
        subprocess.run([*git, *argv], check=True, capture_output=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    text = text.replace("git+https://git.example.com/team/LLaMA-Factory@<commit>", f"git+file://{fork}@{commit}")
    (locks / "lead.in").write_text('requires = ["two"]\n')
    (locks / "small.in").write_text(text)
    with serving() as acme, serving() as pytorch:
        acme.add("acme-core", "1.5", uploaded=OLD)
        pytorch.add("torch", "2.13.0+cpu", uploaded=OLD)
        monkeypatch.setenv("UV_INDEX", f"acme={acme.address} pytorch-cpu={pytorch.address}")
        if not inputs.read_set("small").origins or "index" not in text:
            monkeypatch.delenv("UV_INDEX")
        lock.write_all()
    check.check()
    assert set(versions()) >= {origin.name for origin in inputs.read_set("small").origins}


def test_the_example_of_the_base_is_read(locks: Path) -> None:
    (example,) = examples("base.in")
    (locks / "base.in").write_text(example)
    assert inputs.read_base().packages == ("python3.11",)
    assert inputs.read_base().without == ("usrmerge",)


def test_the_example_of_the_policy_is_read(locks: Path) -> None:
    (example,) = examples("policy.toml")
    policy.path().write_text(example)
    assert policy.read().cooldown_days == 7


def test_the_example_of_models_is_locked(locks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (example,) = examples("models.in")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    ours = paths.ROOT / "models/ours"
    ours.mkdir(parents=True)
    for path, data in steps.DATA.items():
        (ours / path).parent.mkdir(parents=True, exist_ok=True)
        (ours / path).write_bytes(data)
    with hub_server.serving() as hub, double.serving() as registry:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.push(steps.REPO, {**steps.DATA, **steps.CODE})
        text = example.replace("registry.example.com/models/ours@<digest>", register(registry, steps.DATA))
        models_in.input_path().write_text(text)
        models.write(models.resolve_all())
    assert models.check() == "models.lock fits models.in: base, next, ours, tiny"
