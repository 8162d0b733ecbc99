"""How images are made from prompts, as far as it changes a pixel.

Solvers are deterministic, so that an image depends on its prompt, its seed and this alone: those
that add noise on the way (ancestral, SDE, LCM) are refused by name.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from raycl.config.spec import NotIdentity, Spec
from raycl.errors import ConfigError

TINY_SD = "tiny-sd"
Solver = Literal["dpm++2m", "ddim", "euler"]
NOISY = ("ancestral", "sde", "lcm", "ddpm", "euler_a", "euler-a", "tcd")
"""Parts of the names of solvers that draw noise at every step."""


class Synthesis(Spec):
    """A text-to-image pipeline of diffusers and how it is run."""

    revision: ClassVar[int] = 1

    model: str = NotIdentity(TINY_SD)
    """`tiny-sd`, which ships with raycl; a folder as diffusers saves it; or ORG/REPO on the hub.
    In no key: the digests of its files stand there for it."""
    steps: int = Field(12, ge=1, le=1000)
    guidance: float = Field(7.5, ge=0)
    """Above 1, each step asks twice: with the prompt, and with the negative one."""
    scheduler: Solver = "dpm++2m"
    height: int | None = Field(None, ge=8)
    """Null: the model's own."""
    width: int | None = Field(None, ge=8)
    negative_prompt: str = ""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    """Compiles the denoiser, which takes minutes once per worker and moves last bits."""
    chunk: int = Field(32, ge=1)
    """Images in a pass, which has one fixed shape, so it can move the last bit; and what a
    killed worker loses."""
    safety: Literal["off", "detect"] = "off"
    """`detect`: an image that the model's own checker flags is made again from another seed."""
    tries: int = Field(3, ge=1)
    """Seeds that an image may have until it is given up as black, NaN or flagged."""

    @field_validator("scheduler", mode="before")
    @classmethod
    def _is_deterministic(cls, name: Any) -> Any:
        if isinstance(name, str) and any(part in name.lower() for part in NOISY):
            raise ValueError(
                f"{name!r} draws noise at every step, so an image would hang on more than its "
                "seed: use dpm++2m, ddim or euler"
            )
        return name


def preset(name: str, model: str = TINY_SD) -> dict[str, Any]:
    """The fields of a `Synthesis` that a preset fills for a model."""
    tiny = model == TINY_SD
    match name:
        case "faithful":
            own: dict[str, Any] = {"steps": 50}
        case "fast":
            own = {"steps": 12 if tiny else 20}
        case "turbo":
            # Models that were distilled for few steps want no guidance; tiny-SD was not.
            own = {"steps": 6} if tiny else {"steps": 4, "guidance": 0.0, "scheduler": "euler"}
        case _:
            raise ConfigError("no such preset", got=name, do="presets are faithful, fast and turbo")
    # Large models take more memory for an image.
    general = {} if tiny else {"chunk": 8}
    return {"model": model, **general, **own}
