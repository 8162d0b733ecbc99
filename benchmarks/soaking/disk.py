"""A small disk for the stores of a soak: a tmpfs that nobody else sees and that goes by itself.

The soak starts itself again in a mount namespace of its own, so that what it mounts is gone
with its last process, however that ends. Where the system does not allow it, disks cannot be
filled, and the reason is told.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

INSIDE = "RAYCL_SOAK_NAMESPACE"
SIZE_MIB = 96


def enter_namespace() -> str | None:
    """Starts this program again inside; returns there with None, or with a reason why not."""
    if os.environ.pop(INSIDE, None):
        return None
    program = shutil.which("unshare")
    if program is None:
        return "there is no unshare, of util-linux"
    words = [program, "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",))]
    tried = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return tried.stderr.strip() or "mounting is not allowed here"
    os.environ[INSIDE] = "1"
    return os.execv(program, [*words, sys.executable, *sys.orig_argv[1:]])


def mount(folder: Path) -> None:
    """A new small disk on a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={SIZE_MIB}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "soak", str(folder)], check=True)


def unmount(folder: Path) -> None:
    """Gone at once, though something may still have it open."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
