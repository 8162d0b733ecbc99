"""Whole sweeps with real runs: in this process, on Ray Tune, and killed in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import raycl
from raycl import Execution
from raycl.cli.sweep import asked_space
from raycl.compute.ray_session import Session
from raycl.compute.stopping import StopRequest
from raycl.config.space import Space
from raycl.config.space_files import experiment_of, meaning, space_of
from raycl.engine.run import run
from raycl.errors import ConfigError, StoppedError, WorkError
from raycl.search.ledger import Ledger, open_ledger
from raycl.search.sweep import SweepOptions, sweep
from raycl.store.store import Store
from tests.engine.processes import Command, makers
from tests.observe.followed_runs import scalars
from tests.search.real_sweeps import (
    events,
    fitting,
    here,
    lasting,
    real_space,
    reported,
    written,
)
from tests.streams.made_sets import CLASSES

ROOT = Path(__file__).parents[2]


def test_a_space_may_be_written_in_python(tmp_path: Path) -> None:
    written = Space(
        name="mine",
        base=real_space(tmp_path).base,
        axes={"method.shrinkage": {"loguniform": [1e-3, 1.0]}},  # type: ignore[dict-item]
        samples=1,
    )
    assert raycl.sweep(written, here(tmp_path), SweepOptions(test=False))["trials"] == 1
    with pytest.raises(ConfigError, match="needs a name"):
        raycl.sweep(written.model_copy(update={"name": None}), here(tmp_path))


def test_a_sweep_measures_what_its_runs_measure(tmp_path: Path) -> None:
    space = real_space(tmp_path, seeds=[0, 1])
    answer = sweep(space, here(tmp_path))
    assert answer["states"] == {"complete": 8} and answer["task_steps"] == 24
    best, ledger = answer["best"], open_ledger(Store.open(str(tmp_path / "store")), "real")
    runs = [run(experiment_of(space, best["params"], seed), here(tmp_path)) for seed in (0, 1)]
    assert not any(result.computed for result in runs), "its runs are runs like any other"
    mean = sum(result.metrics["last_pooled"] for result in runs) / 2
    assert best["values"]["last_pooled"] == pytest.approx(mean)
    trial = ledger.records.samples[best["sample"]].trials[0]
    stages = runs[0].metrics["stage_pooled"]
    assert [trial.reports[done]["last_pooled"] for done in (1, 2, 3)] == stages
    assert trial.last["forgetting"] == runs[0].metrics["forgetting"]
    assert trial.last["state_mib"] == runs[0].values["state_mib"]
    # The test data is looked at once, for the best.
    tested = run(experiment_of(space, best["params"], 0, on_test=True), here(tmp_path))
    assert not tested.computed
    assert answer["test"]["0"]["metrics"]["last_pooled"] == tested.metrics["last_pooled"]
    again = sweep(space, here(tmp_path))
    assert again["best"] == best and again["computed"] == answer["computed"]


def test_a_run_that_exists_is_reported_as_if_it_were_run(tmp_path: Path) -> None:
    space = real_space(tmp_path, samples=1)
    sweep(space, here(tmp_path))
    first = reported(tmp_path / "store")
    sweep(space, here(tmp_path), SweepOptions(new=True))
    assert reported(tmp_path / "store", "real-2") == first
    short = real_space(tmp_path, samples=1, tasks=2)
    sweep(short.model_copy(update={"name": "short"}), here(tmp_path))
    assert list(reported(tmp_path / "store", "short")[0][2]) == [1, 2]


def test_more_tasks_continue_from_the_stored_states(tmp_path: Path) -> None:
    answer = sweep(real_space(tmp_path, tasks=1), here(tmp_path), SweepOptions(test=False))
    assert answer["task_steps"] == 4 and answer["computed"]["state"] == 4
    more = SweepOptions(test=False, extend_tasks=3)
    answer = sweep(real_space(tmp_path, tasks=1), here(tmp_path), more)
    assert answer["task_steps"] == 12 and answer["computed"]["state"] == 12
    with pytest.raises(ConfigError, match="cannot be taken back"):
        sweep(real_space(tmp_path, tasks=1), here(tmp_path), SweepOptions(extend_tasks=2))


def test_too_many_failures_are_an_error_that_names_them(tmp_path: Path) -> None:
    axes = {"stream.tasks": {"choice": [3, 99]}}
    space = real_space(tmp_path, axes=axes, samples=None, failures=0.4)
    with pytest.raises(WorkError, match=r"(?s)1 trials failed, 50 %.*more tasks than classes"):
        sweep(space, here(tmp_path))
    answer = sweep(space.model_copy(update={"failures": 0.5}), here(tmp_path))
    assert answer["states"] == {"complete": 1, "failed": 1}


def test_two_sweeps_at_once_share_their_fits(tmp_path: Path) -> None:
    spaces = [fitting(tmp_path, name) for name in ("one", "two")]
    with ThreadPoolExecutor(2) as threads:
        ask = [threads.submit(sweep, s, here(tmp_path), SweepOptions(test=False)) for s in spaces]
        check_shared(tmp_path / "store", [one.result() for one in ask])


def check_shared(store: Path, answers: list[dict[str, Any]]) -> None:
    fits = sum(answer["computed"].get("generator", 0) for answer in answers)
    assert fits == 2 * CLASSES, "each class once for each of the two generators"
    assert [answer["states"] for answer in answers] == [{"complete": 4}] * 2
    assert events(store, "reported") == 2 * 4 * 3, "nobody was told of another's trials"
    assert reported(store, "one") == reported(store, "two")


@pytest.mark.ray
def test_two_sweeps_at_once_on_one_cluster_share_their_fits(
    tmp_path: Path, ray_session: Session
) -> None:
    store = tmp_path / "store"
    place = ["--address", ray_session.address, "--store", str(store), "--no-test", "--json"]
    files = [written(tmp_path, fitting(tmp_path, name)) for name in ("one", "two")]
    with contextlib.ExitStack() as closing:
        commands = [Command("sweep", file, *place, folder=tmp_path) for file in files]
        for command in commands:
            closing.enter_context(command)
        check_shared(store, [command.result(300) for command in commands])
    alone = tmp_path / "alone"
    sweep(fitting(tmp_path, "one"), Execution(store=str(alone)), SweepOptions(test=False))
    assert reported(alone, "one") == reported(store, "one"), "as if it had been alone"


def test_each_trial_is_a_run_of_its_own_in_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the driver was stopped, and though the trial waited at a rung."""
    space = real_space(tmp_path, samples=4, scheduler={"kind": "task_rungs"})
    told = here(tmp_path).model_copy(update={"log_to": ("tensorboard",)})
    stop, write = StopRequest(), Ledger.write

    def stopping_early(ledger: Ledger, event: str, **what: Any) -> None:
        write(ledger, event, **what)
        if what.get("done") == 2:
            stop.request("SIGTERM")

    with monkeypatch.context() as patched, pytest.raises(StoppedError):
        patched.setattr(Ledger, "write", stopping_early)
        sweep(space, told, SweepOptions(test=False), stop=stop)
    sweep(space, told, SweepOptions(test=False))
    for trial in open_ledger(Store.open(told.store), "real").records.trials:
        found = scalars(tmp_path / "store" / "logs" / f"sweep-real-{trial.name}")
        expected = [(done, pytest.approx(v["last_pooled"])) for done, v in trial.reports.items()]
        assert [(step, v) for name, step, v in found if name == "last_pooled"] == expected
        finals = [v for name, _, v in found if name == "final/last_pooled"]
        assert len(finals) == (trial.state == "complete")


