"""`raycl methods`: what there is, and whether your own holds the contract."""

from __future__ import annotations

import inspect
from typing import Any

import click
from rich.table import Table

from raycl.config.loading import check, merge, parse_setting
from raycl.config.methods import BUILT_IN, UserMethod, kind_of, parse_method
from raycl.config.spec import Spec, described
from raycl.errors import ConfigError
from raycl.observe.console import Console


@click.command()
@click.option("--check", "target", metavar="FILE[:CLASS]", help="Check a method of your own.")
@click.option("--set", "settings", multiple=True, metavar="A=V", help="An option of your method.")
def methods(target: str | None, settings: tuple[str, ...]) -> int:
    """List the methods and their options; or check that a method of yours holds the contract."""
    if target is not None:
        return _check(target, merge(parse_setting(text) for text in settings))
    table = Table("method", "what it is", "options and defaults")
    for spec in BUILT_IN:
        about = inspect.cleandoc(spec.__doc__ or "").splitlines()[0]
        table.add_row(kind_of(spec), about, _options(spec()))
    table.add_row("FILE.py", "A method class of your own", "docs/own-method.md")
    Console().print(table, highlight=False)
    return 0


def _options(spec: Spec) -> str:
    values = {k: v for k, v in described(spec).items() if k not in ("kind", "revision")}
    return "\n".join(f"{name} = {value}" for name, value in _flat(values)) or "–"


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            out += _flat({k: v for k, v in value.items() if k != "revision"}, f"{prefix}{name}.")
        else:
            out.append((prefix + name, value))
    return out


def _check(target: str, options: dict[str, Any]) -> int:
    from raycl.methods.build import build_method
    from raycl.methods.conformance import check_method, synthetic_setting

    tree = parse_method(target)
    if tree["kind"] != "python":
        raise ConfigError("name a file of your own", got=target, do="path/to/mine.py[:Class]")
    spec = check(UserMethod, {**tree, "options": options})
    build_method(spec, synthetic_setting())
    findings = check_method(lambda setting: build_method(spec, setting))
    console = Console()
    for finding in findings:
        mark = "[green]ok[/]  " if finding.ok else "[red]FAIL[/]"
        console.print(f"{mark} {finding.what}", highlight=False)
        if finding.fault:
            console.print(f"       {finding.fault}", markup=False, highlight=False)
    return 0 if all(finding.ok for finding in findings) else 1
