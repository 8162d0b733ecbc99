"""`raycl embed STREAM`: only the embedding, for runs to find or for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from raycl.cli.options import add_place, flags_of_place, skipping_corrupt
from raycl.config.backbones import Backbone
from raycl.config.execution import Execution
from raycl.config.loading import check, merge, parse_setting
from raycl.config.spec import Spec
from raycl.config.streams import StreamSpec, parse_stream
from raycl.engine.embedding import EmbedResult
from raycl.engine.embedding import embed as embed_images
from raycl.engine.run import default_store
from raycl.observe.console import Console
from raycl.observe.display import watcher_for_stderr


class _Asked(Spec):
    """What the command line may set."""

    stream: StreamSpec
    backbone: Backbone = Backbone()
    execution: Execution = Execution()


@click.command()
@click.argument("stream")
@click.option("--backbone", help="tiny-clip, ARCH:TAG, ARCH:FILE, hf-hub:ORG/REPO, local-dir:PATH.")
@click.option("--skip-corrupt", is_flag=True, help="Leave out images that cannot be decoded.")
@click.option("--set", "settings", multiple=True, metavar="A.B=V", help="Override one option.")
@add_place
@click.option("--out", type=click.Path(path_type=Path), help="Write a .parquet or .npz set too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def embed(
    stream: str,
    backbone: str | None,
    skip_corrupt: bool,
    settings: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    **place: Any,
) -> None:
    """Embed the images of STREAM: digits, a name of `raycl data list`, folder:PATH, hf:ORG/NAME.

    The same command again continues, or finds them in the store.
    """
    execution = {"store": default_store(), **flags_of_place(**place)}
    flags: dict[str, Any] = {"stream": parse_stream(stream), "execution": execution}
    if backbone is not None:
        flags["backbone"] = {"name": backbone}
    asked = check(_Asked, merge([flags, *(parse_setting(text) for text in settings)]))
    spec = skipping_corrupt(asked.stream) if skip_corrupt else asked.stream
    with watcher_for_stderr() as watcher:
        result = embed_images(spec, asked.backbone, asked.execution, watcher, out=out)
    if as_json:
        click.echo(json.dumps(result.as_json()))
    else:
        _show(result)


def _show(result: EmbedResult) -> None:
    splits = ", ".join(f"{n} {name}" for name, n in result.splits.items() if n)
    speed = "found in the store"
    if result.images_per_second is not None:
        speed = f"{result.seconds:.1f} s, {result.images_per_second:.0f} images/s"
    lines = {
        "images": f"{result.images} ({splits})",
        "classes": str(result.classes),
        "backbone": f"{result.backbone}, {result.width} wide",
        "time": speed,
        "features": result.features,
        "text": result.text,
    }
    if result.corrupt:
        lines["left out"] = f"{len(result.corrupt)} that cannot be decoded"
    if result.out:
        lines["written"] = f"{result.out}: read it with --stream embeddings:{result.out}"
    console = Console()
    for name, text in lines.items():
        console.print(f"{name:>10}  {text}", highlight=False, markup=False, soft_wrap=True)
