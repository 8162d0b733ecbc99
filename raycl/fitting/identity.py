"""What a fitted generator is called in the store. Needs no torch.

A class's name is made of the generator's spec, of the seed, of the class's own name and of its
vectors. Which other classes are fitted beside it, in which order and by how many workers, is in
none of them: so another order of classes, another split into tasks or a subset refits nothing.
A generator that all classes share is one artefact, named by all of them in no order.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from raycl.config.generators import GeneratorSpec
from raycl.config.seeds import seed_for
from raycl.config.spec import Json, described, digest, identity
from raycl.store.artefact import ArtefactSpec

GENERATOR_REVISION = 1
"""Raised when fitting, or what is stored of it, computes something else."""

KIND, PARTIAL = "generator", "generator-partial"


def class_stream(seed: int, name: str) -> int:
    """The seed of all that is random in the fit of a class."""
    return seed_for(seed, "generator", name)


def vectors_digest(x: NDArray[np.float32]) -> str:
    """The digest of a class's vectors, in their order, and of their shape."""
    content = hashlib.sha256(np.ascontiguousarray(x, np.float32).data).hexdigest()
    return digest([list(x.shape), content])


def class_artefact(generator: GeneratorSpec, seed: int, name: str, content: str) -> ArtefactSpec:
    """The generator of one class, whose vectors have this digest."""
    named: dict[str, Json] = {"class": name}
    return _artefact(generator, seed, f"{generator.kind}-{name}", named, content)


def shared_artefact(
    generator: GeneratorSpec, seed: int, contents: Mapping[str, str]
) -> ArtefactSpec:
    """One generator of all these classes, by name the digest of each one's vectors."""
    named: dict[str, Json] = {"classes": len(contents)}
    content = digest([[name, contents[name]] for name in sorted(contents)])
    title = f"{generator.kind}-{len(contents)}-classes"
    return _artefact(generator, seed, title, named, content)


def _artefact(
    generator: GeneratorSpec, seed: int, title: str, named: dict[str, Json], content: str
) -> ArtefactSpec:
    named = {"seed": seed, **named}
    return ArtefactSpec(
        kind=KIND,
        name=title,
        identity={"generator": identity(generator), **named},
        described={"generator": described(generator), **named},
        revision=GENERATOR_REVISION,
        parents=(content,),
    )


def unfinished(artefact: ArtefactSpec) -> ArtefactSpec:
    """Where a long fit keeps what it has done so far."""
    return replace(artefact, kind=PARTIAL)


def distinct_names(
    class_names: Sequence[str], class_domain: Sequence[int], domains: Sequence[str]
) -> tuple[str, ...]:
    """The classes of a source by names that no two share: `domain/name` where it has several
    domains, and the class id behind a name that is still given twice."""
    named = [
        f"{domains[domain]}/{name}" if len(domains) > 1 else name
        for name, domain in zip(class_names, class_domain, strict=True)
    ]
    taken = Counter(named)
    return tuple(f"{n}#{c}" if taken[n] > 1 else n for c, n in enumerate(named))
