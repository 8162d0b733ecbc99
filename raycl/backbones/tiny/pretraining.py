"""Pre-trains tiny-CLIP from nothing: drawn pictures, their captions, CLIP's own loss.

    loss = ½ CE(pictures → captions) + ½ CE(captions → pictures)

on exp(logit_scale) · cosine, where every other pair that is true as well is left out of
the softmax. Batch i is drawn from a random stream named i, so any number of drawing
processes gives the same pictures, and a killed run continues from its last checkpoint to
the same weights (on one kind of CPU, with the same number of threads).

The result is an open_clip `local-dir:` folder: a config, safetensors, and a vocabulary.
"""

from __future__ import annotations

import json
import math
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from raycl.backbones.tiny import CONFIG_FILE, VOCABULARY_FILE, WEIGHTS_FILE
from raycl.backbones.tiny.corpus import CORPUS_REVISION, Batch, draw_batch, sample_captions
from raycl.backbones.tiny.vocabulary import learn_merges, vocabulary_size, write_merges
from raycl.config.seeds import rng, seed_for
from raycl.drawing.fonts import DRAWING_REVISION
from raycl.drawing.scenes import SIZE
from raycl.errors import ConfigError
from raycl.whole_files import whole_file

CHECKPOINT_FILE = "pretraining.safetensors"
CONTEXT = 77
EMBED_DIM = 128
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
HIGHEST_SCALE = math.log(100.0)
DRAWN_AHEAD = 4
"""Batches waiting per drawing process."""


@dataclass(frozen=True)
class Plan:
    """What makes the weights what they are."""

    batches: int = 1500
    batch: int = 256
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    warm_up: int = 150
    seed: int = 0
    vision_width: int = 160
    vision_layers: int = 4
    patch: int = 8
    text_width: int = 128
    text_layers: int = 3


@dataclass(frozen=True)
class Told:
    """Where pre-training stands."""

    batch: int
    batches: int
    loss: float
    right: float
    """Share of the last batch's pictures whose best caption is a true one."""


def pretrain(
    plan: Plan,
    folder: Path,
    *,
    device: torch.device,
    drawers: int = 1,
    tell: Callable[[Told], None] = lambda told: None,
    stopping: Callable[[], bool] = lambda: False,
    save_every: int = 200,
) -> bool:
    """Write the finished folder; False if it was stopped before, to be continued."""
    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary(plan, folder)
    (folder / CONFIG_FILE).write_text(json.dumps(configuration(plan, folder), indent=2) + "\n")
    trainer = _Trainer(plan, folder, device)
    trainer.resume()
    for batch in drawn_batches(plan, trainer.done, drawers):
        told = trainer.step(batch)
        tell(told)
        stop = stopping() and trainer.done < plan.batches
        if stop or trainer.done % save_every == 0:
            trainer.save()
        if stop:
            return False
    trainer.finish()
    return True


def write_vocabulary(plan: Plan, folder: Path) -> None:
    """The merges, learnt from a sample of the captions."""
    captions = sample_captions(rng(plan.seed, "tiny-vocabulary"), 6000)
    write_merges(folder / VOCABULARY_FILE, learn_merges(captions))


def configuration(plan: Plan, folder: Path) -> dict[str, Any]:
    """The file by which open_clip builds the model and its preprocessing."""
    merges = tokeniser(folder).vocab_size - vocabulary_size(0)
    return {
        "model_cfg": {
            "embed_dim": EMBED_DIM,
            "vision_cfg": {
                "image_size": SIZE,
                "layers": plan.vision_layers,
                "width": plan.vision_width,
                "head_width": 32,
                "patch_size": plan.patch,
            },
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": vocabulary_size(merges),
                "width": plan.text_width,
                "heads": plan.text_width // 32,
                "layers": plan.text_layers,
            },
        },
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic"},
        "pretraining": {**asdict(plan), "corpus": CORPUS_REVISION, "drawing": DRAWING_REVISION},
    }


def tokeniser(folder: Path) -> SimpleTokenizer:
    """open_clip's tokeniser over the folder's own merges."""
    return SimpleTokenizer(str(folder / VOCABULARY_FILE), context_length=CONTEXT)


def drawn_batches(plan: Plan, first: int, drawers: int) -> Iterator[Batch]:
    """The batches from `first` on, in order, drawn by other processes (0: by this one)."""
    if drawers == 0:
        yield from (draw_numbered(plan, i) for i in range(first, plan.batches))
        return
    # Spawned, since a fork of a process with torch's threads may hang.
    context = get_context("spawn")
    with ProcessPoolExecutor(drawers, context, initializer=_leave_interrupts_alone) as pool:
        waiting: deque[Future[Batch]] = deque()
        for i in range(first, plan.batches):
            waiting.append(pool.submit(draw_numbered, plan, i))
            if len(waiting) >= DRAWN_AHEAD * drawers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _leave_interrupts_alone() -> None:
    """Ctrl-C reaches every process of a terminal; only the trainer is to answer it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def draw_numbered(plan: Plan, number: int) -> Batch:
    """Batch `number`, whoever draws it."""
    return draw_batch(rng(plan.seed, "tiny-corpus", number), plan.batch)


def as_pixels(pictures: Any) -> Tensor:
    """What the model's preprocessing makes of pictures of its own size."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


