"""From a spec and the vectors of some classes to a bank: one `match` over the tagged specs.

On a CPU every class is fitted by itself, so its numbers depend on its vectors, its stream and
the spec alone, bit for bit, with one thread on one kind of CPU. On a GPU networks are stacked,
and equal to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import assert_never

import torch
from torch import Tensor

from raycl.config.generators import (
    DiffusionGenerator,
    GaussianGenerator,
    GeneratorSpec,
    GMMGenerator,
    MeanGenerator,
    RealVectors,
    SharedVAEGenerator,
    VAEGenerator,
)
from raycl.errors import ConfigError
from raycl.generators.batches import packs
from raycl.generators.diffusion import DiffusionBank, DiffusionFitting, rounds_of
from raycl.generators.exemplars import RealBank, keep_real
from raycl.generators.fitting import AnyBank, ClosedForm, Fitting, InTurn, Part, Watch, run
from raycl.generators.gaussian import GaussianBank, MeanBank, fit_gaussian, fit_mean
from raycl.generators.gmm import GMMBank, fit_gmm
from raycl.generators.shared_vae import SharedVAEBank, SharedVAEFitting
from raycl.generators.vae import VAEBank, VAEFitting
from raycl.generators.vectors import ClassVectors, check_widths

CPU = torch.device("cpu")
GPU_STACK = 64
"""Networks in one stack on a GPU: 1.7 GiB of parameters, gradients and moments at d = 768."""
PACK = 8
"""Classes that `fit_each` takes at a time unless told otherwise."""


def begin_fit(
    spec: GeneratorSpec, data: Sequence[ClassVectors], device: torch.device = CPU
) -> Fitting:
    """A fit of these classes before its first round."""
    check_widths(data)
    match spec:
        case MeanGenerator():
            return _closed_forms(spec, data, lambda c: fit_mean(spec, c))
        case GaussianGenerator():
            return _closed_forms(spec, data, lambda c: fit_gaussian(spec, c))
        case GMMGenerator():
            return _closed_forms(spec, data, lambda c: fit_gmm(spec, c))
        case RealVectors():
            return _closed_forms(spec, data, lambda c: keep_real(spec, c))
        case VAEGenerator():
            return _in_turn(
                spec, data, device, spec.epochs, lambda part: VAEFitting(spec, part, device)
            )
        case DiffusionGenerator():
            return _in_turn(
                spec,
                data,
                device,
                rounds_of(spec),
                lambda part: DiffusionFitting(spec, part, device),
            )
        case SharedVAEGenerator():
            return SharedVAEFitting(spec, data, device)
        case _:
            assert_never(spec)


def _closed_forms(
    spec: GeneratorSpec, data: Sequence[ClassVectors], make: Callable[[ClassVectors], AnyBank]
) -> Fitting:
    def begin(c: ClassVectors) -> Callable[[], Fitting]:
        return lambda: ClosedForm(lambda: make(c))

    parts = [Part((place,), begin(c)) for place, c in enumerate(data)]
    return InTurn(parts, 1, lambda state: restore_bank(spec, state))


def _in_turn(
    spec: VAEGenerator | DiffusionGenerator,
    data: Sequence[ClassVectors],
    device: torch.device,
    rounds: int,
    make: Callable[[Sequence[ClassVectors]], Fitting],
) -> Fitting:
    def begin(places: tuple[int, ...]) -> Callable[[], Fitting]:
        return lambda: make([data[place] for place in places])

    together = 1 if device.type == "cpu" else GPU_STACK
    sizes = [len(c) for c in data]
    parts = [Part(places, begin(places)) for places in packs(sizes, spec.batch, together)]
    return InTurn(parts, rounds, lambda state: restore_bank(spec, state, device))


def restore_bank(
    spec: GeneratorSpec, state: Mapping[str, Tensor], device: torch.device = CPU
) -> AnyBank:
    """The bank whose `state_dict` this is."""
    return _bank_type(spec).from_state(spec, state).to(device)


def _bank_type(spec: GeneratorSpec) -> type[AnyBank]:
    match spec:
        case MeanGenerator():
            return MeanBank
        case GaussianGenerator():
            return GaussianBank
        case GMMGenerator():
            return GMMBank
        case RealVectors():
            return RealBank
        case VAEGenerator():
            return VAEBank
        case DiffusionGenerator():
            return DiffusionBank
        case SharedVAEGenerator():
            return SharedVAEBank
        case _:
            assert_never(spec)


def fits_per_class(spec: GeneratorSpec) -> bool:
    """Whether a class's result depends on that class alone, so that it is an artefact."""
    return not isinstance(spec, SharedVAEGenerator)


def fit(
    spec: GeneratorSpec,
    data: Sequence[ClassVectors],
    device: torch.device = CPU,
    watch: Watch = Watch(),  # noqa: B008 - frozen
) -> AnyBank:
    """The bank of these classes, in their order."""
    return run(begin_fit(spec, data, device), watch)


def fit_each(
    spec: GeneratorSpec,
    classes: Iterable[ClassVectors],
    device: torch.device = CPU,
    pack: int = PACK,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[tuple[str, ...], AnyBank]]:
    """Names and bank of one pack of classes after the other, as they are finished.

    Takes `classes` as it goes, and keeps nothing: memory is one pack, however many there are.
    """
    if not fits_per_class(spec):
        raise ConfigError(
            f"a {spec.kind} generator is fitted to all its classes at once",
            do="call fit with all of them",
        )
    remaining = iter(classes)
    while data := list(islice(remaining, pack)):
        yield tuple(c.name for c in data), fit(spec, data, device, Watch(stopping=stopping))
