"""Programs without containers: real processes, that behave and that do not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from common import paths
from common.errors import ExitCode, MissingEnvironmentError, SmokeError
from smoke.boxes.box import Box, Place
from smoke.boxes.local import Process, Workshop
from tests.waiting import LIMIT_S, eventually

pytestmark = pytest.mark.slow

Open = Callable[..., Process]

# A server that wants a key, and is ready after a while.
SERVER = """
    import http.server, os, sys, time
    time.sleep(0.3)
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            good = self.headers.get("Authorization") == "Bearer " + os.environ["KEY"]
            self.send_response(200 if good else 401)
            self.end_headers()
        def log_message(self, *_):
            pass
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    open("port", "w").write(str(server.server_port))
    server.serve_forever()
"""
# Starts a daemon as daemons are started, in a session of its own and with its parent gone; it ignores SIGTERM.
DAEMON = """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.environ.clear()
            os.closerange(0, 3)
            open("daemon.part", "w").write(str(os.getpid()))
            os.rename("daemon.part", "daemon")
            time.sleep(60)
        os._exit(0)
    os.wait()
    while not os.path.exists("daemon"):
        time.sleep(0.01)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    print("ready", flush=True)
    time.sleep(float(sys.argv[1]))
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the programs that both environments need; first on PATH."""
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("llamafactory-cli", "vllm"):
        (folder / name).write_text("#!/bin/sh\nexit 0\n")
        (folder / name).chmod(0o755)
    (folder / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.fixture
def workshop(programs: Path, tmp_path: Path) -> Iterator[Workshop]:
    with Workshop(tmp_path / "smoke") as made:
        yield made


@pytest.fixture
def program(workshop: Workshop) -> Open:
    """Makes a box of a Python script."""

    def make(script: str, *arguments: str, name: str = "program", task: str = "train", **environment: str) -> Process:
        return workshop.open(name, task, ["python", "-c", textwrap.dedent(script), *arguments], environment, 0)

    return make


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def appears(workshop: Workshop, name: str) -> str:
    def text() -> str:
        with contextlib.suppress(SmokeError):
            return workshop.fetch(name).decode()
        return ""

    eventually(text, name)
    return text()


def test_it_is_what_the_rungs_ask_for(workshop: Workshop, program: Open) -> None:
    place: Place = workshop
    box: Box = program("")
    assert Path(place.payload, "tiny.py").is_file()
    assert Path(place.run).is_dir()
    assert not list(Path(place.run).iterdir())
    with box:
        assert box.finish(LIMIT_S).code == 0


def test_the_end_its_code_time_and_memory(program: Open) -> None:
    with program("import sys, time; held = b'x' * 150_000_000; time.sleep(1.2); sys.exit(3)") as box:
        ended = box.finish(LIMIT_S, code=3)
    assert ended.code == 3
    assert ended.seconds > 1.2
    assert 150_000_000 < ended.memory < 400_000_000


def test_memory_is_that_of_the_whole_family(program: Open) -> None:
    script = """
        import os, time
        for _ in range(2):
            if os.fork() == 0:
                held = b'x' * 60_000_000
                time.sleep(1.2)
                os._exit(0)
        os.wait(); os.wait()
    """
    with program(script) as box:
        assert 120_000_000 < box.finish(LIMIT_S).memory < 300_000_000


def test_another_code_than_expected_is_told_with_what_it_complained_about(program: Open, tmp_path: Path) -> None:
    with program("import sys; print('fine'); raise ValueError('no such template')") as box:
        with pytest.raises(SmokeError, match=r"program ended with code 1 \(ValueError: no such template; log: .*program.log\)"):
            box.finish(LIMIT_S)
        with pytest.raises(SmokeError, match="ended with code 1, not with 2"):
            box.finish(LIMIT_S, code=2)
        assert box.finish(LIMIT_S, code=None).code == 1
    assert "no such template" in (tmp_path / "smoke/logs/program.log").read_text()


def test_one_that_hangs_is_told_and_ended(program: Open) -> None:
    with program("import time; time.sleep(60)") as box:
        (pid,) = box.processes()
        with pytest.raises(SmokeError, match="program did not end within 0 s"):
            box.finish(0.3)
    assert not alive(pid)


def test_a_program_that_is_not_there(workshop: Workshop) -> None:
    box = workshop.open("train", "train", ["no-such-program"], {}, 0)
    with pytest.raises(SmokeError, match=r"train does not start \(no-such-program: No such file"):
        box.__enter__()


def test_both_streams_apart_and_together_in_order(program: Open, workshop: Workshop, tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        said = 0
        def say(stream, text):
            global said
            stream.write(text)
            stream.flush()
            said += len(text)
            # What comes next is of another stream: it must not come before this was read.
            while not Path(f"read-{said}").exists():
                time.sleep(0.005)
        for number in range(5):
            say(sys.stdout, f"out {number}\\n")
            say(sys.stderr, f"err {number}\\n")
        say(sys.stderr, "half ")
        say(sys.stdout, "between\\n")
        sys.stderr.write("a line")
    """
    with program(script) as box:
        read = 0
        for text in [*(f"{stream} {number}\n" for number in range(5) for stream in ("out", "err")), "half ", "between\n"]:
            read += len(text)
            eventually(lambda read=read: len(box.output()) == read, text)  # type: ignore[misc]
            Path(workshop.run, f"read-{read}").touch()
        box.finish(LIMIT_S)
        assert box.stdout() == "".join(f"out {number}\n" for number in range(5)) + "between\n"
        both = "".join(f"out {number}\nerr {number}\n" for number in range(5)) + "between\nhalf a line"
        assert box.output() == both
    assert (tmp_path / "smoke/logs/program.log").read_text() == both


