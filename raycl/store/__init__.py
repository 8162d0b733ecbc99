"""The artefact store: what was computed once, by any process, is found again.

Artefacts are named by what they mean and committed by a record; leases keep two
processes from computing one artefact twice; journals hold events; `collect` finds what
nothing needs. A local folder or an s3:// or gs:// address. Nothing here imports torch
until a tensor is read or written, nor pyarrow until a table or a bucket is.
"""

from raycl.store.artefact import ArtefactSpec, Payload, Record, slug
from raycl.store.collect import Garbage, collect
from raycl.store.file_digest import file_digest
from raycl.store.journal import Journal
from raycl.store.location import Location, StoredFile
from raycl.store.store import Payloads, Problem, Store

__all__ = [
    "ArtefactSpec",
    "Garbage",
    "Journal",
    "Location",
    "Payload",
    "Payloads",
    "Problem",
    "Record",
    "Store",
    "StoredFile",
    "collect",
    "file_digest",
    "slug",
]
