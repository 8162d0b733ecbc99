"""Captions over Ray: any number of workers, and workers that are killed, give the same ones."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raycl.captions.parallel import Captions, caption_classes
from raycl.compute.local_pool import LocalPool
from raycl.config.backbones import Backbone
from raycl.config.captions import AttributesCaptioner, Captioning
from raycl.config.streams import GlyphsStream
from raycl.observe.events import Computed, Event, WorkerLost, nobody
from raycl.store.store import Store
from raycl.streams.opened import OpenedImages
from tests.engine.processes import descendants

pytestmark = [pytest.mark.ray, pytest.mark.ordeal]

SPEC = Captioning(captioner=AttributesCaptioner(slots=("ink", "ground")), duplicates="keep")
CLIP = Backbone(name="tiny-clip", batch=4)


def busy_workers() -> list[int]:
    return [p for p, name in descendants(os.getpid()) if name.startswith("ray::Pool")]


def captioned(store: Path, pool: Any, observer: Any = nobody) -> Captions:
    opened = OpenedImages(GlyphsStream())
    images = opened.images
    classes = [
        (name, [int(row) for row in np.flatnonzero(images.labels == c)])
        for c, name in enumerate(images.class_names[:8])
    ]
    return caption_classes(
        opened,
        classes,
        SPEC,
        seed=0,
        clip=CLIP,
        store=Store.open(str(store)),
        pool=pool,
        observer=observer,
    )


def test_a_killed_worker_costs_its_class_and_no_caption(
    tmp_path: Path, ray_session: object
) -> None:
    from raycl.compute.ray_pool import RayPool

    alone = captioned(tmp_path / "here", LocalPool())
    events: list[Event] = []

    def watch(event: Event) -> None:
        events.append(event)
        if sum(isinstance(e, Computed) for e in events) == 2 and not killed:
            killed.append(busy_workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    killed: list[int] = []
    with RayPool(watch, workers=2) as pool:
        found = captioned(tmp_path / "there", pool, watch)
    assert len([e for e in events if isinstance(e, WorkerLost)]) == 1
    assert found.computed + found.reused == 8 and found.reused <= 1
    assert found.classes == alone.classes