def test_a_stop_leaves_a_sweep_that_continues(tmp_path: Path) -> None:
    stop = StopRequest()
    stop.request("SIGTERM")
    with pytest.raises(StoppedError, match="same command"):
        sweep(real_space(tmp_path), here(tmp_path), stop=stop)
    assert sweep(real_space(tmp_path), here(tmp_path))["states"] == {"complete": 4}


@pytest.mark.parametrize("place", [0, 1, 4, -1, "index"])
def test_a_sweep_whose_journal_was_damaged_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int | str
) -> None:
    """What it forgets was learnt, so it is found in the store and told again."""
    space = real_space(tmp_path, sampler={"kind": "tpe", "startup": 2}, samples=4)
    calm = sweep(space, here(tmp_path))
    told, broken = reported(tmp_path / "store"), tmp_path / "broken"
    stop, write = StopRequest(), Ledger.write

    def stopping_early(ledger: Ledger, event: str, **what: Any) -> None:
        write(ledger, event, **what)
        if event == "finished" and what["trial"] == "1-0":
            stop.request("SIGTERM")

    with monkeypatch.context() as patched, pytest.raises(StoppedError):
        patched.setattr(Ledger, "write", stopping_early)
        sweep(space, Execution(store=str(broken)), stop=stop)
    events = sorted((broken / "journals").glob("sweep-real-*/event-*.json"))
    index = sorted((broken / "journals").glob("sweeps-*/*.json"))
    file = index[0] if isinstance(place, str) else events[place]
    file.write_bytes(file.read_bytes()[:40])
    answer = sweep(space, Execution(store=str(broken)))
    assert (answer["best"], answer["test"]) == (calm["best"], calm["test"])
    assert reported(broken) == told and answer["states"] == calm["states"]
    learnt = [
        len(list(Store.open(str(s)).records("state"))) for s in (broken, here(tmp_path).store)
    ]
    assert learnt[0] == learnt[1], "nothing else was learnt"


