"""tiny-SD: a Stable Diffusion of four million parameters, trained on drawings, that ships
with raycl."""

from pathlib import Path

PIPELINE = Path(__file__).parent / "weights"
"""A folder as diffusers' `StableDiffusionPipeline.from_pretrained` reads it."""

INDEX_FILE = "model_index.json"
"""Written last: a folder that holds it is finished."""
