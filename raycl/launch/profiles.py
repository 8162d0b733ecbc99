"""Profiles by name: a shipped one in `clusters/`, or a file."""

from __future__ import annotations

from raycl import shipped
from raycl.config.clusters import Profile, profile_of
from raycl.config.loading import read_file


def read_profile(name: str) -> Profile:
    """The checked profile of a shipped name or of a file."""
    return profile_of(read_file(shipped.find(name, "clusters")))
