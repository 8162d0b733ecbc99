"""A small SVG writer: elements with classes, so that one drawing serves both themes.

Guarantees: every text and attribute is escaped; no element carries a colour of its own,
only classes that the page's style sheet knows; numbers are short.
"""

from __future__ import annotations

from html import escape
from xml.sax.saxutils import escape as escape_text

from raycl.report.palette import MARKERS

HUES = 8
_CONTROL = {**dict.fromkeys(range(32), " "), 127: " "}


class Canvas:
    """Collects the elements of one SVG picture."""

    def __init__(self, width: float, height: float, title: str, about: str = "") -> None:
        self.width, self.height = width, height
        self.title, self.about = title, about
        self._parts: list[str] = []

    def open(self, css: str, tip: str | None = None) -> None:
        """Begin a group; a tip is shown while the pointer is on it."""
        self._parts.append(f'<g class="{css}">{_title(tip)}')

    def close(self) -> None:
        """End the group."""
        self._parts.append("</g>")

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        self._parts.append(
            f'<line x1="{n(x1)}" y1="{n(y1)}" x2="{n(x2)}" y2="{n(y2)}" class="{css}"/>'
        )

    def rect(
        self, x: float, y: float, w: float, h: float, css: str, *, tip: str | None = None,
        radius: float = 0,
    ) -> None:  # fmt: skip
        round_ = f' rx="{n(radius)}"' if radius else ""
        self._parts.append(
            f'<rect x="{n(x)}" y="{n(y)}" width="{n(max(w, 0))}" height="{n(max(h, 0))}"{round_} '
            f'class="{css}"' + (f">{_title(tip)}</rect>" if tip else "/>")
        )

    def path(self, d: str, css: str, *, tip: str | None = None, more: str = "") -> None:
        self._parts.append(
            f'<path d="{d}" class="{css}"{more}' + (f">{_title(tip)}</path>" if tip else "/>")
        )

    def text(
        self, x: float, y: float, words: str, css: str = "", *, anchor: str = "start",
        turn: float = 0, tip: str | None = None,
    ) -> None:  # fmt: skip
        where = f' transform="rotate({n(turn)} {n(x)} {n(y)})"' if turn else ""
        side = f' text-anchor="{anchor}"' if anchor != "start" else ""
        cls = f' class="{css}"' if css else ""
        self._parts.append(
            f'<text x="{n(x)}" y="{n(y)}"{side}{cls}{where}>{safe(words)}{_title(tip)}</text>'
        )

    def marker(self, x: float, y: float, r: float, place: int, css: str, tip: str = "") -> None:
        """The mark of a setting, by its place: one of four shapes."""
        match MARKERS[place % len(MARKERS)]:
            case "circle":
                d = f"M{n(x - r)} {n(y)}a{n(r)} {n(r)} 0 1 0 {n(2 * r)} 0a{n(r)} {n(r)} 0 1 0 {n(-2 * r)} 0z"  # noqa: E501
            case "square":
                a = r * 0.9
                d = f"M{n(x - a)} {n(y - a)}h{n(2 * a)}v{n(2 * a)}h{n(-2 * a)}z"
            case "triangle":
                a = r * 1.15
                d = f"M{n(x)} {n(y - a)}l{n(a)} {n(1.8 * a)}h{n(-2 * a)}z"
            case _:
                a = r * 1.25
                d = f"M{n(x)} {n(y - a)}l{n(a)} {n(a)}l{n(-a)} {n(a)}l{n(-a)} {n(-a)}z"
        self.path(d, css, tip=tip)

    def svg(self, css: str = "") -> str:
        """The whole picture."""
        about = f"<desc>{safe(self.about)}</desc>" if self.about else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {n(self.width)} '
            f'{n(self.height)}" width="{n(self.width)}" height="{n(self.height)}" '
            f'class="chart {css}" role="img" aria-label="{attribute(self.title)}">'
            f"{about}{''.join(self._parts)}</svg>"
        )


def n(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def safe(words: str) -> str:
    """Text that is only ever text."""
    return escape_text(words.translate(_CONTROL))


def attribute(words: str) -> str:
    """Text that cannot leave its attribute."""
    return escape(words.translate(_CONTROL), quote=True)


def hue(place: int, *, reference: bool = False) -> str:
    """The class that colours a setting."""
    return "ref" if reference else f"k{place % HUES}"


def dash(place: int, *, reference: bool = False) -> str:
    """The class of a line's dashes: another pattern each time that the hues start again."""
    return "d1" if reference else f"d{place // HUES % 5}"


def _title(tip: str | None) -> str:
    return f"<title>{safe(tip)}</title>" if tip else ""
