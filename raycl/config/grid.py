"""A grid of experiments: methods × seeds on one stream, as `search_spaces/` files hold it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from raycl.config.backbones import Backbone
from raycl.config.experiment import Experiment
from raycl.config.methods import MethodSpec
from raycl.config.spec import Spec
from raycl.config.streams import StreamSpec, Validation


class Grid(Spec):
    """Every method with every seed; all else is shared."""

    stream: StreamSpec
    methods: tuple[MethodSpec, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    backbone: Backbone = Backbone()
    validation: Validation = Validation()

    def experiments(self) -> Iterator[Experiment]:
        """One experiment per method and seed, seeds innermost."""
        for method in self.methods:
            for seed in self.seeds:
                yield Experiment(
                    method=method,
                    stream=self.stream,
                    backbone=self.backbone,
                    validation=self.validation,
                    seed=seed,
                )
