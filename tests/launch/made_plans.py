"""Commands for tests of launch, and the golden plans: run this file to write them anew."""

from __future__ import annotations

import difflib
from pathlib import Path

from raycl.cli.submit import command_of
from raycl.config.clusters import LauncherProfile, Profile, profile_of
from raycl.launch.command import Command
from raycl.launch.launcher import launcher_file
from raycl.launch.plan import Plan
from raycl.launch.profiles import read_profile
from raycl.launch.render import render

GOLDEN = Path(__file__).parent / "golden"
SENT = ("laptop", "ray", "kuberay", "kuberay-shared", "slurm")
LAUNCHED = ("aws", "gcp", "onprem")
HOSTILE = (
    "a b",
    "it's",
    'say "hi"',
    "$(touch hacked)",
    "`touch hacked`",
    "two\nlines",
    "; touch hacked",
    "$HOME",
    "back\\slash",
    "*",
    "ünï",
    "# no comment",
    "!event",
    "%j",
)


def command(*args: str, profile: Profile | None = None) -> Command:
    """The command as `raycl submit` takes it."""
    return command_of(args, profile or profile_of({}))


def plan(*args: str, profile: Profile | str, attempt: int = 1) -> Plan:
    """The plan of a command for a profile, or for a shipped one of that name."""
    found = read_profile(profile) if isinstance(profile, str) else profile
    return render(command(*args, profile=found), found, attempt)


def current(name: str) -> str:
    """What is rendered today for a shipped profile."""
    profile = read_profile(name)
    if isinstance(profile, LauncherProfile):
        return launcher_file(profile)
    args = ("run", "slda", "--stream", "digits", "--set", "method.shrinkage=0.1")
    return plan(*args, profile=profile).text() + "\n"


def difference(name: str) -> str:
    """Between the golden text and today's, as a diff."""
    before = (GOLDEN / f"{name}.txt").read_text().splitlines()
    return "\n".join(difflib.unified_diff(before, current(name).splitlines(), lineterm=""))


if __name__ == "__main__":
    for each in (*SENT, *LAUNCHED):
        (GOLDEN / f"{each}.txt").write_text(current(each))
