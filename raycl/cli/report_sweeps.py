"""`raycl report SWEEP`: a sweep on the terminal, as a page, its best as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from raycl.errors import ConfigError
from raycl.observe.console import Console, say
from raycl.report.leaderboard import leaderboard, to_rich
from raycl.report.reading import finished_runs
from raycl.report.writing import write_whole
from raycl.search.ledger import Ledger, entries, names_of, open_ledger
from raycl.search.standings import best_sample
from raycl.search.telling import config, told
from raycl.store.store import Store

MOST_ROWS = 12


def sweeps_named(store: Store, references: Sequence[str]) -> list[Ledger]:
    """The sweeps among these names; all of them must be, or none."""
    known = {name for entry in entries(store) for name in (entry.id, entry.name)}
    found = [open_ledger(store, name) for name in references if name in known]
    if found and len(found) < len(references):
        others = ", ".join(name for name in references if name not in known)
        raise ConfigError("runs and sweeps are reported apart", got=others)
    return found


def no_sweep(store: Store, references: Sequence[str]) -> ConfigError:
    """Told where only a sweep will do."""
    got, do = " ".join(references) or "no name", f"sweeps here: {names_of(entries(store))}"
    return ConfigError("--best and --optuna are of a sweep", got=got, do=do)


def report_sweeps(
    ledgers: Sequence[Ledger],
    *,
    html: Path | None,
    best: Path | None,
    export: Path | None,
    title: str | None,
) -> None:
    """What was asked for of these sweeps; the terminal's tables if nothing was."""
    if best is not None:
        _write_best(ledgers, best)
    if export is not None:
        from raycl.search.export import export_study

        export_study(ledgers, export)
        say(f"written to {export}: optuna-dashboard sqlite:///{export}", err=True)
    if html is not None:
        from raycl.report.sweep_page import write_sweep_page

        write_sweep_page([told(ledger) for ledger in ledgers], html, title)
        say(f"the page written to {html}", err=True)
    if not (best or html or export):
        for ledger in ledgers:
            _show(told(ledger))
        _show_tests(ledgers)


def _write_best(ledgers: Sequence[Ledger], path: Path) -> None:
    if len(ledgers) != 1:
        raise ConfigError("--best is of one sweep", got=f"{len(ledgers)} sweeps")
    records = ledgers[0].records
    sample = best_sample(records)
    if sample is None:
        raise ConfigError("no sample of this sweep came through", got=ledgers[0].entry.id)
    tree = config(records, sample, ledgers[0].space.seeds[0], on_test=True)
    head = f"# sample {sample.number} of the sweep {ledgers[0].entry.id}\n"
    write_whole(path, (head + yaml.safe_dump(tree, sort_keys=False)).encode())
    say(f"the best written to {path}: raycl run --config {path}", err=True)


def _show(found: dict[str, Any]) -> None:
    console = Console()
    states = ", ".join(f"{count} {state}" for state, count in found["states"].items())
    console.print(f"{found['sweep']}: {found['trials']} trials ({states})", highlight=False)
    metrics = [one["metric"] for one in found["objectives"]]
    paths = [axis["path"] for axis in found["axes"]]
    table = Table("sample", "state", *metrics, *(path.removeprefix("method.") for path in paths))
    by_number = {sample["number"]: sample for sample in found["all"]}
    shown = [by_number[number] for number in found["order"]]
    shown += [sample for sample in found["all"] if sample["number"] not in found["order"]]
    for sample in shown[:MOST_ROWS]:
        values = (_number(sample["values"].get(metric)) for metric in metrics)
        params = (_number(sample["params"].get(path)) for path in paths)
        table.add_row(str(sample["number"]), sample["state"], *values, *params)
    console.print(table, highlight=False)
    if len(shown) > MOST_ROWS:
        console.print(f"and {len(shown) - MOST_ROWS} more: --html FILE shows all", highlight=False)
    if found["importance"]:
        shares = ", ".join(f"{path} {100 * s:.0f} %" for path, s in found["importance"].items())
        console.print(f"explains the variance: {shares}", highlight=False, markup=False)
    console.print(
        f"the store saved {found['seconds_saved']:.0f} s beside {found['trial_seconds']:.0f} s "
        "that the trials took",
        highlight=False,
    )


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _show_tests(ledgers: Sequence[Ledger]) -> None:
    """The best of each sweep on the test data, as one leaderboard."""
    rows = []
    for ledger in ledgers:
        keys = [result["key"] for result in ledger.records.tested.values()]
        if ledger.space.on_test:
            keys = [t.key for t in ledger.records.trials if t.key is not None]
        for key in dict.fromkeys(keys):
            if ledger.store.record(key) is not None:
                rows += [run.values for run in finished_runs(ledger.store, (key,))]
    if rows:
        Console().print("on the test data, %", *to_rich(leaderboard(rows)), sep="\n")
