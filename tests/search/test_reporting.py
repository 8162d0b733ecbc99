"""What a sweep leaves to look at: the page, the best as a file, commands, Optuna's own file."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from raycl.cli.run import config_of
from raycl.config.loading import load, read_file
from raycl.config.space_files import experiment_of
from raycl.errors import ConfigError
from raycl.report.sweep_page import sweep_page, write_sweep_page
from raycl.search.conductor import Conductor
from raycl.search.export import export_study
from raycl.search.ledger import Ledger, driven_ledger, open_ledger
from raycl.search.standings import best_sample
from raycl.search.telling import command, importance, told
from raycl.search.watching import standing_line
from raycl.store.store import Store
from tests.report.chromium import browser, executable
from tests.search.made_sweeps import PARTS, made_space, whole

HOSTILE = "</script><b>'\"&"
GOALS = [{"metric": "last_pooled"}, {"metric": "state_mib"}]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    space = made_space(
        {**PARTS, "method.align.epochs": {"choice": [5, 10]}},
        samples=20,
        seeds=[0, 1],
        about=HOSTILE,
        objectives=GOALS,
        scheduler={"kind": "task_rungs"},
    )
    return whole(tmp_path_factory.mktemp("sweep"), space)


def test_the_page_tells_all_and_lets_nothing_out(ledger: Ledger) -> None:
    found = told(ledger)
    text = sweep_page([found])
    assert "<b>'" not in text and text.count("</script>") == 2
    for words in ("Parallel coordinates", "After each task", "against state", "Importance",
                  "over method.align.lr", "--best best.yaml"):  # fmt: skip
        assert words in text, words
    best = best_sample(ledger.records)
    assert best is not None and f"Sample <b>{best.number}</b> is the best" in text
    assert text == sweep_page([told(open_ledger(ledger.store, "made"))]), "the same, read again"


def test_a_pruned_sample_has_no_value_for_all_tasks(ledger: Ledger) -> None:
    pruned = [s for s in told(ledger)["all"] if s["state"] == "pruned"]
    assert pruned and all(s["curve"] for s in pruned)
    assert {value for s in pruned for value in s["values"].values()} == {None}


def test_importance_finds_the_axis_that_matters(tmp_path: Path) -> None:
    axes = {**PARTS, "method.per_class": {"lograndint": [16, 512]}}
    records = whole(tmp_path, made_space(axes, samples=30, sampler={"kind": "random"})).records
    shares = importance(records)
    assert max(shares, key=lambda path: shares[path]) == "method.align.lr"
    assert sum(shares.values()) == pytest.approx(1.0)
    assert importance(whole(tmp_path, made_space(samples=2, name="few")).records) == {}


def test_the_command_of_a_trial_is_the_trial(ledger: Ledger) -> None:
    sample = ledger.records.samples[3]
    words = shlex.split(command(ledger.records, sample, 1))
    assert words[:2] == ["raycl", "run"]
    settings = tuple(w for before, w in itertools.pairwise(words) if before == "--set")
    nothing: dict[str, Any] = dict.fromkeys(
        (
            "method",
            "stream",
            "probe",
            "backbone",
            "stop_after",
            "store",
            "pool",
            "address",
            "workers",
        )
    )
    asked = config_of(**nothing, skip_corrupt=False, seed=1, configs=(), settings=settings)
    assert asked.experiment == experiment_of(ledger.space, sample.params, 1)


def test_commands_report_a_sweep(ledger: Ledger, tmp_path: Path) -> None:
    from raycl.cli.report import report

    store = ["--store", ledger.store.uri]
    page, best, database = (tmp_path / name for name in ("s.html", "best.yaml", "s.db"))
    files = ["--html", str(page), "--best", str(best), "--optuna", str(database)]
    done = CliRunner().invoke(report, ["made", *store, *files])
    assert done.exit_code == 0, done.output
    assert page.exists() and database.exists()
    sample = best_sample(ledger.records)
    assert sample is not None
    found = load([read_file(best)]).experiment
    assert found == experiment_of(ledger.space, sample.params, 0, on_test=True)
    assert yaml.safe_load(best.read_text())["seed"] == 0
    shown = CliRunner().invoke(report, ["made", *store])
    assert "40 trials" in shown.output and "pruned" in shown.output
    for wrong in (["made", "a-run", *store], ["--best", "x.yaml", *store]):
        error = CliRunner().invoke(report, wrong).exception
        assert isinstance(error, ConfigError)
    assert "sweeps here: made" in str(error)


def test_optuna_opens_what_is_exported(ledger: Ledger, tmp_path: Path) -> None:
    import optuna

    database = tmp_path / "sweep.db"
    export_study([ledger], database)
    study = optuna.load_study(study_name="made", storage=f"sqlite:///{database}")
    try:
        states = [trial.state.name for trial in study.trials]
        assert states.count("PRUNED") == sum(s.state == "pruned" for s in ledger.records.samples)
        assert len(study.trials) == 20 and len(study.directions) == 2
        assert study.metric_names == ["last_pooled", "state_mib"]
        for trial, sample in zip(study.trials, ledger.records.samples, strict=True):
            heard = [t.heard_of for t in sample.trials if t.heard_of]
            assert trial.datetime_start and trial.datetime_complete, "when it was at work"
            began, ended = trial.datetime_start.timestamp(), trial.datetime_complete.timestamp()
            assert began == pytest.approx(min(first for first, _ in heard), rel=0, abs=1e-3)
            assert ended == pytest.approx(max(last for _, last in heard), rel=0, abs=1e-3)
    finally:
        study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="there already"):
        export_study([ledger], database)


@pytest.mark.skipif(executable() is None, reason="there is no Chromium here")
def test_the_page_works_in_a_browser(ledger: Ledger, tmp_path: Path) -> None:
    page = write_sweep_page([told(ledger)], tmp_path / "sweep.html")
    with browser(str(executable()), tmp_path / "profile") as opened:
        opened.screen(1200)
        opened.open(page)
        assert opened.complaints() == [] and len(opened.requests()) == 1
        assert opened.js("document.querySelectorAll('svg.chart.sweep').length") >= 10
        for width in (1200, 380):
            opened.screen(width)
            assert not opened.js("document.documentElement.scrollWidth > innerWidth + 1")
        first = "document.querySelector('tbody tr th').textContent"
        best = best_sample(ledger.records)
        assert best is not None and opened.js(first) == str(best.number)


def test_the_data_of_a_page_is_plain(ledger: Ledger) -> None:
    assert json.loads(json.dumps(told(ledger)))["trials"] == 40


def test_what_was_grown_before_is_counted_though_less_is_asked_for_now(tmp_path: Path) -> None:
    grown = whole(tmp_path, made_space(samples=5))
    with driven_ledger(Store.open(str(tmp_path)), made_space(samples=3)) as ledger:
        assert standing_line(Conductor(ledger), 0.0).startswith("5 of 5 trials over")
    assert len(grown.records.samples) == 5
