"""Slurm's batch script: Ray on the job's nodes by `ray symmetric-run`, and the command in it.

Guarantees: the job's exit code is the command's, and not zero when Ray did not start
(symmetric-run alone would say zero); a job near its time limit is told to save, and one that
stopped resumably is queued again; ports come from the job's number and the nodes are its own,
because ending one Ray ends every Ray of that user on a node; its token is a file that only
the user can read.
"""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from raycl.config.clusters import SlurmProfile
from raycl.launch.command import Command
from raycl.launch.entrypoint import SCRIPT, exported, script
from raycl.launch.plan import Plan, name_of

BATCH = "job.sbatch"
LOG = "log.txt"
EXIT = "exit"
ASKS = "USR1"
"""The signal that asks the batch shell to have the command save."""
STOP = "stop"
"""A file that says: stopped on request, so not to be queued again."""
_BODY = r"""
umask 077
token="$PWD/token-$SLURM_JOB_ID"
[ -s "$token" ] || head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$token" RAY_USAGE_STATS_ENABLED=0
export RAYCL_STARTED="$PWD/started-$SLURM_JOB_ID"
rm -f "$RAYCL_STARTED" exit

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(getent ahostsv4 "$first" | awk '$1 !~ /^127\./ { print $1; exit }')
# Where no name service knows it, as Slurm itself reaches it.
[ -n "$address" ] || address=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
port=$((20000 + SLURM_JOB_ID % 600 * 20))
export RAYCL_ADDRESS="${address:-$first}:$port"
# Slurm signals every process of a step; only the command is to act on it.
srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --kill-on-bad-exit=0 \
  bash -c 'trap "" TERM; exec "$@"' raycl \
  ray symmetric-run --address "$RAYCL_ADDRESS" --min-nodes "$nodes" \
  --node-manager-port "$((port + 1))" --object-manager-port "$((port + 2))" \
  --runtime-env-agent-port "$((port + 3))" --dashboard-agent-listen-port "$((port + 4))" \
  --dashboard-agent-grpc-port "$((port + 5))" --metrics-export-port "$((port + 6))" \
  --temp-dir "$temporary/raycl-$SLURM_JOB_ID" \
  $shares -- bash run.sh &
step=$!
# At the time limit this shell alone is told: it tells the command, which runs on this node.
# At a preemption Slurm itself tells every process, and a second time would be once too often.
trap '[ -s "$RAYCL_STARTED" ] && kill -TERM "$(cat "$RAYCL_STARTED")" || kill -TERM "$step"' USR1
trap : TERM
code=0
wait "$step" || code=$?
while kill -0 "$step" 2> /dev/null; do code=0; wait "$step" || code=$?; done
rm -f "$token"
if [ ! -s "$RAYCL_STARTED" ]; then
  echo "raycl: Ray did not start on these nodes; its own words are above" >&2
  code=1
fi
"""


def job_plan(command: Command, profile: SlurmProfile, attempt: int) -> Plan:
    """A batch script beside what it runs, in a folder that every node sees."""
    name = name_of(command, profile)
    folder = str(PurePosixPath(profile.folder) / f"{name}-{attempt}")
    return Plan(
        name=name,
        attempt=attempt,
        files={
            BATCH: _batch(command, profile, f"{name}-{attempt}", folder),
            SCRIPT: _script(command, profile, f"{name}-{attempt}", folder),
            **command.files,
        },
        argv=("sbatch", "--parsable", f"{folder}/{BATCH}"),
    )


def _script(command: Command, profile: SlurmProfile, job: str, folder: str) -> str:
    """The common script, which first says that Ray is up and under which number it runs."""
    whole = script(command, profile, job, folder=folder, exports=False)
    first, second, rest = whole.split("\n", 2)
    begins = 'echo $$ > "$RAYCL_STARTED"\nexport RAY_ADDRESS="$RAYCL_ADDRESS"'
    return "\n".join([first, second, begins, rest])


def _batch(command: Command, profile: SlurmProfile, job: str, folder: str) -> str:
    node = profile.node
    memory = round(node.object_store * 2**30)
    shares = f"--num-cpus {node.cpus} --num-gpus {node.gpus} --object-store-memory {memory}"
    lines = [
        "#!/bin/bash",
        *_directives(profile, job, folder),
        "set -uo pipefail",
        f"cd {shlex.quote(folder)} || exit 1",
        *_own_path(profile.python),
        *exported(command, profile),
        *profile.setup,
        f"nodes={profile.nodes}",
        f"temporary={shlex.quote(profile.temporary)}",
        f'shares="{shares}"',
    ]
    end = [f'echo "$code" > {EXIT}', 'exit "$code"', ""]
    if profile.requeue:
        # 75: stopped, and the same command continues.
        end.insert(0, f'if [ "$code" -eq 75 ] && [ ! -e {STOP} ]; then')
        end.insert(1, '  scontrol requeue "$SLURM_JOB_ID" && exit 75\nfi')
    return "\n".join(lines) + _BODY + "\n".join(end)


def _directives(profile: SlurmProfile, job: str, folder: str) -> list[str]:
    node = profile.node
    options = {
        "job-name": job,
        "nodes": profile.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": node.cpus,
        "mem": f"{round(node.memory_gib * 1024)}M",
        "time": round(profile.hours * 60),
        "output": f"{folder}/{LOG}",
        "open-mode": "append",
        "signal": f"B:{ASKS}@{profile.warn_seconds}",
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
    }
    if node.gpus:
        options["gpus-per-node"] = f"{node.gpu}:{node.gpus}" if node.gpu else node.gpus
    flags = ["exclusive", "requeue" if profile.requeue else "no-requeue"]
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return [f"#SBATCH {text}" for text in [*given, *(f"--{flag}" for flag in flags)]]


def _own_path(python: str) -> list[str]:
    """The folder of the interpreter, where `ray` lies beside it."""
    folder = str(PurePosixPath(python).parent)
    return [f'export PATH={shlex.quote(folder)}:"$PATH"'] if "/" in python else []
