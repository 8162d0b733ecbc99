"""`raycl jobs`: what was sent to a cluster, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from raycl.cli.submit import cluster
from raycl.engine.run import default_store
from raycl.errors import ClusterError, ConfigError, StoreError
from raycl.launch.doing import doing
from raycl.launch.jobs import Job
from raycl.launch.profiles import read_profile
from raycl.launch.sending import ended, follow, sender_of
from raycl.observe.console import Console, say
from raycl.redaction import redacted_lines
from raycl.store.pulses import ALONE, Heard


@click.group()
def jobs() -> None:
    """Commands that were sent to a cluster: list, status, logs, stop, wait."""


@jobs.command("list")
@cluster
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_jobs(cluster: str, as_json: bool) -> None:
    """List the jobs that raycl sent."""
    _show(sorted(sender_of(read_profile(cluster)).jobs(), key=lambda j: j.started), as_json)


@jobs.command()
@click.argument("job", required=False)
@click.option("--cluster", metavar="NAME|FILE", help="Ask the cluster too: a profile, or a file.")
@click.option("--store", help="Where it tells what it does [the profile's, else RAYCL_STORE].")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def status(job: str | None, cluster: str | None, store: str | None, as_json: bool) -> None:
    """What JOB is doing: an id, its beginning, or a command's name for its last attempt.

    Task, stage, pace and time left come from the store, from any machine that reads it; without
    --cluster that is all, and without JOB it is every command there that beat within a day.
    """
    if cluster is None:
        _tell(doing(store or default_store(), job), as_json)
        return
    if job is None:
        raise ConfigError("which job?", do="`raycl jobs list` shows all")
    profile = read_profile(cluster)
    found: Job | None = None
    try:
        found = sender_of(profile).job(job)
    except ClusterError as error:
        say(f"raycl: {error}", err=True)
    beats: list[Heard] = []
    try:
        beats = doing(store or profile.execution.store, found.id if found else job)
    except StoreError as error:
        say(f"what it does cannot be told: {error}", err=True)
    _together(found, beats, as_json)


def _together(job: Job | None, beats: list[Heard], as_json: bool) -> None:
    """What the cluster says of a job, and what the job itself says in the store."""
    if job is None:
        _tell(beats, as_json)
    elif as_json:
        said = [beat.as_json() for beat in beats]
        click.echo(json.dumps({**job.as_json(), "doing": said}))
    else:
        _show([job], as_json=False)
        for beat in beats:
            say(f"  {beat.sentence()}")


def _tell(beats: list[Heard], as_json: bool) -> None:
    for beat in beats:
        whose = "" if beat.job == ALONE else f"{beat.job}: "
        if as_json:
            click.echo(json.dumps(beat.as_json()))
        else:
            say(whose + beat.sentence())
    if not beats:
        say("nothing beats there", err=True)


@jobs.command()
@click.argument("job")
@cluster
@click.option("-f", "--follow", "following", is_flag=True, help="Until the job ends.")
def logs(job: str, cluster: str, following: bool) -> int:
    """Print what JOB printed; with -f, exit as it does."""
    profile = read_profile(cluster)
    if following:
        return follow(job, profile, _print)
    sender = sender_of(profile)
    for text in redacted_lines(sender.log(sender.job(job).id, follow=False)):
        _print(text)
    return 0


@jobs.command()
@click.argument("job")
@cluster
def stop(job: str, cluster: str) -> None:
    """Ask JOB to save and stop; the same submit later continues."""
    sender = sender_of(read_profile(cluster))
    found = sender.job(job)
    if found.live:
        sender.stop(found.id)
        say(f"{found.id} is told to stop", err=True)
    else:
        say(f"{found.id} has ended: {found.state}", err=True)


@jobs.command()
@click.argument("job")
@cluster
def wait(job: str, cluster: str) -> int:
    """Wait for JOB, keep its log in the store, and exit with its exit code."""
    profile = read_profile(cluster)
    sender = sender_of(profile)
    found = ended(sender.job(job).id, profile, sender, tell=lambda line: say(line, err=True))
    say(f"{found.id}: {found.state} {found.detail}".rstrip(), err=True)
    return found.exit_code


def _print(text: str) -> None:
    click.echo(text, nl=False)


def _show(found: Iterable[Job], as_json: bool) -> None:
    if as_json:
        for job in found:
            click.echo(json.dumps(job.as_json()))
        return
    table = Table(box=SIMPLE_HEAD)
    for name in ("job", "state", "code", "started", "detail"):
        table.add_column(name, no_wrap=name != "detail")
    for job in found:
        code = "–" if job.code is None else str(job.code)
        table.add_row(job.id, job.state, code, job.started[:19], Text(job.detail))
    Console().print(table, highlight=False)
