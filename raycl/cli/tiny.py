"""`raycl tiny`: makes the tiny models that ship with the package, from nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raycl.config.places import at_home
from raycl.errors import ConfigError, InterruptedByUser, StoppedError
from raycl.observe.console import Console

if TYPE_CHECKING:
    from raycl.backbones.tiny.pretraining import Plan
    from raycl.compute.stopping import StopRequest
    from raycl.synthesis.tiny.pretraining import Plan as SDPlan

CONTINUE = "run the same command again to continue"


@click.group()
def tiny() -> None:
    """The tiny offline models: pre-train them yourself."""


@tiny.command("pretrain-clip")
@click.option("--out", required=True, help="Folder for config, weights and vocabulary.")
@click.option("--batches", type=click.IntRange(1), help="Steps; the shipped weights took 1,500.")
@click.option("--batch", type=click.IntRange(2), help="Pictures in a step [256].")
@click.option("--seed", type=click.IntRange(0), help="Of pictures, captions and first weights [0].")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--drawers", type=click.IntRange(0), help="Processes that draw pictures.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def pretrain_clip(
    out: str,
    batches: int | None,
    batch: int | None,
    seed: int | None,
    device: str,
    drawers: int | None,
    as_json: bool,
) -> None:
    """Pre-train tiny-CLIP on drawn pictures; use it as `--backbone local-dir:OUT`.

    The same command again continues a stopped one. The same plan on the same kind of CPU
    with the same number of threads gives the same weights.
    """
    from raycl.backbones.tiny.pretraining import Plan

    chosen = {"batches": batches, "batch": batch, "seed": seed}
    plan = Plan(**{name: value for name, value in chosen.items() if value is not None})
    folder = at_home(out)
    _refuse_finished(folder)
    began = time.monotonic()
    right = _pretrain(plan, folder, device, drawers)
    seconds = time.monotonic() - began
    if as_json:
        told = {"out": str(folder), "batches": plan.batches, "right": right, "seconds": seconds}
        click.echo(json.dumps(told))
    else:
        Console().print(
            f"tiny-CLIP is in {folder} after {seconds / 60:.1f} minutes; try\n"
            f"  raycl run zero_shot --stream digits --backbone local-dir:{folder}",
            highlight=False,
            markup=False,
        )


@tiny.command("pretrain-sd")
@click.option("--out", required=True, help="Folder of the pipeline.")
@click.option("--pictures", type=click.IntRange(2), help="That are drawn [50,000].")
@click.option(
    "--batches",
    type=click.IntRange(1),
    help="Of the denoiser, 64 pictures each; the first 560 have 128.",
)
@click.option("--seed", type=click.IntRange(0), help="Of all that is random [0].")
@click.option("--drawers", type=click.IntRange(0), default=1, help="Processes that draw [1].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def pretrain_sd(
    out: str,
    pictures: int | None,
    batches: int | None,
    seed: int | None,
    drawers: int,
    as_json: bool,
) -> None:
    """Pre-train tiny-SD on drawn pictures; use it as `raycl synth --model OUT`.

    The same command again continues a stopped one. The same plan on the same kind of CPU
    with the same number of threads gives the same weights.
    """
    from raycl.synthesis.tiny import INDEX_FILE
    from raycl.synthesis.tiny.pretraining import Plan

    chosen = {"pictures": pictures, "batches": batches, "seed": seed}
    plan = Plan(**{name: value for name, value in chosen.items() if value is not None})
    folder = at_home(out)
    _refuse_finished(folder, INDEX_FILE)
    began = time.monotonic()
    loss = _pretrain_sd(plan, folder, drawers)
    seconds = time.monotonic() - began
    if as_json:
        told = {"out": str(folder), "batches": plan.batches, "loss": loss, "seconds": seconds}
        click.echo(json.dumps(told))
    else:
        Console().print(
            f"tiny-SD is in {folder} after {seconds / 60:.1f} minutes; try\n"
            f"  raycl synth --prompts prompts.txt --model {folder} --out images",
            highlight=False,
            markup=False,
        )


def _refuse_finished(folder: Path, file: str = "") -> None:
    from raycl.backbones.tiny import WEIGHTS_FILE

    finished = folder / (file or WEIGHTS_FILE)
    if finished.exists():
        raise ConfigError(
            "the folder already holds finished weights",
            got=str(finished),
            do="choose another folder, or delete them to pre-train again",
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError("the weights go into a folder", got=str(folder))


def _pretrain(plan: Plan, folder: Path, device: str, drawers: int | None) -> float:
    """Train with a bar on stderr; the share of right captions in the last batch."""
    from raycl.backbones.tiny.pretraining import Told, pretrain
    from raycl.compute.stopping import StopRequest, catching_signals
    from raycl.embedding.device import pick_device

    stop = StopRequest()
    last = Told(0, plan.batches, float("nan"), 0.0)
    columns = (
        TextColumn("pre-training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}, right {task.fields[right]:.0%}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bars, catching_signals(stop):
        bar = bars.add_task("", total=plan.batches, loss=float("nan"), right=0.0)

        def tell(told: Told) -> None:
            nonlocal last
            last = told
            bars.update(bar, completed=told.batch, loss=told.loss, right=told.right)

        finished = pretrain(
            plan,
            folder,
            device=pick_device(device),
            drawers=max(1, (os.cpu_count() or 2) // 2) if drawers is None else drawers,
            tell=tell,
            stopping=lambda: stop.requested,
        )
    if not finished:
        raise _stopped(f"stopped after {last.batch} of {plan.batches} batches", stop)
    return last.right


def _pretrain_sd(plan: SDPlan, folder: Path, drawers: int) -> float:
    """Train with a bar on stderr; the loss of the last batch."""
    from raycl.compute.stopping import StopRequest, catching_signals
    from raycl.synthesis.tiny.pretraining import Told, pretrain

    stop = StopRequest()
    last = Told("draw", 0, plan.pictures)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), TextColumn("loss {task.fields[loss]:.3f}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bars, catching_signals(stop):
        bar = bars.add_task("", total=None, loss=float("nan"))

        def tell(told: Told) -> None:
            nonlocal last
            if told.stage != last.stage:
                bars.reset(bar)
            last = told
            bars.update(
                bar,
                description=told.stage,
                total=told.total,
                completed=told.done,
                loss=told.loss,
            )

        finished = pretrain(
            plan, folder, drawers=drawers, tell=tell, stopping=lambda: stop.requested
        )
    if not finished:
        raise _stopped(f"stopped at {last.stage}, {last.done} of {last.total}", stop)
    return last.loss


def _stopped(what: str, stop: StopRequest) -> InterruptedByUser | StoppedError:
    kind = InterruptedByUser if stop.signal_name == "SIGINT" else StoppedError
    return kind(what, do=CONTINUE)
