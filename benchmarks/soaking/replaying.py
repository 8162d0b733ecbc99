"""A trainer that replays from packs which the manifest of a cluster owns.

python -m soaking.replaying --store URI --address HOST:PORT      prints one JSON object

Every epoch lets go of its packs and asks for them again, so that it lives on whatever the
manifest can still give, or read from the store.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time

from raycl.compute.ray_pool import RayPool
from raycl.compute.ray_session import connect
from raycl.config.seeds import rng
from raycl.replay.buffer import ReplayBuffer
from raycl.store.store import Store

CLASSES, ROWS, WIDTH, BATCH = 8, 256, 32, 64
EPOCHS, PAUSE = 40, 0.2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    parser.add_argument("--address", required=True)
    asked = parser.parse_args()
    seen, rows = hashlib.sha256(), 0
    with connect(asked.address), RayPool(workers=1) as pool:
        buffer = ReplayBuffer(pool, Store.open(asked.store), shared=True, pack_bytes=100_000)
        for class_id in range(CLASSES):
            vectors = rng(0, "soak", class_id).normal(size=(ROWS, WIDTH)).astype("float32")
            buffer.add(0, class_id, vectors)
        buffer.seal()
        for epoch in range(EPOCHS):
            for x, y in buffer.batches(BATCH, seed=epoch):
                seen.update(x.numpy().tobytes() + y.numpy().tobytes())
                rows += len(y)
            buffer.release()
            time.sleep(PAUSE)
    print(json.dumps({"rows": rows, "digest": seen.hexdigest()}))


if __name__ == "__main__":
    main()
