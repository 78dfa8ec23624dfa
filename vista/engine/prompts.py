"""One formatted sample of each language model of a plan, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vista.config.language import LanguageSettings
from vista.engine.forecast.folders import LANGUAGE, problems
from vista.engine.forecast.shapes import Shapes, many, one
from vista.engine.node import Node
from vista.engine.plan import Plan
from vista.errors import UserError

if TYPE_CHECKING:
    from vista.language.prompt import QuestionAnswer

# Visual tokens that are shown where the encoder's size is not known yet.
_VISUAL = 1
# Rows of the records that are looked at for one with a conversation.
_ROWS = 1000


def prompts(plan: Plan) -> str:
    """Return a sample of each language model that is shown images: the text with its special
    tokens, the place of the visual tokens, and what is learnt in «».

    The sample is the first one of the records where they are there. Loads tokenizers, no models.

    Raises UserError where a prompt cannot be written as the config says.
    """
    shapes = Shapes(Path(plan.results), plan.nodes.values())
    return "\n\n".join(_prompt(node, shapes) for node in _shown_images(shapes))


def refusals(plan: Plan) -> list[str]:
    """Return a sentence for each pretrained language model that is there and whose prompts cannot
    be written as the config says, such as visual tokens within the header of a turn.

    Stand-ins are passed over: their tokenizers are this package's own. Loads tokenizers, no models,
    and nothing where no pretrained model is there.
    """
    shapes = Shapes(Path(plan.results), plan.nodes.values())
    refused = []
    for node in _shown_images(shapes):
        pretrained, folder = node.order["llm"]["source"]["kind"] != "standin", _folder(node, shapes)
        # What else a folder lacks, `missing` tells.
        if pretrained and folder and folder.is_dir() and not list(problems(LANGUAGE, folder)):
            try:
                _prompt(node, shapes)
            except UserError as error:
                refused.append(f"prompts of the language model {folder} are refused: {error}.")
    return refused


def _shown_images(shapes: Shapes) -> list[Node]:
    """One node of each language model that is shown images, by its settings."""
    first: dict[tuple[str, Node | None], Node] = {}
    for node in shapes.nodes:
        if node.stage == "latents":
            # The settings of a model that two entries share may differ in their prompts.
            first.setdefault((str(node.order["llm"]), one(node, "llm")), node)
    return list(first.values())


def _folder(node: Node, shapes: Shapes) -> Path | None:
    """The folder of a node's language model; None where it is not made yet."""
    made = one(node, "llm")
    if made is None:
        source = LanguageSettings.model_validate(node.order["llm"]).source
        return Path(str(getattr(source, "path", "")))
    return shapes.results / made.path / "model" if shapes.done(made) else None


def _prompt(node: Node, shapes: Shapes) -> str:
    from transformers import AutoTokenizer

    from vista.foreign.pretrained import load_part, loading
    from vista.language.prompt import build_batch, sample_text
    from vista.language.template import choose_template

    settings, folder = LanguageSettings.model_validate(node.order["llm"]), _folder(node, shapes)
    if folder is None:
        (made,) = many(node, "llm")
        return f"{made.path}: its prompt can be shown once it is there."
    with loading(f"{folder}: its tokenizer could not be read", "a save_pretrained folder"):
        tokenizer = load_part(AutoTokenizer, folder)
    choose_template(tokenizer, settings.template, folder)
    shape = shapes.features(node)
    turns = _turns(one(node, "records"), shapes)
    batch = build_batch(
        tokenizer,
        [turns],
        shape.patches if shape else _VISUAL,
        node.order["latents"]["max_length"],
        settings.placement,
        settings.system,
    )
    text = sample_text(tokenizer, batch)
    return f"{folder}, template: {settings.template}, placement: {settings.placement}\n{text}"


def _turns(records: Node | None, shapes: Shapes) -> Sequence[QuestionAnswer]:
    """The first conversation of the records; a made-up one where there is none."""
    from vista.data.records import Turn, read_records

    question = "Describe the image."
    if records is not None and shapes.done(records):
        table = read_records(shapes.results / records.path / "records.parquet")
        for record in islice(table, _ROWS):
            if record.turns:
                return record.turns
    elif records is not None:
        question = records.settings.get("question", question)
    return [Turn(question, "This is the caption.")]
