"""From a spec of prompts to the head that holds them."""

from __future__ import annotations

from typing import assert_never

from raycl.config.methods import PromptSpec, ResidualPrompt, TokenPrompt
from raycl.methods.method import Setting
from raycl.methods.parts.key_head import KeyHead
from raycl.methods.parts.prompts import TokenHead
from raycl.methods.parts.residual import ResidualHead


def build_head(spec: PromptSpec, setting: Setting) -> KeyHead:
    """A head before its first training."""
    match spec:
        case ResidualPrompt():
            return ResidualHead(setting)
        case TokenPrompt():
            return TokenHead(setting, spec)
        case _:
            assert_never(spec)
