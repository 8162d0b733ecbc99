"""What the jobs of a soak work on: a set of vectors, pictures, a small Stable Diffusion, prompts.

python -m soaking.materials FOLDER      the same bytes wherever and whenever it is called

In a process of its own, because the parent should not hold torch for an hour.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

VECTORS, PICTURES, PAINTER, PROMPTS = "set.npz", "pets", "painter", "prompts.txt"
CLASSES = 6


def write(folder: Path) -> None:
    from raycl.synthesis.random_models import write_random_pipeline
    from tests.embedding import made_images
    from tests.streams.made_sets import arrays, save_npz

    save_npz(folder / VECTORS, arrays(classes=CLASSES, train=20, noise=1.0))
    made_images.CLASSES = ("cat", "dog", "fish", "bird")
    made_images.save_folder(folder / PICTURES)
    write_random_pipeline(folder / PAINTER, "small")
    (folder / PROMPTS).write_text("".join(f"a photo of {n} things\n" for n in range(12)))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
