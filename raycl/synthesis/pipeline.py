"""A pipeline of diffusers as a function of prompts and seeds: what a worker holds.

Guarantees: every pass has one shape, its last one padded; each image starts from its own
generator on the CPU, handed over as an argument; each distinct prompt is encoded once, alone; so
an image depends on its prompt, its seed and the spec, and not on its neighbours. A prompt that
is longer than the text tower reads is cut, and how much of it is told.
"""

from __future__ import annotations

import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raycl.compute.stopping import never
from raycl.config.synthesis import Synthesis
from raycl.errors import ConfigError, DataError, MethodError, StoppedError
from raycl.synthesis.models import ModelFiles, model_files

REMEMBERED_BYTES = 64 << 20
"""What a worker keeps of encoded prompts."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
DARK = 2 / 255
"""A picture with nothing brighter is black: what an overflow or a checker leaves."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Painted:
    """One image, or why there is none."""

    pixels: Pixels | None
    fault: str = ""
    """`nan`, `black` or `flagged`."""


class Painter:
    """Paints prompts; built once per worker."""

    def __init__(
        self, spec: Synthesis, device: torch.device, stopping: Callable[[], bool] = never
    ) -> None:
        self.spec, self.device, self.stopping = spec, device, stopping
        files = model_files(spec)
        _refuse_unable(spec, device, files)
        try:
            self.pipeline = _loaded(files, spec).to(device)
        except torch.cuda.OutOfMemoryError as error:
            raise _too_small(spec, "the model does not fit") from error
        self.pipeline.set_progress_bar_config(disable=True)
        _arrange(self.pipeline, spec)
        self._texts: OrderedDict[str, tuple[Tensor, Tensor | None]] = OrderedDict()
        self._text_bytes = 0

    @torch.inference_mode()
    def paint(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Painted]:
        """One pass: at most `chunk` images."""
        missing = self.spec.chunk - len(texts)
        full = [*texts, *[texts[-1]] * missing]
        generators = [
            torch.Generator("cpu").manual_seed(seed) for seed in [*seeds, *[seeds[-1]] * missing]
        ]
        try:
            with _quiet():
                found = self.pipeline(
                    **self._told(full),
                    num_inference_steps=self.spec.steps,
                    guidance_scale=self.spec.guidance,
                    height=self.spec.height,
                    width=self.spec.width,
                    generator=generators,
                    output_type="np",
                    callback_on_step_end=self._look_up,
                )
        except torch.cuda.OutOfMemoryError as error:
            raise _too_small(self.spec, "a pass does not fit") from error
        flagged = getattr(found, "nsfw_content_detected", None) or [False] * len(full)
        pairs = zip(found.images[: len(texts)], flagged, strict=False)
        return [_judged(image, bool(flag)) for image, flag in pairs]

    def tokens_cut(self, text: str) -> int:
        """How many tokens of a prompt the text tower does not read."""
        tokeniser = self.pipeline.tokenizer
        if tokeniser is None:
            return 0
        ids = tokeniser(text, truncation=False, verbose=False).input_ids
        return max(0, len(ids) - int(tokeniser.model_max_length))

    def _look_up(self, pipeline: Any, step: int, at: Any, state: dict[str, Any]) -> dict[str, Any]:
        if self.stopping():
            raise StoppedError("stopped between two steps of the denoiser")
        return state

    def _told(self, texts: Sequence[str]) -> dict[str, Any]:
        """The prompts as the pipeline takes them: encoded, where we know how it encodes."""
        if type(self.pipeline).__name__ != "StableDiffusionPipeline":
            more = {"negative_prompt": [self.spec.negative_prompt] * len(texts)}
            return {"prompt": list(texts), **(more if self.spec.guidance > 1 else {})}
        pairs = [self._encoded(text) for text in texts]
        told = {"prompt_embeds": torch.cat([own for own, _ in pairs])}
        if self.spec.guidance > 1:
            told["negative_prompt_embeds"] = torch.cat([n for _, n in pairs if n is not None])
        return told

    def _encoded(self, text: str) -> tuple[Tensor, Tensor | None]:
        if text in self._texts:
            self._texts.move_to_end(text)
            return self._texts[text]
        own, negative = self.pipeline.encode_prompt(
            text,
            self.device,
            1,
            self.spec.guidance > 1,
            negative_prompt=self.spec.negative_prompt,
        )
        self._texts[text] = own, negative
        self._text_bytes += _bytes(own, negative)
        while self._text_bytes > REMEMBERED_BYTES and len(self._texts) > 1:
            _, (old, its_negative) = self._texts.popitem(last=False)
            self._text_bytes -= _bytes(old, its_negative)
        return own, negative


