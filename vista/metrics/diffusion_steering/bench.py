"""Images of edited and unedited prompts, generated and classified.

Legend: n prompt, b image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vista.diffusion.attributes import value_in, with_value
from vista.inputs.pipeline import Judge, Pixels, Prompts
from vista.metrics.diffusion_steering.measure import PROMPT, Kind, Steered

if TYPE_CHECKING:
    import torch

    from vista.diffusion.pipeline import Edit, TextToImage


@dataclass(frozen=True, eq=False)
class Target:
    """A value that is steered to.

    Attributes:
        attribute: Its attribute.
        value: The value.
        latent: The latent that is added or ablated.
        auroc: AUROC of the latent for prompts with the value.
        random_latent: A control: another latent.
        direction: A control: a random direction [d].
    """

    attribute: str
    value: str
    latent: int
    auroc: float
    random_latent: int
    direction: torch.Tensor


@dataclass(frozen=True, eq=False)
class Task:
    """One edit of some prompts, given by their rows."""

    kind: Kind
    target: Target
    method: str
    coefficient: float
    rows: NDArray[np.int64]
    edit: Edit | None


class Bench:
    """Generates and classifies images of prompts, of each unedited prompt once."""

    def __init__(self, pipeline: TextToImage, prompts: Prompts, judge: Judge, seed: int) -> None:
        self.pipeline, self.prompts, self.judge = pipeline, prompts, judge
        self._seed = seed
        self._plain: dict[int, tuple[Pixels, dict[str, str]]] = {}
        # Edited images by (attribute, target, method, coefficient, row), for pictures.
        self.images: dict[tuple[str, str, str, float, int], Pixels] = {}

    def value(self, row: int, attribute: str) -> str | None:
        """Return the value of an attribute that a prompt names; None where it names none."""
        return value_in(self.prompts.text[row], self.judge.attributes[attribute])

    def measure(self, tasks: Iterable[Task]) -> list[Steered]:
        """Generate and classify the images of all tasks, and of their unedited prompts."""
        from vista.diffusion.pipeline import Sample

        tasks = [task for task in tasks if len(task.rows)]
        texts, seed = self.prompts.text, self._seed
        rows = sorted({int(row) for task in tasks for row in task.rows} - set(self._plain))
        if rows:
            images, values = self.judge.look(
                self.pipeline, [Sample(texts[row], seed + row) for row in rows]
            )
            for b, row in enumerate(rows):
                self._plain[row] = images[b], {name: str(values[name][b]) for name in values}
        samples = [
            Sample(self._text(task, row), seed + row, task.edit)
            for task in tasks
            for row in task.rows.tolist()
        ]
        images, values = self.judge.look(self.pipeline, samples)
        steered, start = [], 0
        for task in tasks:
            part, start = slice(start, start + len(task.rows)), start + len(task.rows)
            target = task.target
            for row, image in zip(task.rows.tolist(), images[part], strict=True):
                key = (target.attribute, target.value, task.method, task.coefficient, row)
                if task.kind == "add":
                    self.images[key] = image
            steered.append(
                Steered(
                    task.kind,
                    target.attribute,
                    target.value,
                    task.method,
                    task.coefficient,
                    task.rows,
                    before={
                        name: np.array([self._plain[row][1][name] for row in task.rows.tolist()])
                        for name in values
                    },
                    after={name: value_b[part] for name, value_b in values.items()},
                )
            )
        return steered

    def _text(self, task: Task, row: int) -> str:
        text, target = self.prompts.text[row], task.target
        if task.method != PROMPT:
            return text
        values = self.judge.attributes[target.attribute]
        if task.kind == "add":
            return with_value(text, values, target.value)
        # Ablated: replaced by the next value, since no caption is without one.
        return with_value(text, values, values[(values.index(target.value) + 1) % len(values)])

    def plain(self, row: int) -> Pixels:
        """Return the unedited image of a prompt."""
        return self._plain[row][0]

    def adherence(self) -> dict[str, tuple[NDArray[np.bool_], float]]:
        """Return, by attribute that some prompt names, whether each unedited image shows the value
        of its prompt, and how often it shows that of another."""
        shown = {}
        for name in self.judge.attributes:
            pairs = [
                (predicted[name], value)
                for row, (_, predicted) in sorted(self._plain.items())
                if (value := self.value(row, name)) is not None
            ]
            if not pairs:
                continue
            predicted_n, prompted_n = (np.array(column) for column in zip(*pairs, strict=True))
            same_nn = predicted_n[:, None] == prompted_n
            n = len(pairs)
            right_n = same_nn.diagonal()
            shown[name] = right_n, float((same_nn.sum() - right_n.sum()) / max(n * (n - 1), 1))
        return shown
