"""A method of your own in one file: k-nearest prototypes, chosen by farthest-point sampling.

Run it:      raycl run docs/examples/prototypes.py --stream digits
Check it:    raycl methods --check docs/examples/prototypes.py
Its options: --set method.options.per_class=8
"""

import torch
from pydantic import Field
from torch.nn.functional import normalize

from raycl import Context, Method, Setting, Spec, Task


class Options(Spec):
    """What can be set, with defaults; a misspelt option is refused."""

    per_class: int = Field(4, ge=1)


class Prototypes(Method[Options]):
    """Keeps a few of each class's own vectors; a class scores by its nearest one."""

    Options = Options

    def __init__(self, spec: Options, setting: Setting) -> None:
        super().__init__(spec, setting)
        self.kept = torch.zeros(0, setting.width)
        self.owner = torch.zeros(0, dtype=torch.long)

    def learn(self, task: Task, context: Context) -> None:
        """Only this task's samples are given; earlier ones are gone."""
        for c in task.classes:
            chosen = self.spread_out(normalize(task.train.x[task.train.y == c], dim=1))
            self.kept = torch.cat([self.kept, chosen])
            self.owner = torch.cat([self.owner, torch.full((len(chosen),), c)])

    def spread_out(self, x: torch.Tensor) -> torch.Tensor:
        """Begin nearest the mean, then add whatever lies farthest from those chosen."""
        if len(x) == 0:
            return x
        chosen = [int((x @ x.mean(dim=0)).argmax())]
        while len(chosen) < min(self.spec.per_class, len(x)):
            nearest = (x @ x[chosen].T).amax(dim=1)
            chosen.append(int(nearest.argmin()))
        return x[chosen]

    def seen_scores(self, x: torch.Tensor) -> torch.Tensor:
        """One column per class in `self.seen`; the highest wins."""
        cosine = normalize(x, dim=1) @ self.kept.T
        columns = [
            cosine[:, self.owner == c].amax(dim=1)
            if bool((self.owner == c).any())
            else torch.full((len(x),), -torch.inf)
            for c in self.seen
        ]
        return torch.stack(columns, dim=1)

    def state(self) -> dict[str, torch.Tensor]:
        """All that is kept between tasks, as tensors."""
        return {"kept": self.kept, "owner": self.owner}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Become the method whose state this was."""
        self.kept, self.owner = state["kept"].clone(), state["owner"].clone()
