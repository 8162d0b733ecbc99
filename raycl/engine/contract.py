"""Holds a method to its contract at run time: what it returns is looked at before it counts.

A breach is a `MethodError` that names the function and what it gave, instead of a failure
deep inside the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from raycl.errors import MethodError, RayclError
from raycl.methods.build import is_users, place_in_users_file
from raycl.methods.method import Method, State
from raycl.streams.stream import Samples

RESERVED = "__metadata__"
"""A name that safetensors keeps for itself."""


@contextmanager
def calling(method: Method[Any], function: str) -> Iterator[None]:
    """A method cannot end the process, least of all with exit code 0; and a fault in a
    user's own file is told with its line, not with ours."""
    name = f"{type(method).__name__}.{function}"
    try:
        yield
    except SystemExit as error:
        what = f"{name} called sys.exit"
        raise MethodError(what, got=error.code, do="raise an error instead") from error
    except RayclError:
        raise
    except Exception as error:
        if not is_users(type(method)):
            raise
        what = f"{name} failed: {type(error).__name__}: {error}"
        raise MethodError(what, do=f"see {place_in_users_file(error, type(method))}") from error


def state_of(method: Method[Any]) -> State:
    """The method's state on the CPU, ready to be stored."""
    name = type(method).__name__
    with calling(method, "state"):
        state = method.state()
    if not isinstance(state, dict):
        raise MethodError(f"{name}.state() must give a mapping", got=type(state).__name__)
    for key, value in state.items():
        if not isinstance(key, str) or key == RESERVED:
            raise MethodError(f"{name}.state(): this cannot name a tensor", got=repr(key))
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise MethodError(f"{name}.state()[{key!r}] must be a dense tensor", got=_kind(value))
    return {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}


def vectors_of(method: Method[Any], samples: Samples) -> Tensor:
    """What the method scores in the place of these samples, on the CPU."""
    with calling(method, "vectors"), torch.no_grad():
        x = method.vectors(samples)
    if not isinstance(x, Tensor) or x.ndim != 2 or len(x) != len(samples):
        raise MethodError(
            f"{type(method).__name__}.vectors must give one row for each of {len(samples)} samples",
            got=_kind(x),
        )
    return x.detach().cpu()


def scores_of(method: Method[Any], function: str, x: Tensor, columns: int) -> Tensor:
    """The scores that `seen_scores` or `union_scores` gives for these vectors."""
    # A copy: the other ranking must not see what this one may write into its input.
    with calling(method, function), torch.no_grad():
        scores = getattr(method, function)(x.clone())
    expected = (len(x), columns)
    if not isinstance(scores, Tensor) or tuple(scores.shape) != expected:
        raise MethodError(
            f"{type(method).__name__}.{function} must give a tensor of shape {expected}",
            got=_kind(scores),
        )
    return scores


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {value.layout} tensor of shape {tuple(value.shape)}"
    return type(value).__name__
