"""Every method holds the contract; and a method that breaks it is found out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from raycl.config.autoseed import AutoSeed
from raycl.config.generators import GaussianGenerator, VAEGenerator
from raycl.config.methods import (
    BUILT_IN,
    CGIL,
    CLTS,
    NCM,
    SLDA,
    AlignPrompts,
    Finetune,
    ProtoFusion,
    RealReplay,
)
from raycl.config.rivals import RAIL, RanPAC
from raycl.config.spec import Spec
from raycl.methods.build import build_method
from raycl.methods.conformance import check_method
from raycl.methods.context import Context
from raycl.methods.method import Method, State
from raycl.streams.stream import Task

SHORT = AlignPrompts(epochs=2)
LONG = (CGIL, RealReplay, RAIL, RanPAC, CLTS, AutoSeed)
"""Methods whose published budgets are for large sets, or that need images; their variants,
below or in tests of their own, are short."""

VARIANTS = [
    *(spec_type() for spec_type in BUILT_IN if spec_type not in LONG),
    CGIL(generator=VAEGenerator(epochs=2, hidden=16, latent=4), per_class=32, align=SHORT),
    CGIL(generator=GaussianGenerator(covariance="full"), per_class=32, align=SHORT),
    RealReplay(per_class=32, align=SHORT),
    NCM(unseen="gate"),
    SLDA(unseen="gate", shrinkage=0.0),
    SLDA(text=1.0),
    ProtoFusion(weight=0.3),
    Finetune(loss="local"),
]


@pytest.mark.parametrize("spec", VARIANTS, ids=repr)
def test_built_in_methods_hold_the_contract(spec: Any) -> None:
    findings = check_method(lambda setting: build_method(spec, setting))
    assert {f.what: f.fault for f in findings if not f.ok} == {}
    assert len(findings) >= 8


class Forgetful(Method[Spec]):
    """Counts what it has met, and keeps nothing of it."""

    met = 0

    def learn(self, task: Task, context: Context) -> None:
        self.met += len(task.train)
        task.train.x.mul_(2)

    def seen_scores(self, x: Tensor) -> Tensor:
        return x.mean() * torch.ones(len(x), len(self.seen)) * self.met

    def state(self) -> State:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        pass


def test_a_broken_method_is_found_out() -> None:
    faults = {f.what for f in check_method(lambda s: Forgetful(Spec(), s)) if not f.ok}
    assert "restore(state()) scores the same" in faults
    assert "scores of a sample do not depend on the others" in faults
    assert "learning leaves the task's tensors alone" in faults


def test_an_exception_is_a_fault_with_its_place() -> None:
    class Raises(Forgetful):
        def seen_scores(self, x: Tensor) -> Tensor:
            raise KeyError("the place")

    faults = [f.fault for f in check_method(lambda s: Raises(Spec(), s)) if f.fault]
    assert any("the place" in fault for fault in faults)
