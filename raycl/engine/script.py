"""The task loop: for each task, learn → save the state → evaluate all tasks → save.

Guarantees: any moment is a good moment to die. State and predictions of each task are
artefacts, long stages save within a task, and starting again means loading the newest
state there is. It runs in whatever process it is called in; `raycl.engine.run` decides.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raycl import __version__
from raycl.compute.threads import limited_threads
from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.config.spec import described
from raycl.config.streams import EmbeddingsStream, StreamSpec
from raycl.embedding.device import pick_device
from raycl.engine.contract import calling, state_of, vectors_of
from raycl.engine.data import Data, read_data
from raycl.engine.evaluating import Tests, from_table, predict_stage, predict_zero_shot, to_table
from raycl.engine.host import Host, open_pool
from raycl.engine.identity import LOOP_REVISION, METRICS_REVISION, RunIdentity
from raycl.engine.measuring import costs, measured
from raycl.engine.probing import Probe
from raycl.engine.states import States
from raycl.errors import DataError, StoppedError, StoreError
from raycl.methods.build import build_method
from raycl.methods.context import Context
from raycl.methods.method import Figures, Method, Setting
from raycl.methods.parts.keys import unit
from raycl.methods.parts.prompt_shards import Crew
from raycl.methods.source_code import SourceCode
from raycl.metrics.evaluation import evaluate
from raycl.metrics.matrices import NO_RULE
from raycl.metrics.predictions import StagePredictions
from raycl.observe.events import RunDone, RunStarted, TaskDone, Warned
from raycl.store.artefact import ArtefactSpec
from raycl.store.store import Store
from raycl.streams.stream import Stream, Task, build

AGAIN = "run the command again: what is missing is computed"


@dataclass(frozen=True)
class Job:
    """All that the loop needs, small enough to send to another machine."""

    experiment: Experiment
    execution: Execution
    code: SourceCode | None
    key: str
    measures: bool = False
    """Whether to tell after each task what the run is worth so far."""


def learn_stream(host: Host, job: Job) -> dict[str, Any]:
    """The result of a run, made or found, and the counts of what was computed."""
    identity = refuse_other_data(job)
    store = Store.open(job.execution.store, host.emit, stopping=host.stopping)
    run = _Run(host, job, identity, store)
    with limited_threads(1):
        payloads = store.get_or_make(identity.result, run.make, needs=run.needs)
    host.emit(RunDone(job.key, run.seconds))
    return {
        "result": payloads["result.json"],
        "computed": dict(store.computed),
        "reused": dict(store.reused),
    }


def refuse_other_data(job: Job) -> RunIdentity:
    """The identity of the run, if the data read here is what the run was asked for."""
    identity = RunIdentity.of(job.experiment, job.code)
    if identity.result.key != job.key:
        raise DataError(
            "the data read here is not what this run was asked for",
            got=identity.result.key,
            do="put the same files at the same paths on every node, and do not change them "
            "while a run waits; then run the command again",
        )
    return identity


class _Run:
    """One pass over the tasks; everything that must outlive it is in the store."""

    def __init__(self, host: Host, job: Job, identity: RunIdentity, store: Store) -> None:
        self.host, self.job, self.identity, self.store = host, job, identity, store
        self.experiment = identity.experiment
        self.states = States(store, identity.state)
        self.kept: list[str] = []
        self.history: list[dict[str, Any]] = []
        """Notes of each task: seconds by stage, bytes of state, parameters trained."""
        self.probe: Probe | None = None
        self.probe_data: Data | None = None
        self.seconds = self.embedding_seconds = 0.0
        self.at = -1
        """The task after which `self.method` stands."""

    def needs(self) -> list[str]:
        """Keys that the result refers to: features, predictions, and the last state."""
        return self.kept

    def make(self) -> dict[str, Any]:
        """The payloads of the result: the loop itself."""
        began = time.monotonic()
        stages, probed = [], []
        with ExitStack() as closing:
            self.pool = closing.enter_context(open_pool(self.job.execution, self.host))
            self._read()
            # Again, because the wait for the lease or for images may have lasted hours.
            refuse_other_data(self.job)
            self._announce()
            if bool(self.stream.has_text.all()):
                stages.append(self._zero_shot())
            probed += self._probe_zero_shot()
            self.method = self._fresh_method()
            for task in self.stream.tasks:
                stages.append(self._stage(task))
                self._measure(task, stages)
                probed += self._probe_stage(task)
                self._stop_if_asked(task)
        self.seconds = time.monotonic() - began
        return self._result(stages, probed)

    def _read(self) -> None:
        began = time.monotonic()
        self.data = self._data(self.experiment.stream)
        self.stream = build(self.experiment, self.data.source, self.data.decode)
        if self.experiment.probe is not None:
            self.probe_data = self._data(self.experiment.probe)
            probe = self.probe_data
            self.probe = Probe.of(probe.source, self.setting, probe.decode)
        self.embedding_seconds = time.monotonic() - began if self.data.keys else 0.0

    def _data(self, spec: StreamSpec) -> Data:
        data = read_data(
            spec,
            self.experiment.backbone,
            self.job.execution,
            store=self.store,
            pool=self.pool,
            host=self.host,
        )
        self.kept += data.keys
        return data

    def _announce(self) -> None:
        title = f"{self.experiment.method_label} on {self.stream.name}"
        tasks = len(self.stream.tasks)
        done = next(
            (t + 1 for t in reversed(range(tasks)) if self.store.has(self.identity.state(t))), 0
        )
        self.host.emit(RunStarted(self.identity.result.key, title, tasks, done))
        for warning in self._warnings():
            self.host.emit(Warned(warning))

    def _warnings(self) -> list[str]:
        probe = self.probe_data.source.warnings if self.probe_data else ()
        return [*self.stream.warnings, *(f"probe: {warning}" for warning in probe)]

    def _zero_shot(self) -> StagePredictions:
        spec = self.identity.zero_shot
        self.kept.append(spec.key)
        payloads = self.store.get_or_make(
            spec,
            lambda: {"predictions.parquet": to_table(predict_zero_shot(self.setting, self.stream))},
        )
        return from_table(payloads["predictions.parquet"])

    def _stage(self, task: Task) -> StagePredictions:
        """The predictions after a task; learning it only if they are not there yet."""
        began = time.monotonic()
        spec = self.identity.predictions(task.index)
        self.kept.append(spec.key)
        before = self.store.computed[spec.kind]
        payloads = self.store.get_or_make(spec, lambda: self._evaluate(task))
        self.history.append(payloads["notes.json"])
        predictions = from_table(payloads["predictions.parquet"])
        # What was found is no news: a supervisor takes a task done as a sign of progress.
        if self.store.computed[spec.kind] > before:
            self._tell(task, predictions, time.monotonic() - began)
        return predictions

    def _measure(self, task: Task, stages: list[StagePredictions]) -> None:
        if self.job.measures:
            unseen, missing = self.method.scores_unseen, self._missing_text()
            classes = [task.classes for task in self.stream.tasks]
            self.host.emit(measured(task.index, classes, stages, self.history, unseen, missing))

    def _probe_zero_shot(self) -> list[StagePredictions]:
        probe = self.probe
        if probe is None or not probe.has_text:
            return []
        return [self._probed(self.identity.probe_zero_shot, probe.predict_zero_shot)]

    def _probe_stage(self, task: Task) -> list[StagePredictions]:
        """The probe as predicted after a task, where the method has a rule for it."""
        if self._why_no_probe():
            return []
        return [self._probed(self.identity.probe(task.index), lambda: self._predict_probe(task))]

    def _probed(
        self, spec: ArtefactSpec, predict: Callable[[], StagePredictions]
    ) -> StagePredictions:
        self.kept.append(spec.key)
        payloads = self.store.get_or_make(
            spec, lambda: {"predictions.parquet": to_table(predict())}
        )
        return from_table(payloads["predictions.parquet"])

    def _predict_probe(self, task: Task) -> StagePredictions:
        """By a second method of the same state, which knows of the probe's classes too."""
        assert self.probe is not None
        self._advance_to(task.index)
        method = self._method(self.probe.setting)
        method.seen = self.stream.seen(task.index)
        method.restore({name: tensor.clone() for name, tensor in state_of(self.method).items()})
        return self.probe.predict(method, task.index)

    def _why_no_probe(self) -> str | None:
        if self.probe is None:
            return "no probe was named"
        if not self.probe.has_text:
            return f"classes of the probe {self.probe.name} have no text vector"
        if missing := self._missing_text():
            return f"{missing} of the stream's classes have no text vector"
        return None if self._method(self.probe.setting).scores_unseen else NO_RULE

    def _missing_text(self) -> int:
        return int((~self.stream.has_text).sum())

    def _evaluate(self, task: Task) -> dict[str, Any]:
        self._advance_to(task.index)
        began = time.monotonic()
        tests = Tests.of(self.stream)
        x = vectors_of(self.method, tests.samples)
        table = to_table(predict_stage(self.method, self.stream, task.index, tests, x))
        with calling(self.method, "figures_of_tests"), torch.no_grad():
            found = self.method.figures_of_tests(tests.samples, x)
        seconds = {**self.notes["seconds"], "evaluate": time.monotonic() - began}
        notes = {**self.notes, "seconds": seconds, **self._figures(found)}
        return {"predictions.parquet": table, "notes.json": notes}

    def _figures(self, found: Figures) -> dict[str, Figures]:
        """Those of the state with these; of a method that has none, nothing is noted."""
        figures = {**self.notes.get("figures", {}), **found}
        return {"figures": figures} if figures else {}

    def _advance_to(self, index: int) -> None:
        """Bring the method to the state after a task: from the newest state stored, by
        learning whatever lies between."""
        newest = index
        while newest > self.at:
            found = self.states.get(newest)
            if found is not None and self._has_all_of(found[1]):
                self._take(newest, *found)
                break
            if found is not None:  # it would be found again where it is to be made
                self.store.discard(self.identity.state(newest))
            newest -= 1
        for task in self.stream.tasks[self.at + 1 : index + 1]:
            if self.host.stopping():
                raise StoppedError(f"stopped before task {task.index + 1}")
            self._learn(task)

    def _has_all_of(self, notes: Mapping[str, Any]) -> bool:
        """Whether the store has what a state keeps there."""
        return all(self.store.record(key) is not None for key in notes.get("stored", ()))

    def _take(self, index: int, state: Mapping[str, Tensor], notes: dict[str, Any]) -> None:
        self.method = self._fresh_method()
        self._stand_at(index)
        self.method.restore(state)
        self.notes = notes

    def _stand_at(self, index: int) -> None:
        self.at = index
        self.method.seen = self.stream.seen(index)

    def _learn(self, task: Task) -> None:
        spec, context = self.identity.state(task.index), self._context(task)
        payloads = self.store.get_or_make(
            spec,
            lambda: self._next_state(task, context),
            needs=lambda: [*self.states.needs(), *context.used, *self.method.stored],
        )
        if self.at != task.index:  # a second process had the same work and was quicker
            found = self.states.read(task.index, payloads)
            if found is None:
                raise StoreError(f"the state after task {task.index + 1} is not whole", do=AGAIN)
            self._take(task.index, *found)
        for stage in self.notes["seconds"]:
            self.store.discard(self.identity.partial(task.index, stage))

    def _next_state(self, task: Task, context: Context) -> dict[str, Any]:
        began = time.monotonic()
        self._stand_at(task.index)
        with calling(self.method, "learn"):
            self.method.learn(task.without_test(), context)
        spent = time.monotonic() - began
        state, stored = state_of(self.method), self.method.stored
        held = sum(t.numel() * t.element_size() for t in state.values())
        self.notes = {
            "seconds": {"learn": spent - sum(context.seconds.values()), **context.seconds},
            "trainable_parameters": self.method.trainable_parameters,
            "state_bytes": held + sum(stored.values()),
        }
        self.notes |= {"stored": list(stored)} if stored else {}
        self.notes |= self._figures(self.method.figures)
        return self.states.payloads(task.index, state, self.notes)

    def _tell(self, task: Task, predictions: StagePredictions, seconds: float) -> None:
        known = predictions.task <= task.index
        right = predictions.seen_top[known, 0] == predictions.label[known]
        accuracy = 100 * float(right.mean()) if known.any() else None
        classes = len(self.stream.seen(task.index))
        tasks = len(self.stream.tasks)
        self.host.emit(TaskDone(task.index, tasks, classes, accuracy, seconds))

    def _stop_if_asked(self, task: Task) -> None:
        done, tasks = task.index + 1, len(self.stream.tasks)
        stop_after = self.job.execution.stop_after
        asked = self.host.stopping() or (stop_after is not None and done >= stop_after)
        if asked and done < tasks:
            raise StoppedError(f"stopped after task {done} of {tasks}")

    def _fresh_method(self) -> Method[Any]:
        self.at = -1
        return self._method(self.setting)

    def _method(self, setting: Setting) -> Method[Any]:
        return build_method(self.experiment.method, setting, self.job.code)

    @cached_property
    def setting(self) -> Setting:
        """What a method may know before the first task."""
        device = pick_device(self.job.execution.device)
        return Setting(
            class_names=self.stream.class_names,
            text=unit(self.stream.text).to(device),
            has_text=self.stream.has_text.to(device),
            logit_scale=self.experiment.backbone.logit_scale or self.data.logit_scale,
            init_seed=self.experiment.seeds["init"],
            validation=self.experiment.validation,
            device=device,
            encoder=self.data.encoder,
            crew=Crew.of(self.job.execution, self.experiment.backbone, self.pool)
            if self.data.encoder
            else None,
        )

    def _context(self, task: Task) -> Context:
        def load(stage: str) -> Mapping[str, Tensor] | None:
            found = self.store.get(self.identity.partial(task.index, stage))
            return None if found is None else found["partial.safetensors"]

        def save(stage: str, tensors: Mapping[str, Tensor]) -> None:
            cpu = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
            self.store.put(self.identity.partial(task.index, stage), {"partial.safetensors": cpu})

        return Context(
            task=task.index,
            pool=self.pool,
            observer=self.host.emit,
            stopping=self.host.stopping,
            load_partial=load,
            save_partial=save,
            draws=self.job.execution.draws,
            store=self.store,
        )

    def _result(
        self, stages: list[StagePredictions], probed: list[StagePredictions]
    ) -> dict[str, Any]:
        stream = self.stream
        evaluation = evaluate(
            stages,
            [task.classes for task in stream.tasks],
            scores_unseen=self._fresh_method().scores_unseen,
            missing_text=self._missing_text(),
            probed=None if self.probe is None else probed,
            why_no_probe=self._why_no_probe(),
        )
        self.kept.append(self.identity.state(len(stream.tasks) - 1).key)
        return {
            "result.json": {**self._description(), **evaluation.as_json(), **self._costs()},
            "splits.parquet": splits_table(stream),
            **({"method.py": self.job.code.text} if self.job.code else {}),
        }

    def _description(self) -> dict[str, Any]:
        stream, experiment = self.stream, self.experiment
        method = experiment.method
        return {
            "key": self.identity.result.key,
            "method": method.kind,
            "label": self.experiment.method_label,
            "stream": stream.name,
            "stream_label": self._stream_label(),
            "setting": self.identity.setting,
            "revisions": [LOOP_REVISION, METRICS_REVISION],
            "backbone": readable(experiment.backbone_name),
            "weights": list(self.identity.weights),
            "logit_scale": self.setting.logit_scale,
            "seeds": experiment.seeds,
            "protocol": stream.protocol,
            "tasks": [
                {"classes": list(t.classes), "train": len(t.train), "test": len(t.test)}
                for t in stream.tasks
            ],
            "class_names": list(stream.class_names),
            "missing_text": self._missing_text(),
            "warnings": self._warnings(),
            "corrupt": list(self.data.corrupt),
            "probe_stream": self._probe_description(),
            "experiment": described(experiment),
            "contents": list(self.identity.contents),
            "versions": versions(),
            "device": str(self.setting.device),
        }

    def _probe_description(self) -> dict[str, Any] | None:
        if self.probe is None or self.probe_data is None:
            return None
        return {
            "name": self.probe.name,
            "class_names": list(self.probe_data.source.class_names),
            "test": len(self.probe.test),
            "contents": list(self.identity.probe_contents),
            "corrupt": list(self.probe_data.corrupt),
        }

    def _stream_label(self) -> str:
        tasks, spec = len(self.stream.tasks), self.experiment.stream
        parts = [self.stream.name, f"{tasks} task{'s' if tasks > 1 else ''}"]
        if spec.shots:
            parts.append(f"{spec.shots} shots")
        if isinstance(spec, EmbeddingsStream) and spec.classes != "all":
            parts.append("classes with text")
        if self.probe is not None:
            parts.append(f"probe {self.probe.name}")
        if self.experiment.validation.judge == "held_out":
            parts.append("on validation")
        return ", ".join(parts)

    def _costs(self) -> dict[str, Any]:
        figures = [notes.get("figures", {}) for notes in self.history]
        return {
            **costs(self.history, self.embedding_seconds),
            **({"figures": figures} if any(figures) else {}),
        }


def splits_table(stream: Stream) -> pa.Table:
    """Which rows of the source each task trained on, held out and tested on."""
    parts = [
        (task.index, split, getattr(task, split).rows)
        for task in stream.tasks
        for split in ("train", "fit", "held_out", "test")
    ]
    sizes = [len(rows) for _, _, rows in parts]
    return pa.table(
        {
            "task": np.repeat(np.asarray([task for task, _, _ in parts], np.int32), sizes),
            "split": np.repeat(np.asarray([split for _, split, _ in parts]), sizes),
            "row": np.concatenate([rows for _, _, rows in parts]).astype(np.int64),
        }
    )


def readable(backbone: str) -> str:
    """A backbone's name without the folders that lead to its weights."""
    scheme, colon, rest = backbone.partition(":")
    return backbone if scheme == "hf-hub" else f"{scheme}{colon}{PurePath(rest).name}"


def versions() -> dict[str, str]:
    """What computed these numbers."""
    return {
        "raycl": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
