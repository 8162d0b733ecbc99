"""BLIP (Li et al. 2022) through transformers, as a captioner.

Beam search from a fixed prefix, never sampling; the image is brought to the model's own size by
its processor. Every pass has one shape, its last batch filled with blanks. Weights are read as
tensors only, and no code of a checkpoint is ever run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from raycl.captions.captioner import Said
from raycl.captions.checkpoint import checkpoint_folder
from raycl.config.captions import BLIPCaptioner
from raycl.errors import ConfigError, DataError

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class BLIP:
    """Holds the model and its processor."""

    def __init__(self, spec: BLIPCaptioner, device: torch.device) -> None:
        if spec.precision == "fp16" and device.type == "cpu":
            raise ConfigError(
                "half precision is for GPUs: a CPU has no arithmetic of its own for it",
                got="captioner.precision=fp16 on a CPU",
                do="set it to bf16 or fp32",
            )
        self.spec, self.device, self.batch = spec, device, spec.batch
        folder = checkpoint_folder(spec.model)
        self._model, self._processor = _load(folder)
        self._type = TYPES[spec.precision]
        self._model = self._model.to(device, self._type)

    @torch.no_grad()
    def say(self, name: str, images: Sequence[Image.Image]) -> list[Said]:
        blanks = [Image.new("RGB", images[-1].size)] * (self.batch - len(images))
        asked = {"text": [self.spec.prefix] * self.batch} if self.spec.prefix else {}
        inputs = self._processor(images=[*images, *blanks], return_tensors="pt", **asked)
        pixels = inputs.pop("pixel_values").to(self.device, self._type)
        words = {key: value.to(self.device) for key, value in inputs.items() if key in _WORDS}
        found = self._model.generate(
            pixel_values=pixels,
            **words,
            num_beams=self.spec.beams,
            do_sample=False,
            min_length=self.spec.shortest,
            max_length=self.spec.longest,
            return_dict_in_generate=True,
            output_scores=True,
        )
        # Behind the mark that every caption begins with, which not every tokeniser calls special.
        texts = self._processor.batch_decode(found.sequences[:, 1:], skip_special_tokens=True)
        scores = getattr(found, "sequences_scores", None)  # of beams only
        numbers = [None] * len(texts) if scores is None else scores.float().cpu().tolist()
        return [
            Said(" ".join(text.split()), score)
            for text, score in zip(texts[: len(images)], numbers, strict=False)
        ]


_WORDS = ("input_ids", "attention_mask")


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import BlipForConditionalGeneration, BlipProcessor
    from transformers.utils import logging

    untyped: Any = logging
    untyped.disable_progress_bar()  # ours is the observer's
    try:
        processor = BlipProcessor.from_pretrained(folder, local_files_only=True)
        loaded: Any = BlipForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, weights_only=True, output_loading_info=True
        )
    except Exception as error:  # whatever a broken folder makes the readers say
        raise DataError(
            f"the captioning model cannot be loaded: {type(error).__name__}: {_first(error)}",
            got=str(folder),
            do="check that the folder is whole and holds a BLIP that captions",
        ) from error
    model, told = loaded
    if told["missing_keys"]:
        raise DataError(
            f"the captioning model lacks {len(told['missing_keys'])} of its weights",
            got=f"{folder}: {sorted(told['missing_keys'])[0]} …",
            do="check that the weights are those of a BLIP that captions",
        )
    return model.eval().requires_grad_(False), processor


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