def _bytes(*tensors: Tensor | None) -> int:
    return sum(t.nbytes for t in tensors if t is not None)


def _judged(image: NDArray[np.floating[Any]], flagged: bool) -> Painted:
    if flagged:
        return Painted(None, "flagged")
    if not np.isfinite(image).all():
        return Painted(None, "nan")
    if image.max() <= DARK:
        return Painted(None, "black")
    return Painted((image * 255).round().astype(np.uint8))


def _loaded(files: ModelFiles, spec: Synthesis) -> Any:
    from diffusers import AutoPipelineForText2Image
    from diffusers.utils import logging as talk
    from transformers.utils import logging as more_talk

    talk.set_verbosity_error()
    talk.disable_progress_bar()
    more_talk.set_verbosity_error()
    more_talk.disable_progress_bar()
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    left_out = {} if spec.safety == "detect" else {"safety_checker": None}
    try:
        with _quiet():
            pipeline = AutoPipelineForText2Image.from_pretrained(
                str(files.folder),
                torch_dtype=DTYPES[spec.dtype],
                use_safetensors=True,
                local_files_only=True,
                **left_out,
            )
    except torch.cuda.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise DataError(
            f"the model {spec.model!r} cannot be loaded: {type(error).__name__}: {_first(error)}",
            got=str(files.folder),
            do="it must be a text-to-image pipeline, whole, as diffusers saves it",
        ) from error
    return pipeline


@contextmanager
def _quiet() -> Iterator[None]:
    """diffusers warns its own developers; what users should know is told by us."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else ""


def _arrange(pipeline: Any, spec: Synthesis) -> None:
    pipeline.scheduler = _solver(pipeline.scheduler.config, spec)
    denoiser = "unet" if hasattr(pipeline, "unet") else "transformer"
    network = getattr(pipeline, denoiser)
    if spec.channels_last:
        network = network.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    if spec.compile:
        network = torch.compile(network)
    setattr(pipeline, denoiser, network)


def _solver(config: Any, spec: Synthesis) -> Any:
    """The solver on the noise that the model was trained with."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

    if "beta_start" not in config:
        raise ConfigError(
            f"{spec.model} is no model of the kind that {spec.scheduler} solves (it has no noise "
            "of growing variance: a flow model?)",
            got=str(config.get("_class_name", "an unknown scheduler")),
        )
    match spec.scheduler:
        case "dpm++2m":
            return DPMSolverMultistepScheduler.from_config(
                config, algorithm_type="dpmsolver++", solver_order=2
            )
        case "ddim":
            return DDIMScheduler.from_config(config, clip_sample=False)
        case "euler":
            return EulerDiscreteScheduler.from_config(config)


def _refuse_unable(spec: Synthesis, device: torch.device, files: ModelFiles) -> None:
    if device.type == "cpu":
        if spec.dtype == "fp16":
            raise ConfigError("fp16 wants a GPU", got="dtype=fp16", do="set dtype=fp32 or bf16")
        return
    if not torch.cuda.is_available():
        raise ConfigError(
            "images are to be made on a GPU, and this worker sees none",
            do="set execution.device=cpu, or execution.worker.gpus=1 on a cluster",
        )
    free, _ = torch.cuda.mem_get_info(device)
    # Files may hold another precision than is asked for; half of them is the least.
    least = files.weight_bytes / (1 if spec.dtype == "fp32" else 2)
    if least > free:
        raise _too_small(spec, f"{least / 2**30:.1f} GiB of weights, {free / 2**30:.1f} GiB free")


def _too_small(spec: Synthesis, what: str) -> MethodError:
    return MethodError(
        f"the GPU's memory is too small: {what}",
        got=f"chunk={spec.chunk}, dtype={spec.dtype}, height={spec.height}, width={spec.width}",
        do="lower chunk (images in a pass) or height and width, or set dtype=fp16",
    )
