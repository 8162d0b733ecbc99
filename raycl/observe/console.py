"""The terminal: rich's console, to which no text can do anything but be read.

Guarantees: whatever names of classes, files and runs hold, what is written of them has no control
character; colours and bars are rich's own, and only where a terminal is.
"""

from __future__ import annotations

from collections.abc import Iterable

import click
from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from raycl.printable import plain_lines


class Console(RichConsole):
    """As rich's own; what a renderable says is made plain, what rich adds to it is not."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(plain_lines(segment.text), segment.style)


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Lines without any layout, on stdout or stderr, made plain in the same way."""
    click.echo(plain_lines(text), err=err, nl=nl)