def test_all_of_a_long_output_is_there_at_the_end(program: Open) -> None:
    with program("import sys; sys.stdout.write('x' * 5_000_000 + 'end')") as box:
        box.finish(LIMIT_S)
        assert len(box.stdout()) == 5_000_003
        assert box.stdout().endswith("end")


def test_output_so_far_shows_an_unfinished_line(program: Open) -> None:
    with program("import sys, time; sys.stdout.write('50 %'); sys.stdout.flush(); time.sleep(60)") as box:
        eventually(lambda: box.output() == "50 %")


def test_sigterm_and_how_it_is_taken(program: Open, workshop: Workshop) -> None:
    with program("import time; open('ready', 'w').write('1'); time.sleep(60)") as box:
        appears(workshop, "ready")
        ended = box.terminate(50)
        # As a container's engine tells it.
        assert ended.code == 128 + signal.SIGTERM
        assert ended.seconds < 50
        assert not box.processes()


def test_who_ignores_sigterm_is_killed_after_the_grace(program: Open, workshop: Workshop) -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); open('ready', 'w').write('1'); time.sleep(60)"
    with program(script) as box:
        appears(workshop, "ready")
        ended = box.terminate(1)
        assert ended.code == 137
        assert ended.seconds >= 1
        assert not box.processes()


def test_a_signal_reaches_the_program_alone(program: Open, workshop: Workshop) -> None:
    with program(DAEMON, "60") as box:
        daemon = int(appears(workshop, "daemon"))
        box.signal(signal.SIGKILL)
        assert box.finish(LIMIT_S, code=137).code == 137
        # It is orphaned, in a session of its own, without an environment that would tell: and is seen all the same.
        assert box.processes() == [daemon]
        # The program is gone: its number may be another's now, and gets no signal.
        box.signal(signal.SIGKILL)
    assert not alive(daemon)


def test_what_the_program_left_is_seen_and_ended(program: Open, workshop: Workshop) -> None:
    with program(DAEMON, "0") as box:
        box.finish(LIMIT_S)
        (daemon,) = box.processes()
        assert daemon == int(workshop.fetch("daemon"))
    assert not alive(daemon)
    assert box.processes() == []


def test_two_programs_do_not_mix_up_their_families(program: Open) -> None:
    fork = "import os, time; os.fork(); time.sleep(60)"
    with program(fork, name="one") as one, program(fork, name="two") as two:
        eventually(lambda: (len(one.processes()), len(two.processes())) == (2, 2), "two processes of each")
        assert not set(one.processes()) & set(two.processes())