@pytest.mark.ray
def test_on_tune_the_sweep_is_the_same(tmp_path: Path, ray_session: Session) -> None:
    """With one at a time bit for bit; with two, all trials come to their end."""
    space = real_space(tmp_path, sampler={"kind": "tpe", "startup": 2}, samples=5, concurrent=1,
                       scheduler={"kind": "task_rungs"})  # fmt: skip
    on_tune = Execution(store=str(tmp_path / "tune"), pool="ray")
    sweep(space, here(tmp_path))
    answer = sweep(space, on_tune)
    assert reported(tmp_path / "tune") == reported(tmp_path / "store")
    assert answer["states"]["pruned"] >= 1
    two = space.model_copy(update={"concurrent": 2, "name": "two", "samples": 3})
    followed = on_tune.model_copy(update={"log_to": ("tensorboard",)})
    answer = sweep(two, followed, SweepOptions(test=False))
    assert scalars(tmp_path / "tune" / "logs" / "sweep-two-0-0")
    assert sum(answer["states"].values()) == 3 and "open" not in answer["states"]


def test_gpus_are_asked_for_each_trial_and_the_sweep_stays_the_same() -> None:
    from raycl.search.tune_driver import placement

    plain, asked = asked_space("cgil-digits"), asked_space("cgil-digits", gpus=0.5)
    assert placement(plain.resources).required_resources == {"CPU": 1}
    assert placement(asked.resources).required_resources == {"CPU": 1, "GPU": 0.5}
    assert meaning(asked) == meaning(plain), "one that was begun without goes on with them"
    with pytest.raises(ConfigError, match="gpus"):
        asked_space("cgil-digits", gpus=-1)


def test_a_killed_driver_loses_a_task_at_most(tmp_path: Path) -> None:
    """By SIGKILL in the middle, and then the same sweep again."""
    space, store = lasting(tmp_path), tmp_path / "killed"
    words = ["sweep", written(tmp_path, space), "--pool", "local", "--store", str(store)]
    with Command(*words, folder=tmp_path) as command:
        command.until_seen(lambda: events(store, "reported") >= 2, "second report")
        command.kill()
        assert command.end()[0] == -signal.SIGKILL
    told = events(store, "reported")
    continued = sweep(space, Execution(store=str(store)))
    whole = sweep(space, here(tmp_path))
    assert 2 <= told < 6 == events(store, "reported"), "none is told twice"
    assert reported(store) == reported(tmp_path / "store")
    assert (continued["best"], continued["test"]) == (whole["best"], whole["test"])


