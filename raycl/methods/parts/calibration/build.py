"""From the spec of a calibrator to where old statistics go."""

from __future__ import annotations

from typing import assert_never

from raycl.config.dmc import (
    CalibratorSpec,
    MeanShift,
    MongeClasswise,
    MongePooled,
    MongeWithin,
    NoCalibration,
    RidgePaired,
    SemanticDrift,
)
from raycl.methods.parts.calibration import monge, paired
from raycl.methods.parts.calibration.drift import Drift, Moved, Old


def calibrate(spec: CalibratorSpec, moved: Moved, old: Old) -> Drift | None:
    """Where the current vectors' move takes the old statistics; None: nowhere."""
    match spec:
        case NoCalibration():
            return None
        case MeanShift():
            return paired.mean_shift(moved, old)
        case SemanticDrift():
            return paired.semantic_drift(spec, moved, old)
        case MongeWithin():
            return monge.carried(monge.within(moved), old)
        case MongePooled():
            return monge.carried(monge.pooled(moved), old)
        case MongeClasswise():
            return monge.classwise(spec, moved, old)
        case RidgePaired():
            return paired.ridge(spec, moved, old)
        case _:
            assert_never(spec)
