"""`raycl synth --prompts F --out DIR`: only images from prompts, in parallel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from raycl.cli.options import add_place, flags_of_place
from raycl.config.execution import Execution
from raycl.config.loading import check, merge, parse_setting
from raycl.config.spec import Spec
from raycl.engine.run import default_store
from raycl.engine.synthesis import SynthResult, synthesis_of
from raycl.engine.synthesis import synth as synthesise_prompts
from raycl.observe.console import Console
from raycl.observe.display import watcher_for_stderr


class _Asked(Spec):
    """What the command line may set, besides the options of the synthesis."""

    execution: Execution = Execution()


@click.command()
@click.option(
    "--prompts",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Parquet, CSV or JSON lines with a column `prompt`, or text, a prompt a line.",
)
@click.option(
    "--model", default="tiny-sd", show_default=True, help="tiny-sd, a folder, or ORG/REPO."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of images.")
@click.option("--images-per-prompt", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--preset",
    type=click.Choice(["faithful", "fast", "turbo"]),
    default="fast",
    show_default=True,
    help="Many steps, fewer, or very few.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of prompts without one [0].")
@click.option(
    "--set", "settings", multiple=True, metavar="A=V", help="Override one option, as steps=30."
)
@add_place
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def synth(
    prompts: Path,
    model: str,
    out: Path,
    images_per_prompt: int,
    preset: str,
    seed: int,
    settings: tuple[str, ...],
    as_json: bool,
    **place: Any,
) -> None:
    """Make images from prompts with a text-to-image model of diffusers.

    The same command again continues, or finds them in the store.
    """
    trees = [parse_setting(text) for text in settings]
    synthesis = synthesis_of(model, preset, [t for t in trees if "execution" not in t])
    execution = {"store": default_store(), **flags_of_place(**place)}
    asked = check(
        _Asked, merge([{"execution": execution}, *(t for t in trees if "execution" in t)])
    )
    with watcher_for_stderr() as watcher:
        result = synthesise_prompts(
            prompts,
            synthesis,
            asked.execution,
            watcher,
            out=out,
            each=images_per_prompt,
            seed=seed,
        )
    if as_json:
        click.echo(json.dumps(result.as_json()))
    else:
        _show(result)


def _show(result: SynthResult) -> None:
    speed = "all found in the store"
    if result.images_per_second is not None:
        speed = (
            f"{result.painted} painted in {result.seconds:.1f} s, "
            f"{result.images_per_second:.2f} images/s"
        )
    lines = {
        "images": f"{result.images} of {result.prompts} prompts",
        "model": result.model,
        "time": speed,
        "written": f"{result.out}: Parquet shards, manifest.json, contact-sheet.png",
    }
    if result.left_out:
        lines["left out"] = f"{result.left_out}: manifest.jsonl says why"
    if result.painted_again:
        lines["again"] = f"{result.painted_again} tries with another seed"
    if result.prompts_cut:
        lines["cut"] = f"{result.prompts_cut} prompts are longer than the model reads"
    console = Console()
    for name, text in lines.items():
        console.print(f"{name:>10}  {text}", highlight=False, markup=False, soft_wrap=True)
