"""A grid of experiments: methods × streams × seeds, as `search_spaces/` files hold it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, model_validator

from raycl.config.backbones import Backbone
from raycl.config.experiment import Experiment
from raycl.config.methods import MethodSpec
from raycl.config.spec import Spec
from raycl.config.streams import StreamSpec, Validation


class Grid(Spec):
    """Every method on every stream with every seed; all else is shared."""

    stream: StreamSpec | None = None
    streams: tuple[StreamSpec, ...] = ()
    """In the place of one stream."""
    methods: tuple[MethodSpec, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    backbone: Backbone = Backbone()
    validation: Validation = Validation()

    @model_validator(mode="after")
    def _has_a_stream(self) -> Grid:
        if (self.stream is None) == (not self.streams):
            raise ValueError("a grid has either `stream` or a list of `streams`")
        return self

    def experiments(self) -> Iterator[Experiment]:
        """One experiment per stream, method and seed, seeds innermost."""
        for stream in self.streams or (self.stream,):
            for method in self.methods:
                for seed in self.seeds:
                    yield Experiment(
                        method=method,
                        stream=stream,
                        backbone=self.backbone,
                        validation=self.validation,
                        seed=seed,
                    )
