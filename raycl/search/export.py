"""One way out: a sweep as an Optuna study in a file that `optuna-dashboard` opens.

Written anew each time and never read back: the journal in the store stays the truth.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from raycl.errors import ConfigError
from raycl.search.ledger import Ledger
from raycl.search.sampling import study_of


def export_study(ledgers: Sequence[Ledger], path: Path) -> None:
    """The sweeps as studies of an SQLite file, which must not be there yet."""
    import optuna

    if path.exists():
        raise ConfigError(
            "this file is there already", got=str(path), do="name another, or remove it"
        )
    url = f"sqlite:///{path.absolute()}"
    for ledger in ledgers:
        # A sampler's own notes (generations) stay out: they mean nothing to a reader.
        study = study_of(ledger.space, ledger.records.samples)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([goal.metric for goal in ledger.space.goals])
        storage = optuna.storages.RDBStorage(url)
        try:
            optuna.copy_study(
                from_study_name=study.study_name,
                from_storage=study._storage,
                to_storage=storage,
                to_study_name=ledger.entry.id,
            )
        finally:
            storage.engine.dispose()