def test_a_server_that_wants_a_key(program: Open, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy of the host's is not asked for what is on its own loopback.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with program(SERVER, KEY="s3cr3t") as box:
        url = f"http://127.0.0.1:{appears(workshop, 'port')}/v1/models"
        with pytest.raises(SmokeError, match="program was not ready within 1 s"):
            box.await_http(url, 1)
        with pytest.raises(SmokeError, match="not ready"):
            box.await_http(url, 1, key="wrong")
        assert box.await_http(url, LIMIT_S, key="s3cr3t") < LIMIT_S
        shown = [psutil.Process(pid).cmdline() for pid in [*box.processes(), os.getpid()]]
        assert "s3cr3t" not in str(shown)


def test_a_server_that_ends_before_it_is_ready(program: Open) -> None:
    with (
        program("raise RuntimeError('no room for the cache')") as box,
        pytest.raises(SmokeError, match=r"ended with code 1 before it was ready .*RuntimeError: no room for the cache"),
    ):
        box.await_http("http://127.0.0.1:9/health", LIMIT_S)


def test_programs_beside_it_work_in_the_same_place(program: Open, workshop: Workshop) -> None:
    with program("import time; open('here', 'w').write('1'); time.sleep(60)", SHARED="yes") as box:
        appears(workshop, "here")
        ask = "import json, os; print(json.dumps([os.path.exists('here'), os.environ['SHARED'], os.environ['OWN']]))"
        assert box.ask(["python", "-c", ask], LIMIT_S, environment={"OWN": "1"}) == [True, "yes", "1"]
        said = box.run(["python", "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(4)"], LIMIT_S)
        assert (said.code, said.stdout, said.stderr) == (4, b"out\n", b"err\n")
        # What was printed beside the program is not the program's.
        assert box.output() == ""


def test_programs_beside_it_that_fail(program: Open, workshop: Workshop) -> None:
    Path(workshop.run, "ask.py").write_text("import sys\nexec(sys.argv[1])\n")
    with program("import time; time.sleep(60)") as box:
        with pytest.raises(SmokeError, match=r"ask.py beside program: code 1 \(KeyError: 'choices'\)"):
            box.ask(["python", "ask.py", "{}['choices']"], LIMIT_S)
        with pytest.raises(SmokeError, match=r"ask.py beside program: it printed no JSON \(hello\)"):
            box.ask(["python", "ask.py", "print('hello')"], LIMIT_S)
        with pytest.raises(SmokeError, match=r"ask.py beside program: no end within 1 s"):
            box.ask(["python", "ask.py", "import time; time.sleep(60)"], 1)
        with pytest.raises(SmokeError, match="does not start"):
            box.run(["no-such-program"], 1)


def test_one_beside_it_that_hangs_leaves_nothing(program: Open, workshop: Workshop) -> None:
    with program("import time; time.sleep(60)") as box:
        said = box.run(["python", "-c", textwrap.dedent(DAEMON), "60"], 6)
        assert said.code == 124
        assert said.stdout == b"ready\n"
    assert not alive(int(workshop.fetch("daemon")))


def test_an_exception_inside_ends_it_too(program: Open) -> None:
    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt), program("import os, time; os.fork(); time.sleep(60)") as box:
        eventually(lambda: len(box.processes()) == 2, "two processes")
        pids += box.processes()
        raise KeyboardInterrupt
    assert len(pids) == 2
    assert not [pid for pid in pids if alive(pid)]


def test_ending_the_run_ends_who_waits_in_another_thread(workshop: Workshop, program: Open) -> None:
    told: list[str] = []
    started = threading.Event()

    def work() -> None:
        with program("import time; time.sleep(600)", name="train") as box:
            started.set()
            try:
                box.finish(600)
            except SmokeError as problem:
                told.append(problem.what)

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(LIMIT_S)
    workshop.stop()
    thread.join(LIMIT_S)
    assert told == ["train ended with code 137"]
    with pytest.raises(SmokeError, match="the run was ended"):
        program("")


