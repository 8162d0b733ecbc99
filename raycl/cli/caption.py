"""`raycl caption`: only the captions of a stream's images, for `raycl synth` or for runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from raycl.cli.options import add_place, flags_of_place, skipping_corrupt
from raycl.config.backbones import Backbone
from raycl.config.captions import Captioning, parse_captioner
from raycl.config.execution import Execution
from raycl.config.loading import check, merge, parse_setting
from raycl.config.spec import Spec
from raycl.config.streams import StreamSpec, parse_stream
from raycl.engine.captioning import CaptionResult, refuse_empty
from raycl.engine.captioning import caption as caption_images
from raycl.engine.run import default_store
from raycl.errors import ConfigError
from raycl.observe.console import Console
from raycl.observe.display import watcher_for_stderr
from raycl.printable import plain

EXAMPLES = 12
"""Classes of which a caption is shown."""


class _Asked(Spec):
    """What the command line may set."""

    stream: StreamSpec
    captions: Captioning = Captioning()
    clip: Backbone = Backbone()
    execution: Execution = Execution()


@click.command()
@click.option("--stream", help="digits, a name of `raycl data list`, folder:PATH, hf:ORG/NAME.")
@click.option(
    "--images", metavar="PATH", help="A folder of folders by class: --stream folder:PATH."
)
@click.option(
    "--captioner", help="attributes, blip[:FOLDER or ORG/REPO] or template[:TEXT with {}]."
)
@click.option(
    "--per-class", type=click.IntRange(min=1), help="Images captioned of each class [50]."
)
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), default="train", show_default=True
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of all that is random [0].")
@click.option("--skip-corrupt", is_flag=True, help="Leave out images that cannot be decoded.")
@click.option("--set", "settings", multiple=True, metavar="A.B=V", help="Override one option.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a .parquet of them all.")
@add_place
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def caption(
    stream: str | None,
    images: str | None,
    captioner: str | None,
    per_class: int | None,
    split: Any,
    seed: int,
    skip_corrupt: bool,
    settings: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    **place: Any,
) -> None:
    """Caption the images of each class; what is kept of them is text.

    The same command again continues, or finds them in the store.
    """
    if (stream is None) == (images is None):
        raise ConfigError("name what to caption: --stream S or --images PATH, one of them")
    named = stream if stream is not None else f"folder:{images}"
    captions: dict[str, Any] = {"captioner": parse_captioner(captioner or "attributes")}
    if per_class is not None:
        captions["per_class"] = per_class
    execution = {"store": default_store(), **flags_of_place(**place)}
    flags = {"stream": parse_stream(named), "captions": captions, "execution": execution}
    asked = check(_Asked, merge([flags, *(parse_setting(text) for text in settings)]))
    spec = skipping_corrupt(asked.stream) if skip_corrupt else asked.stream
    with watcher_for_stderr() as watcher:
        result = caption_images(
            spec,
            asked.captions,
            asked.clip,
            asked.execution,
            watcher,
            seed=seed,
            split=split,
            out=out,
        )
    refuse_empty(result, split)
    if as_json:
        click.echo(json.dumps(result.as_json()))
    else:
        _show(result)


def _show(result: CaptionResult) -> None:
    console = Console()

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    width = max((len(plain(e["class"])) for e in result.examples[:EXAMPLES]), default=0)
    for example in result.examples[:EXAMPLES]:
        words = plain(example.get("caption", "–"))
        line(f"{plain(example['class']):>{width}}  {example['captions']:4d}  {words}")
    if len(result.examples) > EXAMPLES:
        line(f"… and {len(result.examples) - EXAMPLES} classes more")
    made, found = (counts.get("captions", 0) for counts in (result.computed, result.reused))
    line(
        f"{result.captioner}: {result.captions} captions of {result.images} images, {made} classes "
        f"captioned, {found} found in the store, {result.seconds:.1f} s"
    )
    if result.captions:
        line(
            f"{result.caption_bytes:,} bytes of text, seeds and labels; the images decoded take "
            f"{result.image_bytes:,}, {result.image_bytes / result.caption_bytes:.1f} times as much"
        )
    if result.corrupt:
        line(f"left out {len(result.corrupt)} that cannot be decoded")
    if result.out:
        line(f"written to {result.out}")
