"""Encoders: images and texts to vectors, through a model of open_clip's factory.

Guarantees: the weights are those whose digests are in the key; nothing is unpickled; the
model is frozen and in evaluation mode. Every pass has one shape, its last batch padded, so
that what an image or a text becomes does not depend on what is encoded beside it or after.
Vectors come un-normalised, float32, on the CPU. Threads are the caller's affair.
"""

from __future__ import annotations

import contextlib
import logging
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError  # only to name the error
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from raycl.backbones.content import RANDOM_SEED, digests_of
from raycl.backbones.files import BackboneFiles, backbone_files
from raycl.backbones.sentence_tokeniser import SentenceTokeniser
from raycl.backbones.text_tower import TextTower
from raycl.config.backbones import Backbone
from raycl.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL import Image

KEPT = 2
"""Encoders that a process keeps."""
TEXT_BATCH = 32
LENGTH_STEP = 8
"""Texts are encoded at their own length, rounded up to a multiple of this."""
WIDEST = 8
"""Times as long as high (or the reverse) that an image may be before it is cropped."""


class Encoder:
    """Both towers of one model."""

    def __init__(self, model: Any, tokeniser: Any, backbone: Backbone, device: torch.device):
        from open_clip.transform import PreprocessCfg, image_transform_v2

        config = PreprocessCfg(**model.visual.preprocess_cfg)
        self._model = model
        self._dtype = _input_type(backbone.precision)
        self._transform: Callable[[Any], Tensor] = image_transform_v2(config, is_train=False)
        self._crops = config.resize_mode == "shortest"
        self.backbone = backbone
        """By which another process finds the same encoder; its template is none of its own."""
        self.batch = backbone.batch
        self.device = device
        self.visual: Any = model.visual
        """The visual tower, frozen and shared: who moves it works on a copy of its modules."""
        self.text = TextTower(model, tokeniser)
        """The text tower as differentiable pieces; frozen as the rest."""
        self.width = self.text.width
        self.context = self.text.context
        self.image_size = _pair(config.size)
        self.logit_scale = float(model.logit_scale.exp().item())

    def preprocess(self, image: Image.Image) -> Tensor:
        """(3, height, width) float32 of one image, as the model wants it; no randomness."""
        if not image.width or not image.height:
            raise DataError("an image without pixels", got=f"{image.width}x{image.height}")
        image = image if image.mode == "RGB" else image.convert("RGB")
        try:
            return self._transform(self._cropped(image))
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            raise DataError(
                f"an image cannot be brought to {self.image_size}: {error}",
                got=f"{image.width}x{image.height}",
                do="leave it out or crop it",
            ) from error

    def _cropped(self, image: Image.Image) -> Image.Image:
        """The middle of a very long image: the rest would be scaled up and thrown away."""
        width, height = image.size
        longest = WIDEST * min(width, height)
        if not self._crops or max(width, height) <= longest:
            return image
        left, top = (max(0, side - longest) // 2 for side in (width, height))
        return image.crop((left, top, left + min(width, longest), top + min(height, longest)))

    @torch.no_grad()
    def encode_images(
        self, pixels: Tensor, encode: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """(n, width) of (n, 3, height, width); by `encode` where the tower was moved."""
        tower: Callable[[Tensor], Tensor] = encode or self._model.encode_image
        return self._in_batches(pixels, self.batch, lambda batch: tower(self.as_input(batch)))

    def as_input(self, pixels: Tensor) -> Tensor:
        """Pixels where and as the visual tower takes them."""
        return pixels.to(self.device, self._dtype)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, width), each text encoded at its own length where the tower can truncate."""
        tokens = self.text.tokenise(texts)
        ends = self.text.ends(tokens)
        lengths = torch.full_like(ends, self.context)
        if self.text.can_truncate:
            rounded = (ends + LENGTH_STEP) // LENGTH_STEP * LENGTH_STEP
            lengths = torch.minimum(lengths, rounded)
        out = torch.empty(len(texts), self.width)
        for length in sorted(set(lengths.tolist())):
            rows = torch.nonzero(lengths == length).flatten()
            out[rows] = self._in_batches(tokens[rows, :length], TEXT_BATCH, self._encode_tokens)
        return out

    def _encode_tokens(self, tokens: Tensor) -> Tensor:
        return self.text.encode(self.text.embed(tokens), self.text.ends(tokens))

    def _in_batches(self, rows: Tensor, batch: int, encode: Callable[[Tensor], Tensor]) -> Tensor:
        out = torch.empty(len(rows), self.width)
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            filled = part[-1:].expand(batch - len(part), *part.shape[1:])
            vectors = encode(torch.cat([part, filled]))
            out[start : start + batch] = vectors[: len(part)].float().cpu()
        return out


def load_encoder(backbone: Backbone, device: torch.device) -> Encoder:
    """The encoder of a backbone; the last few stay in memory."""
    files = backbone_files(backbone)
    if backbone.precision == "fp16" and device.type == "cpu":
        raise ConfigError(
            "half precision is for GPUs: a CPU has no arithmetic of its own for it",
            got="backbone.precision=fp16 on a CPU",
            do="set backbone.precision=bf16 or fp32",
        )
    # By content, because the files behind a path may have changed since; and by nothing
    # that the model does not depend on.
    loaded = Backbone(name=backbone.name, precision=backbone.precision, batch=backbone.batch)
    return _load(loaded, str(device), digests_of(files))


@lru_cache(maxsize=KEPT)
def _load(backbone: Backbone, device: str, digests: tuple[str, ...]) -> Encoder:
    files = backbone_files(backbone)
    place = torch.device(device)
    with _quiet():
        model = _build(files, backbone.precision)
    model = model.to(place).eval().requires_grad_(False)
    return Encoder(model, _tokeniser(files), backbone, place)


def _build(files: BackboneFiles, precision: str) -> Any:
    """The model with its weights, on the CPU."""
    import open_clip

    # A fixed seed of its own, and the caller's generator left as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        try:
            model = open_clip.create_model(
                files.factory,
                load_weights=False,
                precision=precision,
                force_quick_gelu=bool(files.model.get("quick_gelu")),
                force_preprocess_cfg=files.preprocessing,
            )
        except Exception as error:
            raise DataError(
                f"open_clip cannot build this model: {type(error).__name__}: {error}",
                got=files.factory,
                do="check the configuration of its towers",
            ) from error
    if files.weights is not None:
        _load_weights(model, files.weights)
    return model


def _load_weights(model: Any, file: Path) -> None:
    import open_clip

    if _is_torchscript(file):
        raise DataError(
            "a TorchScript archive holds code as well as weights, and is not read",
            got=str(file),
            do="take the same weights as .safetensors: for OpenAI's models name the tag "
            "(ViT-B-32:openai), whose file on the hub is open_clip_model.safetensors",
        )
    try:
        open_clip.load_checkpoint(model, str(file), weights_only=True)
    except UnpicklingError as error:
        raise DataError(
            "the file of weights holds other things than tensors, and is not read",
            got=str(file),
            do="convert it to .safetensors where you trust it",
        ) from error
    except Exception as error:  # whatever a broken file makes the readers say
        raise DataError(
            f"the weights do not fit the model: {type(error).__name__}: {_beginning(error)}",
            got=str(file),
            do="check that the architecture is theirs, and that the file is whole",
        ) from error


def _beginning(error: Exception) -> str:
    """Two lines of a reader's complaint: it can go on for pages."""
    lines = [line.strip() for line in str(error).strip().splitlines()[:2]]
    return " ".join(lines)[:300]


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any("/code/" in name for name in archive.namelist())


def _tokeniser(files: BackboneFiles) -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    text, first = files.model["text_cfg"], files.tokeniser[0]
    options = text.get("tokenizer_kwargs") or {}
    if text.get("hf_tokenizer_name"):
        return SentenceTokeniser(first.parent, options)
    try:
        return SimpleTokenizer(str(first), **options)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise DataError(
            f"the tokeniser cannot be read: {type(error).__name__}: {error}", got=str(first)
        ) from error


def _input_type(precision: str) -> torch.dtype:
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return types[precision]


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs to the root logger, and so would set up a handler for the program."""
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
        root.removeHandler(silent)