def test_one_opened_before_the_end_of_the_run_does_not_start_after_it(workshop: Workshop, program: Open) -> None:
    box = program("import time; time.sleep(60)")
    workshop.stop()
    with pytest.raises(SmokeError, match="the run was ended"):
        box.__enter__()
    assert not box.processes()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_survives_the_run_however_it_dies(programs: Path, tmp_path: Path, how: signal.Signals) -> None:
    script = f"""
        import sys, time
        from pathlib import Path
        from common.signals import terminable
        from smoke.boxes.local import Workshop
        with terminable(), Workshop(Path({str(tmp_path)!r})) as workshop:
            with workshop.open("train", "train", ["python", "-c", {textwrap.dedent(DAEMON)!r}, "60"], {{}}, 0) as box:
                while "ready" not in box.output():
                    time.sleep(0.01)
                print(*box.processes(), flush=True)
                time.sleep(60)
    """
    argv = [sys.executable, "-c", textwrap.dedent(script)]
    # What a killed run wrote stays, and goes with this test.
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(argv, cwd=paths.ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        pids = [int(pid) for pid in run.stdout.readline().split()]
        assert len(pids) == 2
        run.send_signal(how)
        run.wait(LIMIT_S)
    eventually(lambda: not any(map(alive, pids)), "the end of all processes")


def test_a_supervisor_that_is_killed_leaves_nothing_of_the_program(program: Open) -> None:
    with program("import os, time; os.fork(); print('ready', flush=True); time.sleep(60)") as box:
        eventually(lambda: box.output().count("ready") == 2)
        pids = box.processes()
        assert box._program is not None
        assert box._program._supervisor is not None
        box._program._supervisor.kill()
        assert box.finish(LIMIT_S, code=137).code == 137
    assert len(pids) == 2
    eventually(lambda: not any(map(alive, pids)), "the end of all processes")


def test_a_log_that_cannot_be_written_holds_up_nobody(program: Open) -> None:
    with program("import time; time.sleep(0.3); print('x' * 1_000_000)") as box:
        box._file.close()
        assert box.finish(LIMIT_S).code == 0
        assert len(box.stdout()) == 1_000_001


def test_files_come_back_and_go_with_the_run(programs: Path, tmp_path: Path) -> None:
    with Workshop(tmp_path / "smoke") as workshop:
        with workshop.open("train", "train", ["python", "-c", "open('made', 'w').write('this')"], {}, 0) as box:
            box.finish(LIMIT_S)
        assert workshop.fetch("made") == b"this"
        with pytest.raises(SmokeError, match="the program wrote no adapter"):
            workshop.fetch("adapter")
        root = Path(workshop.run).parent
        # What a model answers is nobody else's business.
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert not root.exists()


def test_the_environment_is_the_images_and_the_runs_own(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "s3cr3t")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/lib/cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with Workshop(tmp_path / "smoke") as workshop:
        variables = workshop.environment("api")
        tmp = str(Path(workshop.run).parent / "tmp")
        script = "import json, os, sys; print(json.dumps([dict(os.environ), os.getcwd(), sys.executable]))"
        with workshop.open("look", "api", ["python", "-c", script], {"OMP_NUM_THREADS": "1"}, 0) as box:
            box.finish(LIMIT_S)
            seen, where, python = json.loads(box.stdout())
    assert seen == {**variables, "OMP_NUM_THREADS": "1"} | ({"LC_CTYPE": seen["LC_CTYPE"]} if "LC_CTYPE" in seen else {})
    assert Path(where).name == "run"
    assert Path(python).parent == programs
    assert "s3cr3t" not in str(variables)
    assert not {"PYTHONPATH", "VIRTUAL_ENV", "NVIDIA_VISIBLE_DEVICES"} & variables.keys()
    # The images' own settings, their /tmp a folder of the run.
    assert variables["DISABLE_VERSION_CHECK"] == variables["VLLM_NO_USAGE_STATS"] == variables["DO_NOT_TRACK"] == "1"
    assert variables["HOME"] == variables["TMPDIR"] == tmp
    assert variables["TRITON_CACHE_DIR"] == f"{tmp}/cache/triton"
    assert variables["VLLM_CACHE_ROOT"] == f"{tmp}/cache/vllm"
    # The host's own, as far as the programs need it.
    assert (variables["LD_LIBRARY_PATH"], variables["CUDA_VISIBLE_DEVICES"]) == ("/usr/lib/cuda", "1")
    assert variables["PATH"].split(os.pathsep)[0] == str(programs)


@pytest.mark.parametrize(("gpu", "visible"), [("", ""), ("GPU-4c1b", "GPU-4c1b")])
def test_one_gpu_or_none_is_seen(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: str, visible: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    with Workshop(tmp_path, gpu=gpu) as workshop:
        assert workshop.environment("train")["CUDA_VISIBLE_DEVICES"] == visible


def test_each_task_takes_the_python_of_its_own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {name: tmp_path / name for name in ("toolkit", "vllm", "llamafactory-cli")}
    for name, folder in folders.items():
        folder.mkdir()
        for program in {name, "python"} - {"toolkit"}:
            (folder / program).write_text("#!/bin/sh\n")
            (folder / program).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders.values())))
    with Workshop(tmp_path / "smoke") as workshop:
        first = {task: workshop.environment(task)["PATH"].split(os.pathsep)[0] for task in ("train", "api")}
    assert first == {"train": str(folders["llamafactory-cli"]), "api": str(folders["vllm"])}


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("llamafactory-cli", "llamafactory-cli is not on PATH (it comes with llamafactory of lockfiles/train.lock)"),
        ("vllm", "vllm is not on PATH (it comes with vllm of lockfiles/api.lock)"),
        ("python", "there is no python beside "),
    ],
)
def test_a_missing_program_is_told_before_anything_is_touched(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str, told: str
) -> None:
    (programs / gone).unlink()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(MissingEnvironmentError) as refused:
        Workshop(tmp_path / "smoke")
    assert told in refused.value.line()
    assert "python -m smoke.machine.environment api DIRECTORY" in refused.value.line()
    assert refused.value.exit_code == ExitCode.ENVIRONMENT
    assert not (tmp_path / "smoke").exists()
