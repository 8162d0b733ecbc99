"""What LADA's memory costs to read: 27,000 vectors against 2,000 classes of 16 centres.

The grouped sum is made a few classes at a time, beside a product with a one-hot matrix on a part
of the rows, and beside the text's scores alone. Expectation, written before measuring: below 1 s
of CPU for the text; for the memory sixteen times its product plus an exponential per centre.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from raycl.methods.parts.keys import unit
from raycl.methods.parts.label_memory import Centres

TEST, CLASSES, CENTRES, WIDTH = 27_000, 2_000, 16, 512
CHUNK = 2048
"""Rows that the engine scores at a time."""


def speed(quick: bool) -> dict[str, float]:
    """CPU seconds; of the memory a part is measured, and the rest reckoned."""
    random = torch.Generator().manual_seed(0)
    part = 256 if quick else CHUNK
    x = unit(torch.randn(part, WIDTH, generator=random))
    text = unit(torch.randn(CLASSES, WIDTH, generator=random))
    centres = unit(torch.randn(CLASSES, CENTRES, WIDTH, generator=random))
    memory = Centres(centres, torch.full((CLASSES,), CENTRES))
    owner = one_hot(torch.arange(CLASSES).repeat_interleave(CENTRES), CLASSES).float()
    flat = centres.flatten(0, 1)

    def with_one_hot() -> Tensor:
        return torch.exp(x[:256] @ flat.T - 1) @ owner

    return {
        "text_s": seconds(lambda: 100 * x @ text.T) * TEST / part,
        "memory_s": seconds(lambda: memory.scores(x, 1.0)) * TEST / part,
        "grouped_256_rows_s": seconds(lambda: memory.scores(x[:256], 1.0)),
        "one_hot_256_rows_s": seconds(with_one_hot),
    }


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """CPU seconds of the quickest of a few."""
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    torch.set_num_threads(1)
    cost = speed(parser.parse_args().quick)
    out = {
        "name": "memory_scores",
        "cpu": cost,
        "ratio": cost["one_hot_256_rows_s"] / cost["grouped_256_rows_s"],
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