class _Trainer:
    """The model, its optimiser, and how far they are."""

    def __init__(self, plan: Plan, folder: Path, device: torch.device) -> None:
        self.plan, self.folder, self.device = plan, folder, device
        self.done = 0
        self.tokenise = tokeniser(folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(plan.seed, "tiny-weights") % 2**63)
            config = json.loads((folder / CONFIG_FILE).read_text())["model_cfg"]
            self.model = open_clip.CLIP(**config).to(device).train()
        matrices = [p for p in self.model.parameters() if p.ndim >= 2]
        others = [p for p in self.model.parameters() if p.ndim < 2]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": plan.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=plan.lr,
            betas=(0.9, 0.98),
            fused=True,
        )

    def step(self, batch: Batch) -> Told:
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        logits = self._logits(batch)
        own = torch.from_numpy(batch.caption).to(self.device)
        true = torch.from_numpy(batch.agreement).to(self.device)
        right = true.gather(1, logits.detach().argmax(1, keepdim=True)).float().mean()
        loss = contrast(logits, own, true)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0.0, HIGHEST_SCALE)
        self.done += 1
        return Told(self.done, self.plan.batches, loss.item(), right.item())

    def _logits(self, batch: Batch) -> Tensor:
        """(pictures, texts); the text tower runs on as many tokens as the longest has."""
        images = normalize(self.model.encode_image(as_pixels(batch.pictures).to(self.device)))
        tokens = self.tokenise(list(batch.texts)).to(self.device)
        texts = normalize(_encode_short(self.model, tokens))
        logits: Tensor = self.model.logit_scale.exp() * images @ texts.T
        return logits

    def _rate(self) -> float:
        if self.done < self.plan.warm_up:
            return self.plan.lr * (self.done + 1) / self.plan.warm_up
        share = (self.done - self.plan.warm_up) / max(1, self.plan.batches - self.plan.warm_up)
        return self.plan.lr * (0.5 * (1 + math.cos(math.pi * share)) * 0.99 + 0.01)

    def finish(self) -> None:
        # In half precision, as large models are published: half the bytes, the same answers.
        tensors = {k: v.detach().cpu().half() for k, v in self.model.state_dict().items()}
        _write(self.folder / WEIGHTS_FILE, tensors, {})
        (self.folder / CHECKPOINT_FILE).unlink(missing_ok=True)

    def save(self) -> None:
        """All that a continued run needs, written aside and then renamed."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in values.items()}
        cpu = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        _write(self.folder / CHECKPOINT_FILE, cpu, {"done": str(self.done), "plan": self._plan()})

    def resume(self) -> None:
        path = self.folder / CHECKPOINT_FILE
        if not path.exists():
            return
        with safe_open(path, "pt") as file:
            notes = file.metadata()
        if notes["plan"] != self._plan():
            raise ConfigError(
                "the folder holds another pre-training, half done",
                got=notes["plan"],
                do=f"continue that one, choose another folder, or delete {CHECKPOINT_FILE}",
            )
        tensors = load_file(path)
        self.model.load_state_dict(_below("model.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below("optimiser.", tensors).items():
            index, _, field = name.partition(".")
            state.setdefault(int(index), {})[field] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        self.done = int(notes["done"])

    def _plan(self) -> str:
        plan = {**asdict(self.plan), "corpus": CORPUS_REVISION, "drawing": DRAWING_REVISION}
        return json.dumps(plan, sort_keys=True)


def contrast(logits: Tensor, own: Tensor, true: Tensor) -> Tensor:
    """CLIP's loss, blind to pairs that are true though not each other's own."""
    per_pair = logits[:, own]
    other_truths = true[:, own] & ~torch.eye(len(own), dtype=torch.bool, device=own.device)
    blind = per_pair.masked_fill(other_truths, float("-inf"))
    target = torch.arange(len(own), device=own.device)
    return (cross_entropy(blind, target) + cross_entropy(blind.T, target)) / 2


def _encode_short(model: Any, tokens: Tensor) -> Tensor:
    length = int((tokens != 0).sum(1).max())
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    pooled = model.ln_final(x)[torch.arange(len(x)), tokens.argmax(1)]
    features: Tensor = pooled @ model.text_projection
    return features


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _write(path: Path, tensors: dict[str, Tensor], notes: dict[str, str]) -> None:
    with whole_file(path) as aside:
        save_file(tensors, aside, metadata={"format": "pt", **notes})
