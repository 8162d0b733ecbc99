"""Five thousand classes of 512 numbers fit in 2 GiB: learnt and scored in a new process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

WORLD = """
import torch
torch.set_num_threads(1)
from pathlib import Path
from raycl.compute.local_pool import LocalPool
from raycl.config.streams import Validation
from raycl.methods.context import Context
from raycl.methods.method import Setting
from raycl.methods.parts.keys import unit
from raycl.observe.events import nobody
from raycl.streams.stream import Samples, Task

classes, old, width = 5000, 4500, 512
text = unit(torch.randn(classes, width, generator=torch.Generator().manual_seed(0)))
setting = Setting(tuple(map(str, range(classes))), text, torch.ones(classes, dtype=torch.bool),
                  100.0, 0, Validation(seed=0), torch.device("cpu"))

def learn_last(method, each):
    y = torch.arange(old, classes).repeat_interleave(each)
    x = text[y] + 0.03 * torch.randn(len(y), width)
    samples = Samples(x, y, y.numpy())
    method.seen = tuple(range(classes))
    task = Task(9, method.seen[old:], samples, samples, samples, samples)
    method.learn(task, Context(9, LocalPool(), nobody))
    scores = method.union_scores(x[:256])
    assert scores.shape == (256, classes) and bool(torch.isfinite(scores.amax(dim=1)).all())
"""

LADA = """
from raycl.config.lada import LADA
from raycl.methods.lada import LADAMethod

def learnt(ids):
    n = len(ids)
    return {"classes": ids, "text": text[ids], "weight": torch.full((n, 4), 0.25),
            "centres": unit(text[ids, None] + 0.03 * torch.randn(n, 16, width)),
            "sizes": torch.full((n,), 16), "variance": torch.full((n, 4), 1e-3),
            "mean": text[ids, None] + 0.03 * torch.randn(n, 4, width)}

method = LADAMethod(LADA(epochs=1, batch=1024, prototype_batch=1024), setting)
method.restore({f"tasks.{t}.{name}": tensor for t in range(9)
                for name, tensor in learnt(torch.arange(500 * t, 500 * (t + 1))).items()})
learn_last(method, 2)
"""

AUTO_SEED = """
from raycl.config.autoseed import Adapt, AutoSeed, SeedUpdate
from raycl.methods.autoseed import AutoSeedMethod
from raycl.methods.parts.seeds import Seeds

spec = AutoSeed(per_class=2, update=SeedUpdate(steps=1, inner_steps=5),
                adapt=Adapt(epochs=1, batch=1024))
method = AutoSeedMethod(spec, setting)
ids = torch.arange(old)
method.memory.groups = [Seeds(text[ids], text[ids], ids)]
# Seeds that differ, so that thousands of them have to be judged.
method.generator.tensors["weight.2"].normal_(std=0.3)
learn_last(method, 3)
kept = torch.cat([group.y for group in method.memory.groups])
assert sorted(kept.tolist()) == list(range(classes)), len(kept)
"""

# Not ru_maxrss, which a child takes over from the process that starts it.
PEAK = """
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize("method", [LADA, AUTO_SEED], ids=["lada", "autoseed"])
def test_five_thousand_classes_fit_in_two_gib(method: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WORLD + method + PEAK)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) << 10 < 2 << 30
