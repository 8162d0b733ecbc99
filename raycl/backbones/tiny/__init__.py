"""tiny-CLIP: a CLIP of two million parameters, pre-trained on drawings, that ships with raycl."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""An open_clip `local-dir:` folder, with a vocabulary of its own beside it."""

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
VOCABULARY_FILE = "bpe.txt.gz"
