"""A small world of pictures: a picture is a row of pixels, and its vector says what they are.

So everything that CLTS does to images can be followed by hand, and no model is needed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from raycl.compute.local_pool import LocalPool
from raycl.config.backbones import Backbone
from raycl.config.seeds import rng
from raycl.methods.conformance import Bench, Builder
from raycl.methods.context import Context
from raycl.methods.method import Method, Setting
from raycl.observe.events import nobody
from raycl.store.store import Store
from raycl.streams.source import Ints
from raycl.streams.stream import Pixels, Samples, Task
from raycl.synthesis.prompts import Prompt

SPREAD = 4.0
"""What a vector's entries may reach to either side."""


def picture_of(x: Tensor) -> Image.Image:
    """The picture whose vector this is, up to rounding."""
    grey = np.clip(np.round((x.numpy() / SPREAD / 2 + 0.5) * 255), 0, 255).astype(np.uint8)
    return Image.fromarray(np.repeat(grey[None, :, None], 3, axis=2))


class PictureEncoder:
    """The inverse; a taller picture is averaged to one row first."""

    backbone = Backbone(name="tiny-clip")
    batch = 4

    def __init__(self, width: int) -> None:
        self.width = width
        self.seen: list[tuple[int, int]] = []
        """The sizes of the pictures that were encoded."""

    def preprocess(self, image: Image.Image) -> Tensor:
        self.seen.append(image.size)
        row = image.resize((self.width, 1), Image.Resampling.BOX)
        return torch.from_numpy(np.asarray(row)[:, :, :1].copy()).permute(2, 0, 1).float()

    def encode_images(self, pixels: Tensor) -> Tensor:
        return (pixels.flatten(1) / 255 - 0.5) * 2 * SPREAD


@dataclass(eq=False)
class Decoder:
    """The pictures of these vectors; also their `OpenedImages`."""

    x: Tensor
    identity = described = {"kind": "made"}  # noqa: RUF012
    contents = ("made",)

    @property
    def pictures(self) -> Decoder:
        return self

    def image(self, row: int) -> Image.Image:
        return picture_of(self.x[row])

    def place(self, row: int) -> str:
        return f"made/{row}"

    def __call__(self, rows: Ints) -> Tensor:
        raise AssertionError("CLTS has the stream's own vectors of real images")


def seeing(setting: Setting) -> Setting:
    """The setting with an encoder of pictures."""
    encoder: Any = PictureEncoder(setting.width)
    return replace(setting, encoder=encoder)


def with_pictures(task: Task) -> Task:
    """The task whose training samples can be looked at."""
    decode: Any = Decoder(task.train.x.clone())
    pixels = Pixels(decode, np.arange(len(task.train)))
    train = Samples(task.train.x, task.train.y, task.train.rows, pixels)
    return replace(task, train=train)


@dataclass
class Painted:
    """What a made painter gives: noisy pictures of the class that a prompt names."""

    prompts: Sequence[Prompt]
    text: Tensor
    names: tuple[str, ...]
    noise: float
    off: float
    left_out: tuple[int, ...] = ()

    def image(self, number: int) -> Image.Image:
        prompt = self.prompts[number]
        c = next(c for c, name in enumerate(self.names) if f"{name}," in f"{prompt.text},")
        drawn = rng(prompt.seed, "painted", prompt.text).normal(size=self.text.shape[1])
        x = self.text[c] + self.off + self.noise * torch.from_numpy(drawn).float()
        return picture_of(x)


class Painter:
    """Stands in the place of `synthesise`; `off` is how far its style lies from what is real."""

    def __init__(self, setting: Setting, noise: float = 0.05, off: float = 0.0) -> None:
        self.setting, self.noise, self.off = setting, noise, off
        self.asked: list[Prompt] = []
        self.left_out: tuple[int, ...] = ()

    def __call__(self, prompts: Sequence[Prompt], spec: Any, **lent: Any) -> Painted:
        assert isinstance(lent["store"], Store) and not isinstance(lent["pool"], type(None))
        self.asked += prompts
        setting = self.setting
        return Painted(
            list(prompts), setting.text, setting.class_names, self.noise, self.off, self.left_out
        )


class PictureBench(Bench):
    """The bench of the conformance suite, with pictures."""

    def __init__(self, build: Builder) -> None:
        super().__init__(build)
        self.setting = seeing(self.setting)
        self.tasks = [with_pictures(task) for task in self.tasks]


def learn(method: Method[Any], tasks: Sequence[Task], start: int = 0, **lent: Any) -> Any:
    """The method after the tasks from `start` on."""
    for task in tasks[start:]:
        method.seen = tuple(c for t in tasks[: task.index + 1] for c in t.classes)
        context = Context(task.index, LocalPool(), nobody, **lent)
        method.learn(with_pictures(task).without_test(), context)
    return method


def bytes_of(image: Image.Image) -> bytes:
    """As PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
