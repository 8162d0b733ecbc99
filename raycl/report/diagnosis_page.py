"""The page of one diagnosis: findings with their thresholds, and where samples end up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raycl.report.canvas import safe
from raycl.report.findings import Diagnosis, Finding
from raycl.report.page import Parts, html
from raycl.report.sections import breakable, figure_card, scale
from raycl.report.writing import write_whole

WORDS = {"good": "fine", "watch": "watch", "bad": "problem"}
"""Verdicts as people read them."""


def write_diagnosis(diagnosis: Diagnosis, path: Path) -> Path:
    """Write the page and return its path."""
    write_whole(path, diagnosis_page(diagnosis).encode("utf-8", errors="replace"))
    return path


def diagnosis_page(diagnosis: Diagnosis) -> str:
    """The page as text."""
    matrices: dict[str, Any] = {}
    cards = "".join(figure_card(f, f"figure-{f.key}", matrices) for f in diagnosis.figures)
    items = "".join(map(_item, diagnosis.findings))
    silent = "".join(
        f"<dt>{safe(what)}</dt><dd>{safe(why)}</dd>" for what, why in diagnosis.not_judged.items()
    )
    section = (
        '<section class="board" id="findings" aria-labelledby="findings-h">'
        f'<h2 id="findings-h">Findings</h2><ul class="findings">{items}</ul>'
        + (f'<div class="part"><h3>Not judged</h3></div><dl>{silent}</dl>' if silent else "")
        + (
            f'<div class="part"><h3>Where test samples end up</h3></div>{scale("share of a task")}'
            if cards
            else ""
        )
        + f'<div class="grid">{cards}</div></section>'
    )
    title = f"Diagnosis of {diagnosis.label}"
    facts = [breakable(diagnosis.stream), breakable(diagnosis.key)]
    foot = "The thresholds are rules of thumb: they point to where to look, and decide nothing."
    return html(Parts(title, facts, [section], [("findings", "Findings")], matrices, foot))


def _item(finding: Finding) -> str:
    details = "".join(f"<li>{safe(line)}</li>" for line in finding.details)
    return (
        f'<li class="finding"><span class="verdict {finding.verdict}">'
        f"{WORDS[finding.verdict]}</span><h3>{safe(finding.title)}</h3>"
        f'<span class="figure">{shown_figure(finding)}</span>'
        f'<p>{safe(finding.text)}</p><p class="note">{safe(_sentence(finding.threshold))}</p>'
        + (f"<ul>{details}</ul>" if details else "")
        + "</li>"
    )


def shown_figure(finding: Finding) -> str:
    """The figure with its unit, as short as it may be."""
    digits = 0 if finding.figure == int(finding.figure) else 2 if "×" in finding.unit else 1
    return f"{finding.figure:.{digits}f} {finding.unit}".replace("-", "−", 1)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."
