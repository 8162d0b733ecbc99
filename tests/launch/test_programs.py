"""kubectl, sbatch and `ray up`: what is asked of them, and what is made of their answers."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from raycl.config.clusters import Profile, profile_of
from raycl.config.execution import Execution
from raycl.engine.nodes import NodeReport
from raycl.errors import ClusterError, ConfigError
from raycl.launch.clusters import carried_out, down, make_token, status_of, tunnel, up
from raycl.launch.jobs import AlreadySent, Job, picked
from raycl.launch.preflight import _of_nodes, _shares, findings
from raycl.launch.profiles import read_profile
from raycl.launch.runner import Processes, ProgramError
from raycl.launch.sending import send, sender_of
from tests.launch.made_plans import command, plan
from tests.launch.made_programs import FakeKubernetes, FakeRunner, script

KUBERAY = {"kind": "kuberay", "image": "i:1", "execution": {"store": "s3://b/x"}}
DIGITS = ("run", "slda", "--stream", "digits")


def submitted(profile: Profile, run: Any) -> tuple[str, bool]:
    sent = send(command(*DIGITS), profile, check=False, run=run)
    assert sent.job is not None
    return sent.job.id, sent.new


# KubeRay


def test_a_rayjob_that_lives_is_given_back_and_one_that_ended_is_tried_anew() -> None:
    kubernetes, profile = FakeKubernetes(), profile_of(KUBERAY)
    id, new = submitted(profile, kubernetes.run)
    assert new and id.endswith("-1") and kubernetes.owners == {id: f"uid-{id}"}
    assert submitted(profile, kubernetes.run) == (id, False)
    kubernetes.end(id, "FAILED")
    second, new = submitted(profile, kubernetes.run)
    assert new and second == id.removesuffix("1") + "2"


def test_two_that_send_at_once_are_told_of_one_job() -> None:
    kubernetes, profile = FakeKubernetes(), profile_of(KUBERAY)
    other = FakeKubernetes()
    raced = FakeRunner(lambda argv, folder: "")

    def answer(argv: list[str], folder: Path | None) -> str:
        # The first look sees nothing; the other submitter is faster by a moment.
        if "get" in argv and not raced.asked[:-1]:
            submitted(profile, kubernetes.run)
            return other.run(argv, folder)
        return kubernetes.run(argv, folder)

    raced._answer = answer
    id, new = submitted(profile, raced)
    assert (id[-2:], new, len(kubernetes.jobs)) == ("-1", False, 1)


@pytest.mark.parametrize(
    ("status", "state", "code"),
    [
        ({}, "waiting", None),
        ({"jobDeploymentStatus": "Initializing"}, "waiting", None),
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, "running", None),
        ({"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED"}, "running", None),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "done", 0),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}, "failed", 1),
        ({"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}, "failed", 1),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "stopped", None),
    ],
)
def test_the_states_of_a_rayjob(status: dict[str, str], state: str, code: int | None) -> None:
    kubernetes, profile = FakeKubernetes(), profile_of(KUBERAY)
    id, _ = submitted(profile, kubernetes.run)
    kubernetes.jobs[id]["status"] = status
    job = sender_of(profile, kubernetes.run).job(id)
    assert (job.state, job.code) == (state, code)
    assert (job.exit_code == 0) == (state == "done")


def test_logs_and_stop_name_the_job() -> None:
    kubernetes, profile = FakeKubernetes(), profile_of({**KUBERAY, "context": "there"})
    id, _ = submitted(profile, kubernetes.run)
    sender = sender_of(profile, kubernetes.run)
    assert "".join(sender.log(id, follow=True)) == "one\ntwo\n"
    assert kubernetes.run.asked[-1][1:3] == ["--context", "there"]
    assert kubernetes.run.asked[-1][-3:] == ["logs", "--follow", f"job/{id}"]
    sender.stop(id)
    assert not kubernetes.jobs


def test_answers_that_are_no_answers_are_errors() -> None:
    with pytest.raises(ClusterError, match="something else"):
        sender_of(profile_of(KUBERAY), FakeRunner(lambda argv, folder: "<html>")).jobs()


def test_preflight_asks_kubernetes_for_what_the_profile_names() -> None:
    tree = {
        **KUBERAY,
        "mounts": [{"path": "/d", "claim": "c"}],
        "secrets": {"T": {"kubernetes": "s/k"}},
    }

    def answer(argv: list[str], folder: Path | None) -> str:
        if "persistentvolumeclaim" in argv:
            raise ProgramError("kubectl failed: not found")
        return "yes"

    found = findings(profile_of(tree), "s3://b/x", run=FakeRunner(answer))
    assert [finding.ok for finding in found] == [True, False, True]


# Slurm


class FakeSlurm:
    """A queue: sbatch starts the script here, squeue knows what lives."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.run = FakeRunner(self._answer)
        script(
            self.bin, "scontrol", 'case "$1" in show) echo here;; *) echo "$@" >> requeued;; esac'
        )
        script(self.bin, "getent", "echo 127.0.0.1 here; echo 10.1.2.3 here")
        # A step is its program, after srun's own options.
        script(self.bin, "srun", 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"')
        # symmetric-run without a Ray: what follows `--`.
        words = 'printf "%s\\n" "$*" > ray-words; [ -z "${NO_RAY:-}" ] || exit 0; '
        script(self.bin, "ray", f'{words}while [ "$1" != -- ]; do shift; done; shift; "$@"')

    def _answer(self, argv: list[str], folder: Path | None) -> str:
        match argv[0]:
            case "sbatch":
                number = str(100 + len(self.processes))
                env = {**os.environ, "PATH": f"{self.bin}:/usr/bin:/bin", "SLURM_JOB_ID": number,
                       "SLURM_JOB_NODELIST": "here"}  # fmt: skip
                assert folder is not None
                with (folder / "log.txt").open("ab") as log:
                    self.processes[number] = subprocess.Popen(
                        ["bash", argv[-1]],
                        env=env,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                return f"{number}\n"
            case "squeue":
                live = [n for n, p in self.processes.items() if p.poll() is None]
                return "".join(f"{n}|RUNNING|here\n" for n in live)
            case "scancel":
                assert argv[1:3] == ["--signal=USR1", "--batch"]
                self.processes[argv[-1]].send_signal(signal.SIGUSR1)
        return ""

    def wait(self) -> list[int]:
        return [process.wait(20) for process in self.processes.values()]


# Not in bash, which cannot catch a signal that was ignored when it began; Python can.
PYTHON = """
import os, signal, sys, time

def save(*_):
    print("saved", flush=True)
    sys.exit(75)

signal.signal(signal.SIGTERM, save)
print(os.environ["RAY_ADDRESS"], os.environ["RAYCL_STORE"], os.environ["A"], sys.argv, flush=True)
if "QUICK" in os.environ:
    sys.exit(int(os.environ["QUICK"]))
time.sleep(20)
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[FakeSlurm]:
    made = FakeSlurm(tmp_path)
    yield made
    for process in made.processes.values():
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def slurm_profile(folder: Path, **env: str) -> Profile:
    (folder / "program.py").write_text(PYTHON)
    words = shlex.join([sys.executable, "-S", str(folder / "program.py")])
    python = script(folder / "venv", "python", f'exec {words} "$@"')
    return profile_of(
        {
            "kind": "slurm",
            "folder": str(folder / "jobs"),
            "mounts": [str(folder)],
            "python": str(python),
            "nodes": 2,
            "env": {"A": "x y", **env},
            "execution": {"store": str(folder / "store")},
        }
    )


def test_a_batch_script_runs_the_command_and_leaves_its_exit_code(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    for code, state in (("0", "done"), ("3", "failed")):
        profile = slurm_profile(tmp_path, QUICK=code)
        id, new = submitted(profile, slurm.run)
        assert new and slurm.wait()[-1] == int(code)
        job = sender_of(profile, slurm.run).job(id)
        assert (job.state, job.code, job.exit_code) == (state, int(code), int(code))
        log = "".join(sender_of(profile, slurm.run).log(id, follow=True))
        assert log.startswith("10.1.2.3:220") and f"{tmp_path}/store x y" in log, log
        words = (tmp_path / "jobs" / id / "ray-words").read_text()
        assert words.startswith("symmetric-run --address 10.1.2.3:22")
        assert "--min-nodes 2" in words and words.rstrip().endswith("-- bash run.sh")
        assert not list((tmp_path / "jobs" / id).glob("token-*"))


def test_a_ray_that_does_not_start_is_no_success(slurm: FakeSlurm, tmp_path: Path) -> None:
    profile = slurm_profile(tmp_path, NO_RAY="1")
    id, _ = submitted(profile, slurm.run)
    assert slurm.wait() == [1]
    assert sender_of(profile, slurm.run).job(id).state == "failed"
    assert "Ray did not start" in "".join(sender_of(profile, slurm.run).log(id, follow=False))


@pytest.mark.parametrize("asked", ["time limit", "preemption", "stop"])
def test_a_job_told_to_save_is_queued_again_unless_it_was_stopped(
    slurm: FakeSlurm, tmp_path: Path, asked: str
) -> None:
    profile = slurm_profile(tmp_path)
    id, _ = submitted(profile, slurm.run)
    folder = tmp_path / "jobs" / id
    deadline = time.monotonic() + 20
    while not (folder / "log.txt").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert submitted(profile, slurm.run) == (id, False)
    token = next(folder.glob("token-*"))
    assert token.stat().st_mode & 0o777 == 0o600 and len(token.read_text()) == 64
    if asked == "stop":
        sender_of(profile, slurm.run).stop(id)
    elif asked == "time limit":
        slurm.processes["100"].send_signal(signal.SIGUSR1)
    else:  # every process is told, each once
        os.killpg(slurm.processes["100"].pid, signal.SIGTERM)
    assert slurm.wait() == [75]
    assert (folder / "log.txt").read_text().count("saved") == 1
    assert (folder / "requeued").exists() == (asked != "stop")
    assert (folder / "exit").exists() == (asked == "stop")
    if asked == "stop":
        assert sender_of(profile, slurm.run).job(id).exit_code == 75


def test_only_one_of_two_makes_the_folder(slurm: FakeSlurm, tmp_path: Path) -> None:
    profile = slurm_profile(tmp_path, QUICK="0")
    rendered = plan(*DIGITS, profile=profile)
    sender_of(profile, slurm.run).send(rendered)
    with pytest.raises(AlreadySent):
        sender_of(profile, slurm.run).send(rendered)
    slurm.wait()


def test_a_job_that_sbatch_refuses_leaves_nothing(tmp_path: Path) -> None:
    def answer(argv: list[str], folder: Path | None) -> str:
        if argv[0] == "sbatch":
            raise ProgramError("sbatch failed: invalid partition specified: gpu")
        return ""

    profile = slurm_profile(tmp_path)
    with pytest.raises(ClusterError, match="invalid partition"):
        submitted(profile, FakeRunner(answer))
    assert not list((tmp_path / "jobs").iterdir())
    assert sender_of(profile, FakeRunner(answer)).jobs() == []


def test_a_job_that_left_without_a_code_was_stopped(slurm: FakeSlurm, tmp_path: Path) -> None:
    profile = slurm_profile(tmp_path)
    id, _ = submitted(profile, slurm.run)
    os.killpg(slurm.processes["100"].pid, signal.SIGKILL)
    slurm.wait()
    job = sender_of(profile, slurm.run).job(id)
    assert job.state == "stopped" and "without an exit code" in job.detail and job.exit_code == 75


# What stays


def test_clusters_come_and_go_by_their_providers_programs(tmp_path: Path) -> None:
    called: list[list[str]] = []

    def call(argv: Sequence[str], folder: Path) -> int:
        called.append(list(argv))
        for name in ("cluster.yaml", "raycluster.yaml"):
            if name in argv:
                assert yaml.safe_load((folder / name).read_text())
        return 0

    token = tmp_path / "ray" / "token"
    aws = read_profile("aws").model_copy(update={"token_file": str(token)})
    assert carried_out(up(aws), call) == 0
    assert token.stat().st_mode & 0o777 == 0o600 and len(token.read_text()) == 64
    for asked in (tunnel, status_of, down):
        assert carried_out(asked(aws), call) == 0
    assert [argv[:2] for argv in called] == [
        ["ray", "up"], ["ray", "dashboard"], ["ray", "exec"], ["ray", "down"]
    ]  # fmt: skip
    assert token.read_text() not in up(aws).text()
    shared = read_profile("kuberay-shared")
    assert "kind: RayCluster" in up(shared).text()
    assert tunnel(shared).programs[0][-2:] == ("service/raycl-head-svc", "8265:8265")
    with pytest.raises(ConfigError, match="slurm"):
        up(read_profile("slurm"))
    assert carried_out(down(shared), lambda argv, folder: 3) == 3


def test_a_token_that_others_can_read_is_refused_and_one_is_kept(tmp_path: Path) -> None:
    token = tmp_path / "token"
    make_token(token)
    first = token.read_text()
    make_token(token)
    assert token.read_text() == first
    token.chmod(0o644)
    with pytest.raises(ConfigError, match="others can read"):
        make_token(token)


# Small parts


def test_jobs_are_named_by_their_beginning() -> None:
    jobs = [
        Job("raycl-aa11-1", "failed"),
        Job("raycl-aa11-2", "running"),
        Job("raycl-ab-1", "done"),
    ]
    assert picked("raycl-aa11-1", jobs).id == "raycl-aa11-1"
    assert picked("aa", jobs).id == "raycl-aa11-2"
    for asked, words in (("a", "several jobs"), ("x", "no job")):
        with pytest.raises(ConfigError, match=words):
            picked(asked, jobs)


def test_programs_that_are_absent_or_fail_are_errors_with_their_words() -> None:
    run = Processes()
    with pytest.raises(ClusterError, match="no-such-program is not on this machine"):
        run(["no-such-program"])
    with pytest.raises(ClusterError, match="bash failed: second"):
        run(["bash", "-c", "echo first >&2; echo second >&2; exit 3"])
    assert list(run.lines(["bash", "-c", "echo a; echo b"])) == ["a\n", "b\n"]
    with pytest.raises(ClusterError, match="bash failed: why"):
        list(run.lines(["bash", "-c", "echo a; echo why >&2; exit 1"]))


@pytest.mark.parametrize(
    ("workers", "cpus", "grows", "ok", "told"),
    [
        (3, 1, False, True, False),
        (4, 1, False, False, True),
        (1, 5, False, False, True),
        (4, 1, True, True, True),
    ],
)
def test_shares_that_no_node_can_hold_are_found(
    workers: int, cpus: float, grows: bool, ok: bool, told: bool
) -> None:
    execution = Execution.model_validate({"workers": workers, "worker": {"cpus": cpus}})
    reports = [NodeReport(f"10.0.0.{i}", cpus=2, grows=grows) for i in range(2)]
    (finding,) = _shares(reports, execution)
    assert (finding.ok, bool(finding.do)) == (ok, told)


def test_other_versions_and_missing_mounts_are_found() -> None:
    def report(node: str, **changes: Any) -> NodeReport:
        return NodeReport(node, python="3.11.7", ray="2.60.0", **changes)

    alike = [report("a"), report("b")]
    assert all(finding.ok for finding in _of_nodes(alike, "2.60.0"))
    assert [f.ok for f in _of_nodes(alike, "2.59.0")] == [True, False]
    bad = _of_nodes([report("a"), report("b", problems=["has no /data"])], "2.60.0")
    assert not bad[0].ok and "b has no /data" in bad[0].found
    json.dumps([finding.found for finding in bad])
