"""`raycl demo`: a small true story, offline, from nothing to a leaderboard."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.console import Console

from raycl import shipped
from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.config.grid import Grid
from raycl.config.loading import check, read_file
from raycl.engine.run import RunResult, default_store
from raycl.engine.run import run as run_experiment
from raycl.errors import RayclError, StoppedError
from raycl.observe.display import watcher_for_stderr
from raycl.report.leaderboard import leaderboard, to_rich
from raycl.report.page import write_page

console = Console()


@click.command()
@click.option("--store", help="Where results are kept [RAYCL_STORE, else raycl-store].")
@click.option("--html", help="Where the page of plots goes [demo.html in the store's folder].")
@click.option("--ray/--no-ray", default=True, help="Show a run that moves into a Ray actor.")
def demo(store: str | None, html: str | None, ray: bool) -> None:
    """Run a few methods on real handwritten digits, compare them, and draw a page of plots."""
    place = store or default_store()
    grid = check(Grid, read_file(shipped.find("demo", "search_spaces")))
    experiments = list(grid.experiments())
    console.rule("1 · methods × seeds on 1,797 handwritten digits, five tasks of two")
    console.print(
        "tiny-CLIP, two million parameters, has learnt from drawn and printed things only:\n"
        "handwriting is new to it. Each image is encoded once, whatever uses it.",
        highlight=False,
    )
    results = _run_all(experiments, place)
    if ray:
        console.rule("2 · stopped here, continued in a Ray actor: the same numbers, bit for bit")
        _show_move(results[-1], experiments[-1], place)
    console.rule(f"{'3' if ray else '2'} · the leaderboard, % (mean ± sd over seeds)")
    values = [r.values for r in results]
    console.print(*to_rich(leaderboard(values)), sep="\n")
    page = write_page(values, _page(html, place), title="raycl demo: handwritten digits")
    _say_what_next(page, place)


def _page(html: str | None, store: str) -> Path:
    """Beside the results, or here where those lie in a bucket."""
    return Path(html or ("demo.html" if "://" in store else f"{store}/demo.html")).absolute()


def _say_what_next(page: Path, store: str) -> None:
    console.print(
        f"The same as a page of plots: {page}\n"
        f"Everything is in {store}: run it again and nothing is computed twice.\n"
        "Next (after `. .venv/bin/activate` where make set this up):\n"
        "  raycl run ncm --stream tiny-xtail            # letters, shapes, textures, colours\n"
        "  raycl run slda --stream folder:YOUR_IMAGES   # train/CLASS/*.jpg and test/CLASS/*.jpg\n"
        "  raycl run slda --stream embeddings:YOUR.npz",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _run_all(experiments: list[Experiment], store: str) -> list[RunResult]:
    execution = Execution(store=store)
    results = []
    for experiment in experiments:
        began = time.monotonic()
        with watcher_for_stderr() as watcher:
            result = run_experiment(experiment, execution, watcher)
        results.append(result)
        how = "computed" if result.computed else "found in the store"
        console.print(
            f"{experiment.method_label:<22} seed {experiment.seed}   "
            f"last {result.metrics['last_pooled']:5.1f} %   "
            f"{how} in {time.monotonic() - began:.1f} s",
            highlight=False,
        )
    return results


def _show_move(whole: RunResult, experiment: Experiment, store: str) -> None:
    """Stop a run after two tasks, let a Ray actor finish it, compare with the whole one."""
    apart = str(Path(store) / "demo-moved") if "://" not in store else f"{store}/demo-moved"
    began = time.monotonic()
    try:
        with watcher_for_stderr() as watcher:
            run_experiment(experiment, Execution(store=apart, stop_after=2), watcher)
    except StoppedError as stopped:
        console.print(f"{stopped.what}; a Ray actor takes over", highlight=False)
    try:
        with watcher_for_stderr() as watcher:
            moved = run_experiment(experiment, Execution(store=apart, pool="ray"), watcher)
    except RayclError as error:
        console.print(f"skipped, Ray did not start: {error}", markup=False)
        return
    if not moved.computed:
        console.print("it was done before, and is answered from the store")
    same = all(moved.values[name] == whole.values[name] for name in ("r_seen", "metrics"))
    verdict = "identical" if same else "DIFFERENT: please report this"
    console.print(f"matrices {verdict} ({time.monotonic() - began:.0f} s)", highlight=False)
