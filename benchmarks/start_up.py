"""Start-up: what a command costs before it works, against bare interpreters.

Expectation, written before measuring: `raycl --help` costs click and pydantic-free imports,
under 0.5 s; a run that the store can answer costs pydantic, NumPy and one file digest, under
2 s and without torch, which alone takes longer than that to import on a small machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUN = ["-m", "raycl", "run", "slda", "--stream", "digits", "--json"]


def seconds(arguments: list[str], repeats: int, **environment: str) -> float:
    """Median wall-clock seconds of a Python process."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments],
            check=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    repeats = 3 if parser.parse_args().quick else 11
    with tempfile.TemporaryDirectory() as folder:
        store = {"RAYCL_STORE": str(Path(folder) / "store")}
        bare = seconds(["-c", "pass"], repeats)
        torch = seconds(["-c", "import torch"], repeats)
        help_text = seconds(["-m", "raycl", "--help"], repeats)
        first = seconds(RUN, 1, **store)
        again = seconds(RUN, repeats, **store)
    out = {
        "name": "start_up",
        "repeats": repeats,
        "python_s": bare,
        "import_torch_s": torch,
        "help_s": help_text,
        "first_run_s": first,
        "second_run_s": again,
        "ratio": again / torch,
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
