"""Generators of several classes, packed: tensors with a leading class axis.

A bank is only a packing. Guarantees: `split`, `concat` and `state_dict` give back the same
bits; on a CPU a class's samples depend on its own tensors and its own stream alone, bit for
bit, because every product is made for one class and one block of rows at a time; the first n
rows of a longer draw are the shorter draw.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor

from raycl.config.generators import Weights
from raycl.config.spec import Spec
from raycl.errors import DataError
from raycl.generators.noise import BLOCK

S = TypeVar("S", bound=Spec)

SHARED = "shared."
"""How the names of tensors begin that all classes of a bank share; these have no class axis."""
ALWAYS_FP32 = ("mean", "std", "noise")
ALIGNMENT = 64
LARGEST_FP16 = float(torch.finfo(torch.float16).max)


class Bank(ABC, Generic[S]):
    """Fitted generators of as many classes as its tensors are long."""

    def __init__(self, spec: S, tensors: Mapping[str, Tensor]) -> None:
        self.spec, self.tensors = spec, dict(tensors)
        lengths = {len(t) for name, t in self.tensors.items() if not name.startswith(SHARED)}
        if len(lengths) != 1:
            raise DataError(
                f"a bank of {type(self).__name__} needs tensors of one length",
                got=str({name: tuple(t.shape) for name, t in self.tensors.items()}),
            )
        (self.classes,) = lengths

    def __len__(self) -> int:
        return self.classes

    @property
    def width(self) -> int:
        """Dimensions of a sample."""
        return int(self.tensors["mean"].shape[-1])

    @property
    def device(self) -> torch.device:
        return next(iter(self.tensors.values())).device

    def sample(self, n: int, streams: Sequence[int], start: int = 0) -> Tensor:
        """Rows `start` to `start + n` of every class's endless draw: (classes, n, d), float32.

        `streams` holds a seed for each class; another epoch's draw takes other seeds.
        """
        if len(streams) != len(self) or n < 0 or start < 0:
            raise DataError(
                f"a draw from {len(self)} classes needs a seed for each and no negative count",
                got=f"{len(streams)} seeds, rows {start} to {start + n}",
            )
        out = torch.empty(len(self), n, self.width, device=self.device)
        # One class at a time on a CPU: stacked products would gain nothing and might round
        # differently with another number of neighbours.
        step = 1 if self.device.type == "cpu" else max(len(self), 1)
        with torch.no_grad():
            for first in range(0, len(self), step):
                rows = slice(first, first + step)
                self._fill(out[rows], self._only(rows), streams[rows], start)
        return out

    def _fill(self, out: Tensor, part: Self, streams: Sequence[int], start: int) -> None:
        n = out.shape[1]
        for block in range(start // BLOCK, -(-(start + n) // BLOCK)):
            drawn = part.draw(streams, block)
            begin, end = max(start, block * BLOCK), min(start + n, (block + 1) * BLOCK)
            out[:, begin - start : end - start] = drawn[:, begin - block * BLOCK :][
                :, : end - begin
            ]

    @abstractmethod
    def draw(self, streams: Sequence[int], block: int) -> Tensor:
        """One block of rows of every class: (classes, BLOCK, d)."""

    def log_likelihood(self, x: Tensor) -> Tensor | None:
        """Log density of each of (classes, n, d) vectors per dimension that varies, in nats
        and in units of the class's own deviations; None where the model has no density."""
        return None

    def split(self, sizes: Sequence[int]) -> list[Self]:
        """Banks of so many classes each, in this order."""
        if sum(sizes) != len(self) or min(sizes, default=1) < 1:
            raise DataError(f"a bank of {len(self)} classes cannot be cut so", got=str(list(sizes)))
        ends = torch.tensor(sizes).cumsum(0).tolist()
        return [self._only(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]

    def _only(self, rows: slice) -> Self:
        parts = {
            name: tensor if name.startswith(SHARED) else _aligned(tensor[rows])
            for name, tensor in self.tensors.items()
        }
        return type(self)(self.spec, parts)

    def pick(self, rows: Sequence[int]) -> Self:
        """A bank of these classes, in this order."""
        index = torch.tensor(rows, device=self.device)
        parts = {
            name: tensor if name.startswith(SHARED) else tensor[index]
            for name, tensor in self.tensors.items()
        }
        return type(self)(self.spec, parts)

    @classmethod
    def concat(cls, banks: Sequence[Self]) -> Self:
        """One bank of all their classes, in this order."""
        if not banks:
            raise DataError("there is no bank to join")
        first = banks[0]
        for other in banks[1:]:
            if type(other) is not type(first) or other.spec != first.spec:
                raise DataError(
                    "banks of different generators cannot be joined",
                    got=f"{first.spec!r} and {other.spec!r}",
                )
        joined = {name: _join(name, [b.tensors[name] for b in banks]) for name in first.tensors}
        return type(first)(first.spec, joined)

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by name; with the spec, this is the whole bank."""
        return dict(self.tensors)

    @classmethod
    def from_state(cls, spec: S, state: Mapping[str, Tensor]) -> Self:
        """The bank whose `state_dict` this is."""
        return cls(spec, state)

    def to(self, device: torch.device) -> Self:
        """The same bank on another device."""
        return type(self)(self.spec, {name: t.to(device) for name, t in self.tensors.items()})

    @property
    def bytes_per_class(self) -> float:
        """Bytes of state over classes; what classes share counts once."""
        return sum(t.nbytes for t in self.tensors.values()) / max(len(self), 1)


def kept(tensors: Mapping[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    """The state as it is stored: means and scales in fp32, all else as the spec says."""
    dtype = torch.float16 if weights == "fp16" else torch.float32
    out = {}
    for name, tensor in tensors.items():
        if name.split(".")[0] in ALWAYS_FP32:
            out[name] = tensor.float()
        elif dtype == torch.float16 and float(tensor.abs().max()) > LARGEST_FP16:
            raise DataError(
                f"the {name} of a generator does not fit into half precision",
                got=f"{float(tensor.abs().max()):.3g}",
                do="use weights: fp32",
            )
        else:
            out[name] = tensor.to(dtype)
    return out


def _aligned(tensor: Tensor) -> Tensor:
    # A product may take another path, and round otherwise, where memory is not aligned.
    off = tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT
    return tensor.clone() if off else tensor


def _join(name: str, tensors: Sequence[Tensor]) -> Tensor:
    if name.startswith(SHARED):
        if any(not torch.equal(tensors[0], other) for other in tensors[1:]):
            raise DataError(
                "banks that do not share one decoder cannot be joined",
                do="fit a shared generator to all its classes in one call",
            )
        return tensors[0]
    if tensors[0].ndim > 2:  # exemplars: classes may keep different numbers of rows
        longest = max(t.shape[1] for t in tensors)
        tensors = [_padded(t, longest) for t in tensors]
    return torch.cat(list(tensors))


def _padded(tensor: Tensor, length: int) -> Tensor:
    missing = length - tensor.shape[1]
    if not missing:
        return tensor
    shape = (len(tensor), missing, *tensor.shape[2:])
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=1)
