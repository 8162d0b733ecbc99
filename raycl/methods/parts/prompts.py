"""Keys as encoded prompts with soft tokens before the class name.

    k_c = normalise(TextEncoder([SOS][V_c: n soft tokens][others][name of c][.][EOT]))

`PromptAssembly` builds the prompt from whatever embedded tokens stand between SOS and the
name; `PromptLearner` owns soft tokens V, one set per class or one for all; `TokenHead` makes
a head of it. Gradients flow only into what stands before the name: the tower is frozen, and
the embeddings of SOS, name and EOT are looked up once per label space.

Exact savings: only the prompts of the label space are encoded, each up to its own EOT where
the tower allows it. Of more classes than `KEPT` the activations are computed again for the
gradient, shard by shard, so memory does not grow with the number of classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from raycl.backbones.text_tower import TextTower
from raycl.config.methods import TokenPrompt
from raycl.errors import ConfigError, DataError
from raycl.methods.method import Setting
from raycl.methods.parts.key_head import KeyHead, Trainable
from raycl.methods.parts.keys import columns, unit
from raycl.methods.parts.prompt_shards import SHARD, Crew, Shard, ShardEncoder

INIT_STD = 0.02
KEPT = 256
"""Of so many prompts the activations are kept between loss and gradient."""


class PromptAssembly:
    """The frozen parts of every class's prompt."""

    def __init__(
        self,
        tower: TextTower,
        class_names: Sequence[str],
        between: int,
        *,
        truncate: bool = True,
        crew: Crew | None = None,
    ) -> None:
        """`between` tokens will stand between SOS and the name. Without `truncate` prompts
        are encoded at the whole context: the same keys, for more work. A crew encodes in
        this process's stead."""
        self.tower, self.between, self.crew = tower, between, crew
        self.tokens = tower.tokenise([f"{name}." for name in class_names])
        self.ends = tower.ends(self.tokens)
        self.truncate = truncate and tower.can_truncate
        self._check_lengths(class_names)

    def _check_lengths(self, class_names: Sequence[str]) -> None:
        longest = int(self.ends.argmax())
        length = int(self.ends[longest]) + 1 + self.between
        if length > self.tower.context:
            raise DataError(
                f"the prompt of class {class_names[longest]!r} does not fit the text tower",
                got=f"{length} tokens of at most {self.tower.context}, {self.between} of them soft",
                do="use fewer soft tokens, or shorten the class name",
            )

    def of(self, classes: Tensor) -> Prompts:
        """The prompts of these classes, ready for what stands between."""
        classes = classes.cpu()
        ends = self.ends[classes]
        last = int(ends.max()) if self.truncate else self.tower.context - self.between - 1
        tokens, ends = self.tokens[classes, : last + 1], ends + self.between
        shards = [
            Shard(rows, tokens[rows].clone(), ends[rows].clone(), not self.truncate)
            for rows in (slice(at, at + SHARD) for at in range(0, len(ends), SHARD))
        ]
        return Prompts(self.tower, shards, self.crew)


class Prompts:
    """The prompts of some classes, all but what stands between SOS and the name."""

    def __init__(self, tower: TextTower, shards: Sequence[Shard], crew: Crew | None = None) -> None:
        self.shards, self.crew = shards, crew
        self.prompts = sum(len(shard.ends) for shard in shards)
        self.encoders = [] if crew else [ShardEncoder(tower, shard) for shard in shards]

    def keys(self, between: Tensor) -> Tensor:
        """(classes, width) unit keys; `between` is (classes, tokens, token width)."""
        if self.crew is not None:
            return unit(self.crew.encode(self.shards, between))
        between = between.to(self.encoders[0].rest.device)
        again = self.prompts > KEPT and torch.is_grad_enabled() and between.requires_grad
        out = []
        for shard, encoder in zip(self.shards, self.encoders, strict=True):
            part = between[shard.rows]
            if again:
                out.append(checkpoint(encoder, part, use_reentrant=False, preserve_rng_state=False))
            else:
                out.append(encoder(part))
        return unit(torch.cat(out))


