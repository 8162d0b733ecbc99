"""Who a process is, so that others can tell whether it still lives.

A process is named by its host (boot and pid namespace), its pid and its start time, so
neither a reboot, a container nor a reused pid is mistaken for it. Where the system does
not tell (no /proc), nothing is known and only a heartbeat speaks for a process.
"""

from __future__ import annotations

import functools
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process of one boot of one host."""

    host: str
    pid: int
    started: int
    host_name: str

    @classmethod
    def this(cls) -> Process:
        pid = os.getpid()
        return cls(_host(), pid, _start_time(pid) or 0, socket.gethostname())

    def is_gone(self) -> bool:
        """Whether it certainly ended; False also where nobody here can know."""
        if self.host != _host() or self.is_here():
            return False
        return _start_time(self.pid) is not None or not _is_hidden(self.pid)

    def is_here(self) -> bool:
        """Whether it certainly lives: on this host, and started when it says."""
        return self.host == _host() and _start_time(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host_name}"


@functools.cache
def _host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"unknown/{secrets.token_hex(8)}"


def _is_hidden(pid: int) -> bool:
    """Whether a process is another user's, which /proc may be told not to show."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; None if it is dead or a zombie."""
    try:
        # The command in parentheses may itself hold spaces and parentheses.
        state, *rest = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in (b"Z", b"X") else int(rest[18])
