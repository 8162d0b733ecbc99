"""The `raycl` command and its exit codes.

0 done, 1 failed, 2 bad input, 130 interrupted, 75 stopped but resumable. Errors that raycl
raises on purpose are shown without a traceback; anything else is a bug and shows one.
What is printed leaves out the values of secret variables (see `raycl.redaction`).
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO, cast

import click

from raycl.errors import RayclError
from raycl.printable import plain_lines
from raycl.redaction import Redacting, secrets_here

COMMANDS = {
    "demo": "The whole story offline on this machine: a few methods, one leaderboard.",
    "data": "Data sets by name: list, prepare, verify.",
    "run": "Run one method on one stream; the same command again continues or answers.",
    "embed": "Embed the images of a stream, once; runs find them in the store.",
    "caption": "Caption the images of each class; what is kept of them is text.",
    "fit": "Fit a generator to each class of a set of vectors, in parallel, once.",
    "synth": "Make images from prompts with a text-to-image model, in parallel, once.",
    "sweep": "Search: many runs that share their work; the same command again continues.",
    "spaces": "List, show or check search spaces.",
    "submit": "Send a command to a cluster: Ray, KubeRay, Slurm, AWS, GCP, your own hosts.",
    "jobs": "What was sent to a cluster: list, status, logs, stop, wait.",
    "cluster": "Clusters that stay: up, tunnel, down, status.",
    "compare": "Compare two runs, paired on their stored predictions.",
    "report": "Leaderboard and figures of finished runs: page, pictures, tables.",
    "table": "The leaderboard for a paper: LaTeX or Markdown, intervals, protocol below.",
    "import": "A result measured elsewhere, from CSV or a log of mammoth, for the report.",
    "diagnose": "What may be wrong with a run, from its stored predictions.",
    "methods": "List the methods and their options, or check your own.",
    "store": "Look into the store: ls, show, verify, pin, gc.",
    "tiny": "Make the tiny offline models that ship with raycl, from nothing.",
    "doctor": "Check this machine: versions, Ray, GPU, memory, store.",
}


_MODULES = {"import": "importing"}
"""Where a command's own name is no name of a module."""


class Lazy(click.Group):
    """Imports a subcommand's module when that subcommand is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = _MODULES.get(cmd_name, cmd_name)
        module = importlib.import_module(f"raycl.cli.{name}")
        command: click.Command = getattr(module, name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            from raycl.config.loading import suggest

            raise click.UsageError(f"no command {args[0]!r}: {suggest(args[0], list(COMMANDS))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Written here, so that help imports no subcommand.
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="raycl")
def cli() -> None:
    """Continual-learning experiments with CLIP on Ray."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the code that says how it went."""
    secrets = secrets_here()
    if secrets:
        sys.stdout = cast(TextIO, Redacting(sys.stdout, secrets))
        sys.stderr = cast(TextIO, Redacting(sys.stderr, secrets))
    sys.exit(code_of(args))


def code_of(args: Sequence[str] | None = None) -> int:
    """The exit code of a command line."""
    try:
        value: Any = cli.main(args, prog_name="raycl", standalone_mode=False)
    except RayclError as error:
        click.echo(plain_lines(f"raycl: {error}"), err=True)
        return error.exit_code
    except click.ClickException as error:
        told = io.StringIO()
        error.show(told)
        click.echo(plain_lines(told.getvalue()), err=True, nl=False)
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("raycl: interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output went away; nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return value if isinstance(value, int) else 0