class PromptLearner:
    """Soft tokens V of every class, or shared by all."""

    def __init__(self, setting: Setting, spec: TokenPrompt, others: int = 0) -> None:
        """`others`: how many tokens of another origin stand between V and the name."""
        tower = _tower(setting)
        self.setting, self.spec = setting, spec
        self.assembly = PromptAssembly(
            tower, setting.class_names, spec.tokens + others, crew=setting.crew
        )
        self.context = self._initial(tower)
        """(classes or 1, tokens, token width)"""

    def _initial(self, tower: TextTower) -> Tensor:
        rows = 1 if self.spec.shared else self.setting.classes
        if self.spec.init is not None:
            words = _embedded_words(tower, self.spec.init, self.spec.tokens)
            return words.repeat(rows, 1, 1).to(self.setting.device)
        noise = torch.empty(rows, self.spec.tokens, tower.token_width)
        noise.normal_(std=INIT_STD, generator=self.setting.generator("prompt"))
        return noise.to(self.setting.device)

    def rows(self, classes: tuple[int, ...]) -> Tensor:
        """Which rows of the context belong to these classes."""
        return columns((0,) if self.spec.shared else classes, self.context)

    def spread(self, context: Tensor, classes: int) -> Tensor:
        """The context of so many classes: a shared one repeated."""
        return context.expand(classes, -1, -1) if self.spec.shared else context

    def keys(self, classes: tuple[int, ...], others: Tensor | None = None) -> Tensor:
        """(classes, width) unit keys of these classes, `others` (classes, tokens, token
        width) standing after V."""
        prompts = self.assembly.of(columns(classes, self.context))
        soft = self.spread(self.context[self.rows(classes)], len(classes))
        between = soft if others is None else torch.cat([soft, others.to(soft)], dim=1)
        return prompts.keys(between).to(self.setting.device)


class TokenHead(KeyHead):
    """Keys of encoded prompts; a class never trained keeps its zero-shot text vector.

    That holds for a shared context too: a prompt that nothing has trained for a class is
    no better guess of it than its text.
    """

    def __init__(self, setting: Setting, spec: TokenPrompt) -> None:
        super().__init__(setting)
        self.learner = PromptLearner(setting, spec)
        self.trained = torch.zeros(setting.classes, dtype=torch.bool)

    def prepare(self, space: tuple[int, ...]) -> Trainable:
        learner = self.learner
        prompts = learner.assembly.of(columns(space, learner.context))
        moved = learner.context[learner.rows(space)].clone().requires_grad_()

        def keys() -> Tensor:
            return prompts.keys(learner.spread(moved, len(space))).to(self.setting.device)

        def keep(parameters: list[Tensor]) -> None:
            (learner.context[learner.rows(space)],) = parameters
            self.trained[list(space)] = True

        return Trainable([moved], keys, keep)

    def all_keys(self) -> Tensor:
        keys = self.setting.text.clone()
        trained = tuple(torch.nonzero(self.trained).flatten().tolist())
        if trained:
            keys[columns(trained, keys)] = self.learner.keys(trained)
        return keys

    def state(self, seen: tuple[int, ...]) -> dict[str, Tensor]:
        rows = self.learner.rows(seen)
        return {"context": self.learner.context[rows], "trained": self.trained[list(seen)]}

    def put_back(self, seen: tuple[int, ...], state: Mapping[str, Tensor]) -> None:
        context = self.learner.context
        context[self.learner.rows(seen)] = state["context"].to(context)
        self.trained[list(seen)] = state["trained"].cpu()


def _tower(setting: Setting) -> TextTower:
    if setting.encoder is None:
        raise ConfigError(
            "soft tokens need a text tower, and this stream's embeddings hold vectors only",
            got="method.prompt.kind=tokens",
            do="use method.prompt.kind=residual, or a stream of images",
        )
    if setting.encoder.width != setting.width:
        raise ConfigError(
            "the text tower's vectors and the stream's are of different width",
            got=f"{setting.encoder.width} and {setting.width}",
            do="name the backbone that the stream's vectors come from",
        )
    if not setting.encoder.text.has_start:
        raise ConfigError(
            "soft tokens stand after the token that texts begin with, and this tower has none",
            got="method.prompt.kind=tokens",
            do="use method.prompt.kind=residual, or a backbone with CLIP's own tokeniser",
        )
    return setting.encoder.text


def _embedded_words(tower: TextTower, words: str, tokens: int) -> Tensor:
    """(1, tokens, token width) of words that soft tokens start from."""
    ids = tower.tokenise([words])
    found = int(tower.ends(ids)[0]) - 1
    if found != tokens:
        raise ConfigError(
            "the words that soft tokens start from are of another number",
            got=f"{words!r} is {found} tokens, method.prompt.tokens={tokens}",
            do=f"set method.prompt.tokens={found}" if found else "name some words",
        )
    with torch.no_grad():
        return tower.embed(ids[:, 1 : found + 1]).float()
