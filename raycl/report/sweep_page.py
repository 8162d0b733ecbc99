"""The page of a sweep: what was searched, what won, what it cost, how to make it again.

Drawn from plain data; it knows nothing of how a sweep is driven or stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raycl.report.canvas import attribute, safe
from raycl.report.charts import NARROW, WIDE
from raycl.report.page import Parts, html
from raycl.report.sections import breakable, slug
from raycl.report.sweep_charts import (
    PLAIN,
    Told,
    curves,
    front,
    goals,
    importance,
    parallel,
    slice_of,
    words_of,
)
from raycl.report.writing import write_whole

COSTS = ("state_mib", "seconds")


def write_sweep_page(sweeps: Sequence[Told], path: Path, title: str | None = None) -> Path:
    """Write the page of these sweeps and return its path."""
    write_whole(path, sweep_page(sweeps, title).encode("utf-8", errors="replace"))
    return path


def sweep_page(sweeps: Sequence[Told], title: str | None = None) -> str:
    """The page as text."""
    names = ", ".join(str(told["sweep"]) for told in sweeps)
    words = title or f"Sweep{'s' * (len(sweeps) > 1)} {names}"
    trials = sum(told["trials"] for told in sweeps)
    parts = Parts(words, [f"<b>{trials}</b> trial{'s' * (trials != 1)}"])
    for number, told in enumerate(sweeps, start=1):
        anchor = f"sweep-{number}-{slug(str(told['sweep']))}"
        parts.sections.append(_section(told, anchor))
        parts.links.append((anchor, str(told["sweep"])))
    parts.foot = (
        "Trials are judged by the validation split of the training data unless it says otherwise; "
        "the test data is measured once, for the best. What is undefined is –."
    )
    return html(parts)


def _section(told: Told, anchor: str) -> str:
    facts = "".join(f"<li>{fact}</li>" for fact in _facts(told))
    about = f'<p class="about">{safe(str(told["about"]))}</p>' if told["about"] else ""
    return (
        f'<section class="board" id="{anchor}" aria-labelledby="{anchor}-h">'
        f'<h2 id="{anchor}-h">{breakable(str(told["sweep"]))}</h2><ul class="facts">{facts}</ul>'
        f'<p class="lead">{_lead(told)}</p>{about}{_figures(told, anchor)}'
        f"{_best(told)}{_table(told, f'{anchor}-table')}{_commands(told)}</section>"
    )


def _facts(told: Told) -> list[str]:
    states = ", ".join(f"{count} {state}" for state, count in told["states"].items())
    seeds = len(told["seeds"])
    size = f"<b>{told['samples']}</b> samples × <b>{seeds}</b> seed{'s' * (seeds != 1)}"
    facts = [
        f"{size}: {safe(states)}",
        f"<b>{told['task_steps']:,}</b> tasks learnt",
        f"sampler <b>{safe(told['sampler'])}</b>, scheduler <b>{safe(told['scheduler'])}</b>",
        "judged by the test data" if told["on_test"] else "judged by the validation split",
    ]
    saved, spent = told["seconds_saved"], told["trial_seconds"]
    if saved:
        facts.append(f"the store saved <b>{saved:,.0f} s</b> of work beside {spent:,.0f} s spent")
    return facts


def _lead(told: Told) -> str:
    best = told["best"]
    if best is None:
        return "No sample came through with a value for every objective."
    values = ", ".join(
        _valued(name, value) for name, value in best["values"].items() if value is not None
    )
    text = f"Sample <b>{best['sample']}</b> is the best: {values}"
    tests = [r["metrics"].get("last_pooled") for r in told["test"].values()]
    known = [value for value in tests if value is not None]
    if known:
        text += f"; on the test data it ends at <b>{sum(known) / len(known):.1f} %</b>"
    if len(goals(told)) > 1:
        front = len(told["front"])
        text += f". {front} sample{'s are' if front != 1 else ' is'} dominated by none"
    return text + "."


def _valued(metric: str, value: float) -> str:
    name, _, unit = words_of(metric).partition(", ")
    return f"{safe(name)} <b>{f'{value:.4g} {safe(unit)}'.rstrip()}</b>"


Draw = Callable[[float], str | None]


def _figures(told: Told, anchor: str) -> str:
    goal = goals(told)[0]["metric"]
    wide = _card(
        lambda w: parallel(told, 2.1 * w if w == WIDE else w),
        f"{anchor}-parallel",
        "Parallel coordinates",
        f"One line per sample, from its options to {goal}.",
    )
    cards = [
        _card(lambda w: curves(told, w), f"{anchor}-curves", "After each task",
              "Blue: the best. Dashed: pruned, or put aside before its last task."),
        _card(lambda w: importance(told, w), f"{anchor}-importance", "Importance",
              f"Share of the variance of {goal} that each axis explains (fANOVA)."),
    ]  # fmt: skip
    for cost in COSTS:
        title = f"{goal.replace('_', ' ')} against {PLAIN[cost]}"
        cards.append(
            _card(
                _front(told, cost),
                f"{anchor}-{cost}",
                title,
                "The line joins what no cheaper one reaches.",
            )
        )
    for axis in told["axes"]:
        name = f"{anchor}-slice-{slug(axis['path'])}"
        cards.append(_card(_slice(told, axis), name, f"{goal} over {axis['path']}", ""))
    return f'{wide}<div class="grid level">{"".join(cards)}</div>'


def _front(told: Told, cost: str) -> Draw:
    return lambda width: front(told, cost, width)


def _slice(told: Told, axis: Mapping[str, Any]) -> Draw:
    return lambda width: slice_of(told, axis, width)


def _card(draw: Draw, name: str, title: str, note: str) -> str:
    """A figure with its caption and a button that saves it; nothing if there is no figure."""
    wide, narrow = draw(WIDE), draw(NARROW)
    if wide is None or narrow is None:
        return ""
    words = f'<p class="note">{safe(note)}</p>' if note else ""
    return (
        f'<figure id="{name}"><figcaption><h3>{safe(title)}</h3>{words}</figcaption>'
        f'<button class="quiet" type="button" data-save="{name}" '
        f'aria-label="Save {attribute(title)} as SVG" title="Save as SVG">SVG</button>'
        f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div></figure>'
    )


def _best(told: Told) -> str:
    best = told["best"]
    if best is None:
        return ""
    rows = "".join(
        f"<dt>{safe(path)}</dt><dd>{safe(json.dumps(value))}</dd>"
        for path, value in best["params"].items()
    )
    return (
        '<div class="part"><h3>The best</h3></div>'
        f"<dl>{rows}</dl>"
        f"<pre>raycl report {safe(str(told['sweep']))} --best best.yaml\n"
        "raycl run --config best.yaml</pre>"
    )


def _table(told: Told, name: str) -> str:
    metrics = list(dict.fromkeys([*(o["metric"] for o in told["objectives"]), *COSTS]))
    paths = [axis["path"] for axis in told["axes"]]
    heads = ["sample", "state", *metrics, *paths]
    head = "".join(_head(word, i, goals(told)[0]) for i, word in enumerate(heads))
    place = {number: i for i, number in enumerate(told["order"])}
    ordered = sorted(told["all"], key=lambda s: (place.get(s["number"], 10**9), s["number"]))
    body = "".join(_row(sample, metrics, paths, told) for sample in ordered)
    return (
        '<div class="part"><h3>Samples</h3><button class="quiet" type="button" '
        f'data-copy="{name}">Copy table</button></div>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Samples">'
        f'<table class="sortable" id="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _head(word: str, place: int, goal: Mapping[str, Any]) -> str:
    first = "ascending" if place < 2 else "descending"
    down = "descending" if goal["maximises"] else "ascending"
    sort = f' aria-sort="{down}"' if word == goal["metric"] else ""
    text = " data-text" if place == 1 else ""
    shown = safe(word.removeprefix("method.").replace("_", " "))
    return (
        f'<th scope="col" data-first="{first}"{text}{sort}>'
        f'<button type="button" title="{attribute(word)}">{shown}</button></th>'
    )


def _row(
    sample: Mapping[str, Any], metrics: Sequence[str], paths: Sequence[str], told: Told
) -> str:
    best = sample["number"] == told["best_sample"]
    cells = [f'<th scope="row" data-v="{sample["number"]}">{sample["number"]}</th>']
    why = next((t["why"] for t in sample["trials"] if t["why"]), None)
    tip = f' title="{attribute(why)}"' if why else ""
    cells.append(f'<td data-v="{sample["state"]}"{tip}>{sample["state"]}</td>')
    for metric in metrics:
        value = sample["values"].get(metric)
        shown = "–" if value is None else f"{value:.4g}"
        css = ' class="best"' if best else ""
        cells.append(f'<td{css} data-v="{"" if value is None else value}">{shown}</td>')
    for path in paths:
        value = sample["params"].get(path)
        there = path in sample["params"]
        shown = f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else ""
        cells.append(f'<td data-v="{number}">{safe(shown) if there else "–"}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _commands(told: Told) -> str:
    lines = [
        f"# {trial['name']}: {trial['state']}\n{trial['command']}"
        for sample in told["all"]
        for trial in sample["trials"]
    ]
    text = _lines("\n".join(lines))
    return (
        "<details><summary>Make any trial again</summary><div>"
        f"<pre>{text}</pre></div></details>"
        "<details><summary>The space</summary><div>"
        f"<pre>{_lines(json.dumps(told['space'], indent=1))}</pre></div></details>"
    )


def _lines(text: str) -> str:
    """Escaped, with its line ends, which `safe` takes for control characters."""
    return "\n".join(safe(line) for line in text.split("\n"))
