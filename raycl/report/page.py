"""The page: one HTML file that needs nothing else, neither network nor server.

Guarantees: whatever the results hold is escaped, and the page's own policy lets no other
script run and no request leave; it works from file://, in both themes, on paper and
without JavaScript; the file appears whole or not at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raycl.errors import DataError
from raycl.report.boards import Board, boards
from raycl.report.canvas import attribute, safe
from raycl.report.palette import DARK, LEVELS, LIGHT, css_variables
from raycl.report.published.against import Against
from raycl.report.published.showing import section
from raycl.report.sections import board_section, slug
from raycl.report.writing import write_whole

_HERE = Path(__file__).parent
_ICON = (
    '<svg width="18" height="18" viewBox="0 0 18 18" aria-hidden="true">'
    '<circle cx="9" cy="9" r="6.6" fill="none" stroke="currentColor" stroke-width="1.5"/>'
    '<path d="M9 2.4a6.6 6.6 0 0 1 0 13.2z" fill="currentColor"/></svg>'
)
_TOGGLE = (
    '<button class="quiet theme" type="button" aria-label="Dark theme" '
    f'title="Light or dark">{_ICON}</button>'
)
_DEFINITIONS = (
    '<svg class="defs" width="0" height="0" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><path d="M0 0V5" class="hatch"/></pattern></defs></svg>'
)


@dataclass
class Parts:
    """What a page is put together from."""

    title: str
    facts: list[str]
    """Short HTML fragments under the title."""
    sections: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    """Anchors and their words."""
    matrices: dict[str, Any] = field(default_factory=dict)
    """What pointing at a heat map's cell tells, by the map's name."""
    foot: str = ""


def write_page(
    results: Sequence[Mapping[str, Any]],
    path: Path,
    title: str = "raycl report",
    paper: Against | None = None,
) -> Path:
    """Write the page of these results (what `raycl run --json` prints) and return its path."""
    write_whole(path, page(results, title, paper).encode("utf-8", errors="replace"))
    return path


def page(
    results: Sequence[Mapping[str, Any]],
    title: str = "raycl report",
    paper: Against | None = None,
) -> str:
    """The page of these results as text, beside a paper's figures where one is given."""
    found = boards(results)
    if not found:
        raise DataError("there is no result to report", do="raycl run, first")
    parts = Parts(title, _facts(found))
    if paper is not None:
        parts.sections.append(section(paper, "paper"))
        parts.links.append(("paper", f"paper: {paper.paper}"))
    for number, board in enumerate(found, start=1):
        anchor = f"board-{number}-{slug(board.name)}"
        about = board_section(board, anchor)
        parts.sections.append(about.html)
        parts.matrices |= about.matrices
        parts.links.append((anchor, board.name))
    parts.foot = _foot(found)
    return html(parts)


def _facts(found: Sequence[Board]) -> list[str]:
    runs = [run for board in found for run in board.runs]
    methods = sum(len(board.settings) for board in found)
    facts = [
        f"<b>{len(runs)}</b> run{'s' * (len(runs) > 1)}",
        f"<b>{methods}</b> method setting{'s' * (methods > 1)}",
        f"<b>{len(found)}</b> label space{'s' * (len(found) > 1)}",
    ]
    days = sorted({str(run["created"])[:10] for run in runs if run.get("created")})
    if days:
        facts.append("run " + safe(days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"))
    return facts


def _foot(found: Sequence[Board]) -> str:
    runs = [run for board in found for run in board.runs]
    used: dict[str, set[str]] = {}
    for run in runs:
        for name, version in (run.get("versions") or {}).items():
            used.setdefault(str(name), set()).add(str(version))
        if run.get("device"):
            used.setdefault("device", set()).add(str(run["device"]))
    words = " · ".join(f"{name} {', '.join(sorted(what))}" for name, what in used.items())
    return (
        "Percent; mean ± sample standard deviation over runs, where there are several. "
        "What is undefined is null, with its reason, never a number. " + safe(words)
    )


def html(parts: Parts) -> str:
    """The whole document."""
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    styles = {"theme-css": _theme_css(), "figure-css": _figure_css(), "page-css": _read("page.css")}
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src '{_digest(script)}'; "
        f"style-src {' '.join(repr(_digest(css)) for css in styles.values())}"
    )
    nav = "".join(f'<a href="#{a}">{safe(words)}</a>' for a, words in parts.links)
    facts = "".join(f"<li>{fact}</li>" for fact in parts.facts)
    sheets = "".join(f'<style id="{name}">{css}</style>\n' for name, css in styles.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{attribute(policy)}">
<title>{safe(parts.title)}</title>
{sheets}<script>{script}</script>
</head>
<body>
<a class="skip" href="#content">Skip to content</a>
{_DEFINITIONS}
<header class="bar"><div class="wrap"><span class="brand">raycl</span>
<nav aria-label="Sections">{nav}</nav>
{_TOGGLE}
</div></header>
<main class="wrap" id="content">
<div class="intro"><h1>{safe(parts.title)}</h1><ul class="facts">{facts}</ul></div>
{"".join(parts.sections)}
<footer>{parts.foot}</footer>
</main>
<script type="application/json" id="matrices">{embedded(parts.matrices)}</script>
</body>
</html>
"""


def embedded(value: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _theme_css() -> str:
    light, dark = css_variables(LIGHT), css_variables(DARK)
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{dark}}}}}\n"
        f"@media screen{{:root[data-theme=light]{{color-scheme:light;{light}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n"
    )


def _figure_css() -> str:
    hues = "".join(f".k{i}{{color:var(--c{i})}}" for i in range(len(LIGHT.hues)))
    ramp = "".join(f".h{i}{{fill:var(--h{i})}}" for i in range(LEVELS))
    hatch = ".hatch{stroke:var(--strong);stroke-width:1;opacity:.6}.defs{position:absolute}"
    return _read("figure.css") + hues + ramp + hatch
