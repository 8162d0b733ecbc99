"""The batch script under a real Slurm on loopback: it runs, is preempted, and continues.

Needs Debian's `slurm-wlm` and `munge` (installed, or unpacked somewhere in PATH with
SLURM_PLUGIN_DIR naming the plug-ins) and root. `ray symmetric-run` is played by a script that
starts no Ray, because the real one ends every Ray of this user on the machine.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raycl.cli.main import code_of
from tests.compute.ports import free_port
from tests.launch.made_programs import script
from tests.streams.made_sets import arrays, save_npz

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 300

pytestmark = pytest.mark.ordeal


def program(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None or os.geteuid() != 0:
        pytest.skip(f"needs root and {names[0]}")
    return found


def configuration(folder: Path, plugins: str | None) -> str:
    lines = f"""
        ClusterName=t
        SlurmctldHost=localhost(127.0.0.1)
        AuthType=auth/munge
        AuthInfo=socket={folder}/munge/socket
        CredType=cred/munge
        ProctrackType=proctrack/linuxproc
        TaskPlugin=task/none
        SelectType=select/cons_tres
        SlurmUser=root
        StateSaveLocation={folder}/state
        SlurmdSpoolDir={folder}/spool
        SlurmctldPidFile={folder}/slurmctld.pid
        SlurmdPidFile={folder}/slurmd.pid
        SlurmctldPort={free_port()}
        MailProg=/bin/true
        JobRequeue=1
        PreemptMode=REQUEUE
        PreemptType=preempt/partition_prio
        ReturnToService=2
        NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={free_port()} CPUs=2 \
RealMemory=2000 State=UNKNOWN
        PartitionName=low Nodes=n1 Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
        PartitionName=high Nodes=n1 PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
    """
    own = [f"PluginDir={plugins}"] if plugins else []
    return "\n".join([*(line.strip() for line in lines.splitlines()), *own])


@dataclass
class Slurm:
    """A folder on a mount, and commands on the login node."""

    folder: Path

    def __call__(self, *args: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = code_of([*args[:2], "--cluster", str(self.folder / "mine.json"), *args[2:]])
        return code, out.getvalue(), err.getvalue()

    def submit(self, *command: str) -> str:
        data = ("--stream", f"embeddings:{self.folder}/set.npz", "--pool", "local")
        code, out, err = self("submit", "--no-check", "--", *command, *data)
        assert code == 0, err
        return out.strip()

    def job(self, id: str) -> Any:
        return json.loads(self("jobs", "status", id, "--json")[1])

    def log(self, id: str) -> str:
        file = self.folder / "jobs" / id / "log.txt"
        return file.read_text() if file.exists() else ""

    def until(self, id: str, words: str, times: int = 1) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.log(id).count(words) < times:
            assert time.monotonic() < deadline, self.log(id)
            time.sleep(0.2)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    controller = program("slurmctld", "slurmctld-wlm")
    daemon = program("slurmd", "slurmd-wlm")
    step, munged = program("slurmstepd", "slurmstepd-wlm"), program("munged")
    # Not under pytest's own: munge wants a path that only root can write, and a short one.
    folder = Path(tempfile.mkdtemp(prefix="raycl-slurm-"))
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o700)
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o400)
    file = folder / "slurm.conf"
    file.write_text(configuration(folder, os.environ.get("SLURM_PLUGIN_DIR")))
    own = folder / "munge"
    files = [f"--{n}-file={own}/{n}" for n in ("key", "pid", "log", "seed")]
    prepare(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(file))
        try:
            subprocess.run([munged, "--force", f"--socket={own}/socket", *files], check=True)
            subprocess.run([controller, "-c", "-L", f"{folder}/slurmctld.log"], check=True)
            subprocess.run(
                [daemon, "-N", "n1", "-d", step, "-L", f"{folder}/slurmd.log"], check=True
            )
            until_idle()
            yield Slurm(folder)
        finally:
            for pid in (folder / "slurmd.pid", folder / "slurmctld.pid", own / "pid"):
                with contextlib.suppress(OSError, ValueError):
                    os.kill(int(pid.read_text()), signal.SIGTERM)
            time.sleep(2)
            shutil.rmtree(folder, ignore_errors=True)


def prepare(folder: Path) -> None:
    """A profile, vectors, and an environment whose `ray` starts nothing."""
    save_npz(folder / "set.npz", arrays())
    run = f'exec env PYTHONPATH={ROOT} OMP_NUM_THREADS=1 {sys.executable} "$@"'
    python = script(folder / "venv", "python", run)
    script(folder / "venv", "ray", 'while [ "$1" != -- ]; do shift; done; shift; "$@"')
    tree = {
        "kind": "slurm",
        "folder": f"{folder}/jobs",
        "mounts": [str(folder)],
        "python": str(python),
        "partition": "low",
        "node": {"cpus": 2, "memory_gib": 1.5, "object_store_gib": 0.1},
        "execution": {"store": f"{folder}/store"},
    }
    (folder / "mine.json").write_text(json.dumps(tree))


def until_idle() -> None:
    deadline = time.monotonic() + 60
    while "idle" not in subprocess.run(["sinfo"], capture_output=True, text=True).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.5)


LONG = ("run", "finetune", "--set", "stream.tasks=3", "--set", "method.align.epochs=4000")


def test_a_command_runs_and_its_exit_code_comes_back(slurm: Slurm) -> None:
    id = slurm.submit("run", "ncm", "--set", "stream.tasks=2")
    code, out, _ = slurm("jobs", "logs", id, "-f")
    assert code == 0 and "result/ncm-" in out, out
    assert slurm.job(id)["state"] == "done"
    # What only the job can find out.
    fails = slurm.submit("run", "ncm", "--set", "stream.tasks=99")
    assert slurm("jobs", "wait", fails)[0] == 2


def test_a_command_is_stopped_and_continues_when_it_is_sent_again(slurm: Slurm) -> None:
    id = slurm.submit(*LONG, "--seed", "1")
    slurm.until(id, "finetune(")
    assert slurm.submit(*LONG, "--seed", "1") == id
    assert slurm("jobs", "stop", id)[0] == 0
    assert slurm("jobs", "wait", id)[0] == 75
    assert "run the same command again to continue" in slurm.log(id)
    again = slurm.submit(*LONG, "--seed", "1")
    assert again.endswith("-2") and slurm("jobs", "wait", again)[0] == 0


def test_a_preempted_command_is_queued_again_and_continues(slurm: Slurm, tmp_path: Path) -> None:
    id = slurm.submit(*LONG, "--seed", "2")
    slurm.until(id, "finetune(")
    other = script(tmp_path, "other", "sleep 1")
    subprocess.run(
        ["sbatch", "--partition=high", "--exclusive", f"--output={tmp_path}/out", str(other)],
        check=True, capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    slurm.until(id, "DUE TO PREEMPTION")
    # Slurm waits some two minutes before it starts a job again.
    code, out, _ = slurm("jobs", "logs", id, "-f")
    assert code == 0 and "result/finetune" in out, out
    assert out.count(" on set: 3 tasks") == 2 and "run the same command again to continue" in out
