"""What a sweep costs beside its trials: 200 trials of five tasks that take 10 ms each.

Every trial is a run of the engine: a state, the predictions and a report for each task, all in
the store, and a journal of it. Beside it, how long the journal of 1,000 such trials takes to
be read again, as after the death of a driver.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np

from raycl import Execution, sweep
from raycl.config.space_files import space_of
from raycl.search.ledger import Ledger, driven_ledger, open_ledger
from raycl.search.sweep import SweepOptions
from raycl.store.store import Store

SECONDS_A_TASK = 0.01
TASKS = 5
METHOD = f'''
    """Does nothing, for a while."""

    import time

    import torch

    from raycl import Method, Spec


    class Options(Spec):
        number: float = 0.0


    class Idle(Method[Options]):
        Options = Options

        def learn(self, task, context):
            time.sleep({SECONDS_A_TASK})

        def seen_scores(self, x):
            return torch.zeros(len(x), len(self.seen))

        def state(self):
            return {{"nothing": torch.zeros(1)}}

        def restore(self, state):
            pass
'''


def made_space(folder: Path, samples: int) -> Any:
    method = folder / "idle.py"
    method.write_text(textwrap.dedent(METHOD))
    random = np.random.default_rng(0)
    classes, width = 10, 16
    y = np.repeat(np.arange(classes), 20)
    arrays = {
        f"{split}_{name}": values
        for split in ("train", "test")
        for name, values in (
            ("x", random.normal(size=(len(y), width)).astype(np.float32)),
            ("y", y),
        )
    }
    np.savez(
        folder / "set.npz",
        text=random.normal(size=(classes, width)).astype(np.float32),
        text_has=np.ones(classes, bool),
        classnames=np.asarray([f"class {c}" for c in range(classes)]),
        **arrays,
    )
    stream = {"kind": "embeddings", "paths": [str(folder / "set.npz")], "tasks": TASKS}
    tree = {
        "base": {"method": {"kind": "python", "target": str(method)}, "stream": stream},
        "axes": {"method.options.number": {"uniform": [0.0, 1.0]}},
        "samples": samples,
        "sampler": {"kind": "random"},
    }
    return space_of(tree, "overhead")


def trial_seconds(ledger: Ledger) -> tuple[float, int]:
    """Wall time from the end of the first trials, which start Ray's processes, to the last."""
    events = ledger.store.journal(f"sweep/{ledger.entry.id}").read()
    ends = [event["at"] for event in events if event["event"] == "finished"]
    warm = min(4, len(ends) - 1)
    return ends[-1] - ends[warm - 1], len(ends) - warm


def replay_seconds(folder: Path, trials: int) -> float:
    """The time to read the journal of so many trials, with what was not folded yet."""
    store = Store.open(str(folder / "journal"))
    space = made_space(folder, trials).model_copy(update={"name": "replayed"})
    with driven_ledger(store, space) as ledger:
        for number in range(trials):
            params = {"method.options.number": number / trials}
            ledger.write("sampled", sample=number, params=params, attrs={}, groups=["g"])
            ledger.write("started", trial=f"{number}-0")
            for done in range(1, TASKS + 1):
                values = {f"metric_{i}": float(i) for i in range(20)}
                ledger.write(
                    "reported", trial=f"{number}-0", done=done, tasks=TASKS,
                    values={"last_pooled": 50.0, **values},
                )  # fmt: skip
            ledger.write("finished", trial=f"{number}-0", state="complete")
    began = time.perf_counter()
    found = open_ledger(Store.open(str(folder / "journal")), "replayed")
    spent = time.perf_counter() - began
    assert len(found.records.trials) == trials
    return spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    trials, replayed = (20, 200) if quick else (200, 1000)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        began = time.monotonic()
        execution = Execution(store=str(folder / "store"), pool="ray")
        sweep(made_space(folder, trials), execution, SweepOptions(test=False))
        whole = time.monotonic() - began
        spent, counted = trial_seconds(open_ledger(Store.open(execution.store), "overhead"))
        replay = replay_seconds(folder, replayed)
    each = spent / counted
    work = TASKS * SECONDS_A_TASK
    out = {
        "name": "sweep_overhead",
        "trials": trials,
        "tasks_each": TASKS,
        "seconds_per_trial": round(each, 3),
        "seconds_of_work_per_trial": work,
        "seconds_whole": round(whole, 1),
        "journal_trials": replayed,
        "seconds_to_read_journal": round(replay, 2),
        "ratio": round(each / work, 2),
        "machine": f"{os.cpu_count()} CPUs, Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
