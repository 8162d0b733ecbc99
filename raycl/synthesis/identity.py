"""What a chunk of images is called in the store. Needs no torch.

Its name is made of the model's content, of the spec and of its own prompts and seeds. So the
same prompts find their images whatever else is asked for with them, and a model that was moved
or copied finds them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raycl.config.spec import described, digest, identity
from raycl.config.synthesis import Synthesis
from raycl.store.artefact import ArtefactSpec
from raycl.synthesis.models import model_digest
from raycl.synthesis.prompts import Prompt

PAINTING_REVISION = 1
"""Raised when a pixel, or what is stored of it, is computed otherwise."""
KIND = "images"
IMAGES, NOTES = "images.arrow", "notes.json"


@dataclass(frozen=True, repr=False)
class Chunk:
    """Some prompts, where they stand among all, and the name of their images: a work item."""

    artefact: ArtefactSpec
    prompts: tuple[Prompt, ...]
    first: int

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        return f"images {self.first + 1} to {self.first + len(self)}"


def chunks_of(prompts: Sequence[Prompt], spec: Synthesis) -> list[Chunk]:
    """The prompts in their order, a pass each."""
    model = model_digest(spec)
    size = spec.chunk
    cut = [(first, tuple(prompts[first : first + size])) for first in range(0, len(prompts), size)]
    return [Chunk(_artefact(own, spec, model), own, first) for first, own in cut]


def _artefact(prompts: Sequence[Prompt], spec: Synthesis, model: str) -> ArtefactSpec:
    content = digest([[prompt.text, prompt.seed] for prompt in prompts])
    named = identity(spec)
    named.pop("model", None)  # its content is a parent
    shown = described(spec)
    shown.pop("model", None)
    return ArtefactSpec(
        kind=KIND,
        name=prompts[0].text,
        identity={"synthesis": named, "images": len(prompts)},
        described={"synthesis": shown, "images": len(prompts)},
        revision=PAINTING_REVISION,
        parents=(model, content),
    )
