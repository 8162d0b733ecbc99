"""The trials of a sweep, told to sinks: each a run of its own there, grouped by the sweep.

Read from the records whenever they change, so a sweep that is continued tells first what was
measured before, a trial that waited at a rung and goes on is one run, and both drivers do it.
"""

from __future__ import annotations

from collections.abc import Sequence

from raycl.config.spec import described
from raycl.engine.following import GROUP, logs_of
from raycl.observe.sinks.sink import Subject
from raycl.observe.sinks.telling import Sinks
from raycl.search.ledger import Ledger
from raycl.search.orders import OrderBook
from raycl.search.records import Trial
from raycl.search.watching import SweepWatcher
from raycl.store.artefact import slug


class FollowedTrials:
    """A watcher that tells sinks, and passes on to the one that shows."""

    def __init__(
        self, names: Sequence[str], ledger: Ledger, orders: OrderBook, shown: SweepWatcher
    ) -> None:
        self._names, self._ledger, self._orders, self._shown = names, ledger, orders, shown
        self._sinks: dict[str, Sinks] = {}
        self._told: dict[str, tuple[int, str]] = {}
        """What was known of each trial when it was told last."""

    def update(self) -> None:
        for trial in self._ledger.records.trials:
            here = (trial.done, trial.state)
            if trial.reports and self._told.get(trial.name) != here:
                self._tell(trial)
                self._told[trial.name] = here
        self._shown.update()

    def _tell(self, trial: Trial) -> None:
        sinks = self._sinks.get(trial.name) or self._of(trial)
        self._sinks[trial.name] = sinks
        for done, values in sorted(trial.reports.items()):
            sinks.tell(done, values)
        if trial.state == "complete":
            sinks.finish(trial.last)
        elif trial.state != "open":
            sinks.leave("failed" if trial.state == "failed" else "stopped")
        if trial.over:
            del self._sinks[trial.name]

    def _of(self, trial: Trial) -> Sinks:
        sweep = self._ledger.entry.id
        subject = Subject(
            id=f"sweep-{slug(sweep)}-{trial.name}",
            name=f"{sweep} {trial.name}",
            group=f"{GROUP} {sweep}",
            config=described(self._orders.experiment(trial)),
            root=logs_of(self._ledger.store),
        )
        return Sinks(self._names, subject, self._shown.warn)

    def warn(self, words: str) -> None:
        self._shown.warn(words)

    def __enter__(self) -> FollowedTrials:
        self._shown.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.update()
        for sinks in self._sinks.values():
            sinks.leave("stopped")
        self._shown.__exit__(*exc)
