"""What a backbone *is*, as digests: parents of every key that its numbers enter.

The configuration, the weights and the tokeniser, each by its content; so a copied or moved
folder hits, and edited weights miss. Needs no torch, but for a tag of open_clip.
"""

from __future__ import annotations

from importlib.metadata import version

from raycl.backbones.files import BackboneFiles, backbone_files
from raycl.config.backbones import GIVEN, Backbone
from raycl.config.spec import digest
from raycl.store.file_digest import file_digest

RANDOM_SEED = 0
"""Of the weights of ARCH:random."""


def backbone_digests(backbone: Backbone) -> tuple[str, ...]:
    """Of configuration, weights and tokeniser; none for given vectors."""
    if backbone.name == GIVEN:
        return ()
    return digests_of(backbone_files(backbone))


def digests_of(files: BackboneFiles) -> tuple[str, ...]:
    """Of configuration, weights and tokeniser."""
    if files.weights is None:
        # The generator and the initialisers are torch's, and so are the numbers.
        weights = digest(["random", RANDOM_SEED, version("torch")])
    else:
        weights = file_digest(files.weights)
    parts = [file_digest(file) for file in files.tokeniser]
    return (
        digest({"model": files.model, "preprocessing": files.preprocessing}),
        weights,
        parts[0] if len(parts) == 1 else digest(list(parts)),
    )
