"""`raycl demo`: a small true story, offline, from nothing to a leaderboard and a page of plots.

Lines to hold CGIL against; a run that moves into a Ray actor; CGIL step by step: generators
fitted in parallel, what they draw replayed, prompts aligned on it, the matrix that comes out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from raycl import shipped
from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.config.grid import Grid
from raycl.config.loading import check, read_file
from raycl.config.methods import CGIL
from raycl.engine.identity import RunIdentity
from raycl.engine.run import RunResult, default_store
from raycl.engine.run import run as run_experiment
from raycl.errors import RayclError, StoppedError
from raycl.observe.console import Console
from raycl.observe.display import watcher_for_stderr
from raycl.observe.events import Computed, Event, Observer, Waiting, Warned, WorkerLost
from raycl.observe.events import Progress as StageProgress
from raycl.report.leaderboard import leaderboard, to_rich
from raycl.report.page import write_page
from raycl.store.store import Store

if TYPE_CHECKING:
    from torch import Tensor

    from raycl.compute.pool import Pool
    from raycl.fitting.fitted import Fitted

MOST_WORKERS = 4
"""Each is a process with a torch of its own."""

console = Console()


@click.command()
@click.option("--store", help="Where results are kept [RAYCL_STORE, else raycl-store].")
@click.option("--html", help="Where the page of plots goes [demo.html in the store's folder].")
@click.option("--ray/--no-ray", default=True, help="Fit on Ray workers, and move a run to them.")
def demo(store: str | None, html: str | None, ray: bool) -> None:
    """Run CGIL and a few other methods on real handwritten digits, step by step, compare them,
    and draw a page of plots."""
    place = store or default_store()
    grid = check(Grid, read_file(shipped.find("demo", "search_spaces")))
    experiments = list(grid.experiments())
    cgil = [e for e in experiments if isinstance(e.method, CGIL)]
    lines = [e for e in experiments if e not in cgil]
    part = count(1)
    _head(
        f"{next(part)} · methods to know CGIL by: 1,797 handwritten digits, five tasks of two",
        "tiny-CLIP, two million parameters, has learnt from drawn and printed things",
        "only: handwriting is new to it. Each image is encoded once, whatever uses it.",
    )
    results = [_show_run(experiment, place) for experiment in lines]
    moving = _Move(results[-1], lines[-1], _beside(place, "demo-moved"))
    finished = _done(cgil, place)
    with _workers(ray, unless=finished and moving.done) as workers:
        if workers or (ray and moving.done):
            words = "stopped here, continued in a Ray actor: the same numbers, bit for bit"
            _head(f"{next(part)} · {words}")
            moving.show()
        where = f", in parallel on {workers} Ray workers" if workers else ""
        _head(
            f"{next(part)} · CGIL fits a generator to each class{where}",
            "A generator is all that stays of a class. It depends on that class alone, so all",
            "can be fitted at once, here: a run that needs one finds it in the store.",
        )
        _fit_all(cgil, place, workers)
    _head(
        f"{next(part)} · CGIL replays what they draw, and aligns its prompts on it",
        *_what_is_replayed(cgil[0]),
    )
    told = [_show_run(experiment, place, step_by_step=not i) for i, experiment in enumerate(cgil)]
    _show_matrix(told[0].values)
    values = [run.values for run in [*results, *told]]
    _head(f"{next(part)} · the leaderboard, % (mean ± sd over seeds)")
    console.print(*to_rich(leaderboard(values)), sep="\n")
    _say_what_next(_write_page(values, place, html), place)


def _head(title: str, *lines: str) -> None:
    console.print()
    console.rule(title)
    _say(*lines)


def _say(*lines: str) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _done(experiments: Sequence[Experiment], place: str) -> bool:
    store = Store.open(place)
    return all(store.has(RunIdentity.of(experiment).result) for experiment in experiments)


# Runs


def _show_run(experiment: Experiment, place: str, *, step_by_step: bool = False) -> RunResult:
    """One run; every task as a line, or the whole of it as one."""
    began = time.monotonic()
    with watcher_for_stderr() as watcher:
        told: Observer = watcher if step_by_step else lambda event: _brief(event, watcher)
        result = run_experiment(experiment, Execution(store=place), told)
    how = "computed" if result.computed else "found in the store"
    _say(
        f"{_short(experiment):<20} seed {experiment.seed}   "
        f"last {result.metrics['last_pooled']:5.1f} %   "
        f"{how} in {time.monotonic() - began:.1f} s"
    )
    return result


def _brief(event: Event, watcher: Observer) -> None:
    """Bars and warnings, without a line for every task."""
    if isinstance(event, StageProgress | Warned | Waiting | WorkerLost):
        watcher(event)


def _short(experiment: Experiment) -> str:
    """A label that fits a line; the leaderboard has the whole one."""
    return "cgil" if isinstance(experiment.method, CGIL) else experiment.method_label


@dataclass(frozen=True)
class _Move:
    """A run that stops after two tasks and is finished by a Ray actor."""

    whole: RunResult
    experiment: Experiment
    place: str

    @property
    def done(self) -> bool:
        return _done([self.experiment], self.place)

    def show(self) -> None:
        """Compare with the whole one."""
        began = time.monotonic()
        here, there = Execution(store=self.place), Execution(store=self.place, pool="ray")
        try:
            with watcher_for_stderr() as watcher:
                run_experiment(self.experiment, here.model_copy(update={"stop_after": 2}), watcher)
        except StoppedError as stopped:
            _say(f"{stopped.what}; a Ray actor takes over")
        try:
            with watcher_for_stderr() as watcher:
                moved = run_experiment(self.experiment, there, watcher)
        except RayclError as error:
            _say(f"skipped, the actor did not start: {error}")
            return
        if not moved.computed:
            _say("it was done before, and is answered from the store")
        same = all(moved.values[name] == self.whole.values[name] for name in ("r_seen", "metrics"))
        verdict = "identical" if same else "DIFFERENT: please report this"
        _say(f"matrices {verdict} ({time.monotonic() - began:.0f} s)")


# Generators


@contextmanager
def _workers(wanted: bool, *, unless: bool) -> Iterator[int]:
    """How many Ray workers there are while this is open: none if none are to be had."""
    if not wanted or unless:
        yield 0
        return
    from raycl.compute.ray_session import connect

    workers = min(MOST_WORKERS, os.cpu_count() or 1)
    try:
        with console.status("starting Ray on this machine"):
            session = connect(num_cpus=workers + 1)  # and one for the learner
    except RayclError as error:
        _say(f"without Ray, which did not start: {error}")
        yield 0
        return
    with session:
        yield workers


def _fit_all(experiments: Sequence[Experiment], place: str, workers: int) -> None:
    """The generators of these runs, under the very names that the runs look for."""
    if _done(experiments, place):
        _say("these runs were finished before, so nothing is fitted")
        return
    store = Store.open(place)
    with watcher_for_stderr() as watcher, _pool(workers, watcher) as pool:
        bar = _OneBar(watcher, len(experiments))
        fitted = []
        for experiment in experiments:
            fitted.append(_fit(experiment, store, pool, bar))
            bar.finished += 1
    notes = [one for found in fitted for one in found.notes]
    spread = [one.dispersion for one in notes if one.dispersion is not None]
    made = sum(found.computed for found in fitted)
    start = f", once the workers had started ({bar.waited:.1f} s)" if workers and made else ""
    _say(
        f"{len(notes)} generators ({len(notes) // len(fitted)} classes × {len(fitted)} seeds): "
        f"{made} fitted in {bar.seconds:.1f} s{start}",
        f"what they draw varies {sum(spread) / len(spread):.2f} times as much as what they saw",
    )


@contextmanager
def _pool(workers: int, watcher: Observer) -> Iterator[Pool]:
    from raycl.compute.local_pool import LocalPool

    if not workers:
        yield LocalPool()
        return
    from raycl.compute.ray_pool import RayPool

    with RayPool(watcher, workers=workers) as pool:
        yield pool


def _fit(experiment: Experiment, store: Store, pool: Pool, observer: Observer) -> Fitted:
    from raycl.fitting.parallel import fit_generators

    full = experiment.resolved()
    assert isinstance(full.method, CGIL)
    return fit_generators(
        _class_vectors(full, store, observer),
        full.method.generator,
        seed=full.seeds["init"],
        store=store,
        pool=pool,
        observer=observer,
    )


@dataclass(frozen=True)
class _Host:
    emit: Observer

    def stopping(self) -> bool:
        return False


def _class_vectors(full: Experiment, store: Store, observer: Observer) -> Mapping[str, Tensor]:
    """What each class leaves to be fitted, as a run of this experiment would see it."""
    from raycl.compute.local_pool import LocalPool
    from raycl.engine.data import read_data
    from raycl.streams.stream import build

    data = read_data(
        full.stream, full.backbone, Execution(), store=store, pool=LocalPool(), host=_Host(observer)
    )
    stream = build(full, data.source)
    return {
        stream.class_names[c]: task.train.x[task.train.y == c]
        for task in stream.tasks
        for c in task.classes
    }


class _OneBar:
    """One bar over several fits of as many classes each, and when its first class was there."""

    def __init__(self, watcher: Observer, fits: int) -> None:
        self.watcher, self.fits = watcher, fits
        self.finished = 0
        """Fits that are over."""
        self.began = time.monotonic()
        self.first: float | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Computed) and self.first is None:
            self.first = time.monotonic()
        if isinstance(event, StageProgress):
            done = event.done + self.finished * event.total
            event = replace(event, done=done, total=event.total * self.fits)
        self.watcher(event)

    @property
    def waited(self) -> float:
        return (self.first or self.began) - self.began

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began - self.waited


# What came out


def _what_is_replayed(experiment: Experiment) -> tuple[str, ...]:
    assert isinstance(experiment.method, CGIL)
    rows, epochs = experiment.method.per_class, experiment.method.align.epochs
    return (
        f"After a task, {rows} vectors are drawn of every class so far, others in each of",
        f"{epochs} epochs, and the prompts are aligned on them. No image and no vector of an",
        "earlier task is at hand.",
    )


def _show_matrix(values: Mapping[str, Any]) -> None:
    """The accuracy on every task after each, as the page shows it in colour."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("", style="dim")
    tasks = range(len(values["r_seen"]))
    for task in tasks:
        table.add_column(f"task {task + 1}", justify="right", min_width=6)
    for task in tasks:
        cells = ("" if v is None else f"{v:.1f}" for v in values["r_seen"][task])
        table.add_row(f"after task {task + 1}", *cells)
    seed, spent = values["seeds"]["order"], values["seconds"]
    console.print()
    _say(f"seed {seed}: accuracy in % on each task (alignment took {spent['align']:.1f} s)")
    console.print(table)


def _write_page(values: list[dict[str, Any]], place: str, html: str | None) -> Path:
    from raycl.report.latents import with_latents

    shown = with_latents(Store.open(place), values)
    page = Path(html or _beside(place, "demo.html")).absolute()
    return write_page(shown, page, title="raycl demo: handwritten digits")


def _beside(place: str, name: str) -> str:
    """In the store's folder; a page cannot be written into a bucket."""
    if "://" not in place:
        return str(Path(place) / name)
    return name if name.endswith(".html") else f"{place}/{name}"


def _say_what_next(page: Path, store: str) -> None:
    _say(
        f"The same as a page of plots, with samples beside real vectors: {page}",
        f"Everything is in {store}: run it again and nothing is computed twice.",
        "Next (after `. .venv/bin/activate` where make set this up):",
        "  raycl run ncm --stream tiny-xtail            # letters, shapes, textures, colours",
        "  raycl run slda --stream folder:YOUR_IMAGES   # train/CLASS/*.jpg and test/CLASS/*.jpg",
        "  raycl run cgil --stream embeddings:YOUR.npz --pool ray --workers 4",
    )
