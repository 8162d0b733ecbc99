"""Draws real and sampled vectors of classes as small clouds of points in SVG, one per class.

Guarantees: both axes of a panel have one scale, and every point is inside; real vectors are
rings and sampled ones are dots, so that no colour is needed to tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable

from raycl.report.canvas import Canvas, hue, n
from raycl.report.figures import Name, Panel, Point
from raycl.report.scales import fitted, width_of

SIZE = 184
"""The width of a panel, and the side of its square."""
_TOP, _MARGIN, _RING = 36, 9, 2.7
_TASK = 68
"""What the task takes beside the name, where a font is a fifth wider than widths are guessed."""
MEAN: Point = (0.0, 0.0)
"""Of the real vectors."""
REAL_WORDS, SAMPLED_WORDS = "real vectors", "drawn for replay"


def panel(shown: Panel, name: Name) -> str:
    """One class: its name and what is known of it above the square with its points."""
    words = f"{shown.name}: {_counted(shown.vectors)}, of which {len(shown.real)} are shown, "
    words += f"and {len(shown.sampled)} sampled"
    canvas = Canvas(SIZE, _TOP + SIZE + 18, words)
    canvas.text(0, 12, fitted(shown.name, SIZE - _TASK, 12), "class", tip=shown.name)
    canvas.text(SIZE, 12, f"task {shown.task + 1}", "tick", anchor="end")
    canvas.text(0, 28, known(shown), "tick")
    canvas.rect(0.5, _TOP, SIZE - 1, SIZE, "plot", radius=5, tip=words)
    canvas.text(0, _TOP + SIZE + 14, shares(shown), "tick")
    place = _places(shown)
    x, y = place(MEAN)
    canvas.path(f"M{n(x)} {_TOP + 1}v{SIZE - 2}M1.5 {n(y)}h{SIZE - 3}", "centre")
    canvas.open(hue(name.place, reference=name.reference))
    canvas.path("".join(map(_dot, map(place, shown.sampled))), "sampled")
    canvas.path("".join(map(_ring, map(place, shown.real))), "real")
    canvas.close()
    return canvas.svg("panel")


def legend(name: Name) -> str:
    """What rings and dots are."""
    second = 14 + width_of(REAL_WORDS, 11.5) + 22
    canvas = Canvas(second + 12 + width_of(SAMPLED_WORDS, 11.5), 16, "Legend")
    canvas.open(hue(name.place, reference=name.reference))
    canvas.path(_ring((4, 8)), "real")
    canvas.path(_dot((second, 8)), "sampled")
    canvas.close()
    canvas.text(14, 12, REAL_WORDS, "label")
    canvas.text(second + 9, 12, SAMPLED_WORDS, "label")
    return canvas.svg("legend")


def known(shown: Panel) -> str:
    """How many vectors, and how widely samples spread beside them."""
    spread = "" if shown.dispersion is None else f" · dispersion {shown.dispersion:.2f}"
    return _counted(shown.vectors) + spread


def shares(shown: Panel) -> str:
    """How much of the real vectors' variance a panel shows."""
    first, second = (f"{100 * share:.0f} %" for share in shown.share)
    return f"variance along x {first}, y {second}" if any(shown.share) else "does not vary"


def _counted(vectors: int) -> str:
    return f"{vectors:,} vector{'s' * (vectors != 1)}"


def bounds(shown: Panel) -> tuple[Point, float]:
    """The middle of the smallest square around all points and the real mean, and half its side."""
    low_high = [
        (min(axis), max(axis)) for axis in zip(MEAN, *shown.real, *shown.sampled, strict=True)
    ]
    x, y = ((low + high) / 2 for low, high in low_high)
    return (x, y), max(high - low for low, high in low_high) / 2


def _places(shown: Panel) -> Callable[[Point], Point]:
    """Where a point stands in the panel."""
    middle, reach = bounds(shown)
    scale = (SIZE / 2 - _MARGIN) / reach if reach else 0.0

    def place(point: Point) -> Point:
        x, y = ((value - at) * scale for value, at in zip(point, middle, strict=True))
        return SIZE / 2 + x, _TOP + SIZE / 2 - y

    return place


def _dot(at: Point) -> str:
    return f"M{n(at[0])} {n(at[1])}h0"


def _ring(at: Point) -> str:
    r, d = n(_RING), n(2 * _RING)
    return f"M{n(at[0] - _RING)} {n(at[1])}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0-{d} 0"
