"""What the store adds to a unit of work, against writing the same bytes to a bare file.

Expectation, written before measuring: a put is two file writes with a rename, a SHA-256 and
a record, so a small artefact should cost about a millisecond; at 64 MiB the checksum at some
1.5 GB/s should dominate, and a put stay within three times a bare write.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Store


def median_ms(work: Callable[[int], Any], repeats: int) -> float:
    """Median milliseconds of a call that gets its own number."""
    taken = []
    for i in range(repeats):
        began = time.perf_counter()
        work(i)
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def spec(size: int, i: int) -> ArtefactSpec:
    return ArtefactSpec("bench", f"size-{size}", {"i": i}, {"i": i})


def measure(folder: Path, size: int, repeats: int) -> dict[str, float]:
    """Put, hit and get-or-make of one size, and a bare write and read."""
    data = os.urandom(size)
    store = Store.open(str(folder / "store"))
    bare = folder / "bare"
    out = {
        "bare_write_ms": median_ms(lambda i: bare.write_bytes(data), repeats),
        "bare_read_ms": median_ms(lambda i: bare.read_bytes(), repeats),
        "put_ms": median_ms(lambda i: store.put(spec(size, i), {"x.bin": data}), repeats),
        "hit_ms": median_ms(lambda i: store.get(spec(size, i)), repeats),
        "leased_make_ms": median_ms(
            lambda i: store.get_or_make(spec(size, i + repeats), lambda: {"x.bin": data}), repeats
        ),
    }
    for i in range(2 * repeats):
        store.discard(spec(size, i))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        small = measure(Path(folder), 4096, 50 if quick else 500)
        large = measure(Path(folder), 64 * 2**20, 3 if quick else 9)
    out = {
        "name": "store_cost",
        "4_KiB": small,
        "64_MiB": large,
        "ratio": large["put_ms"] / large["bare_write_ms"],
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