@pytest.mark.ray
def test_on_tune_a_signal_saves_in_the_middle_of_a_task(tmp_path: Path) -> None:
    # Long, so that a machine that is busy still finds it at work when the signal arrives.
    space, store = lasting(tmp_path, trials=1, epochs=300), tmp_path / "stopped"
    words = ["sweep", written(tmp_path, space), "--store", str(store), "--no-test"]
    with Command(*words, folder=tmp_path) as command:
        command.until_seen(lambda: makers(store, "state"), "task at work")
        command.kill(signal.SIGTERM)
        assert command.end() == (75, "")
    assert "same command" in command.log.read_text()
    done = events(store, "reported")
    kinds = [record.kind for record in Store.open(str(store)).records()]
    assert kinds.count("state") == done < 3 and "partial" in kinds, "saved between two epochs"
    sweep(space, Execution(store=str(store)), SweepOptions(test=False))
    sweep(space, here(tmp_path), SweepOptions(test=False))
    assert reported(store) == reported(tmp_path / "store")
    assert events(store, "lost") == 0


@pytest.mark.ray
def test_a_killed_trial_goes_on_by_itself(tmp_path: Path, ray_session: Session) -> None:
    space, store, killed = lasting(tmp_path), tmp_path / "victims", []

    over = threading.Event()

    def hunt() -> None:
        while not over.wait(0.005):
            victims = [p for p in makers(store, "state").values() if p != os.getpid()]
            if victims:
                os.kill(victims[0], signal.SIGKILL)
                killed.append(victims[0])
                return

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        answer = sweep(space, Execution(store=str(store), pool="ray"), SweepOptions(test=False))
    finally:
        over.set()
        hunter.join()
    assert killed and answer["states"] == {"complete": 2} and answer["task_steps"] == 6
    assert events(store, "lost") == 1


@pytest.mark.ray
def test_a_lost_node_loses_no_trial(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.search.losing_a_trials_node", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert len(told["killed"]) == 1 and told["states"] == {"complete": 4}
    assert told["steps"] == told["reported"] == 12, "no task is told twice"
    assert told["finished"] == 4 and told["lost"] >= 1


@pytest.mark.ordeal
@pytest.mark.parametrize("concurrent", [1, 4])
def test_twenty_kills_of_a_sweeps_driver(tmp_path: Path, concurrent: int) -> None:
    """At random moments, on Ray; with one trial at a time the sweep is the undisturbed one."""
    epochs = {"method.align.epochs": {"choice": list(range(100, 260, 10))}}
    space = lasting(tmp_path).model_copy(
        update={"axes": space_of({"base": {}, "axes": epochs}, "x").axes, "concurrent": concurrent}
    )
    store, moments, unfinished = tmp_path / "killed", random.Random(0), 0
    words = ["sweep", written(tmp_path, space), "--store", str(store), "--no-test", "--json"]
    for _ in range(20):
        with Command(*words, folder=tmp_path) as command:
            time.sleep(moments.uniform(6.0, 25.0))
            command.kill()
            unfinished += command.end()[0] != 0
    assert unfinished >= 3, "the kills came after the work"
    answer = Command(*words, folder=tmp_path).result(600)
    assert answer["states"] == {"complete": 16}
    assert answer["task_steps"] == 48 == events(store, "reported")
    assert events(store, "finished") == 16
    if concurrent == 1:
        whole = sweep(space, here(tmp_path), SweepOptions(test=False))
        assert reported(store) == reported(tmp_path / "store") and answer["best"] == whole["best"]
