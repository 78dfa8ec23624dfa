"""Controls on planted projectors: what is known beforehand of their visual tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.published import publish
from tests.tiny_llm import tiny_llama
from vista.config.controls import control_names, control_settings
from vista.controls.kinds import (
    constant_token,
    norm_matched,
    other_image,
    permuted_patches,
    random_projector,
    snapped,
    true_words,
)
from vista.controls.sources import Sources, scaled
from vista.data.records import Box, Object, Record, RecordTable, read_records, write_records
from vista.errors import UserError
from vista.inputs.visual_tokens import read_visual_tokens
from vista.language.model import LanguageModel
from vista.projector.control_tokens import TABLE, ControlTokens, load_replacement, save_control
from vista.projector.module import Projector, make_projector
from vista.store.features import FeatureReader, FeatureWriter

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "cat", "dog", "fire", "truck", "background"]
D_VISION, D_MODEL, N = 5, 16, 12
GRID = (2, 2)
PLACING = {"size": 16, "patch": 8, "fit": "pad", "per_patch": 1}


@pytest.fixture(scope="module")
def llm() -> LanguageModel:
    return tiny_llama(WORDS, D_MODEL)


def planted_records() -> list[Record]:
    """The object covers the upper left patch; the first half of the images is validation."""
    return [
        Record(
            f"image_{i}",
            "validation" if i < N // 2 else "test",
            f"image_{i}.png",
            16,
            16,
            objects=(Object("cat" if i % 2 else "fire truck", Box(0.0, 0.0, 8.0, 8.0)),),
        )
        for i in range(N)
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("artifacts")

    def write_features(work: Path) -> None:
        ids = [f"image_{i}" for i in range(N)]
        writer = FeatureWriter(work / "features.zarr", ids, GRID, D_VISION, "float32")
        values = np.random.default_rng(0).normal(size=(N, 4, D_VISION)) + 1.0
        writer.write_shard(0, values.astype(np.float32))
        writer.close()

    return {
        "root": root,
        "features": publish(root, "features/f", write_features),
        "records": publish(
            root, "records/r", lambda w: write_records(w / "records.parquet", planted_records())
        ),
    }


@pytest.fixture(scope="module")
def records(made: dict[str, Any]) -> RecordTable:
    return read_records(made["records"].file("records.parquet"))


def trained(seed: int = 1, kind: str = "linear") -> Projector:
    return make_projector(kind, D_VISION, D_MODEL, seed).requires_grad_(False).eval()


@pytest.fixture
def sources(made: dict[str, Any], records: RecordTable, llm: LanguageModel) -> Sources:
    return Sources(
        trained=trained(),
        compared=None,
        features=FeatureReader(made["features"].store("features.zarr")),
        image_of=records.feature_rows()[1],
        records=records,
        load_llm=lambda: llm,
        placing=PLACING,
        splits=("test", "validation"),
        seed=0,
    )


def tokens_of(
    made: dict[str, Any], records: RecordTable, llm: LanguageModel, name: str, tokens: ControlTokens
) -> Callable[[Any], torch.Tensor]:
    """The visual tokens that stages read from the published artifact of a control."""
    artifact = publish(
        made["root"],
        f"control_tokens/{name}",
        lambda work: save_control(work, name, tokens, records, np.arange(N)),
    )
    return read_visual_tokens(artifact, made["features"], records, llm).of


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_an_effect_of_scale_alone_vanishes_under_norm_matched(sources: Sources, kind: str) -> None:
    base = trained(kind=kind)
    compared = scaled(base, 0.37)
    made = norm_matched.make(
        replace(sources, trained=base, compared=compared), norm_matched.Settings()
    )
    assert made.facts["factor"] == pytest.approx(0.37, rel=1e-5)
    features = torch.randn(3, 4, D_VISION)
    assert made.projector is not None
    torch.testing.assert_close(made.projector(features), compared(features))


def test_an_effect_of_direction_stays_under_norm_matched(sources: Sources) -> None:
    compared = scaled(trained(seed=2), 0.5)
    control = norm_matched.make(replace(sources, compared=compared), norm_matched.Settings())
    rows = sources.rows("validation", 256)
    assert control.projector is not None
    assert sources.rms_norm(rows, control.projector) == pytest.approx(
        sources.rms_norm(rows, compared), rel=1e-5
    )
    features = torch.randn(3, 4, D_VISION)
    ours, theirs = control.projector(features), compared(features)
    cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=-1)
    assert cosine.abs().max() < 0.95


def test_the_norm_is_that_of_the_named_split_by_hand(sources: Sources) -> None:
    rows = sources.rows("validation", 4)
    assert rows.tolist() == [0, 1, 2, 3]
    features = sources.features.read(sources.image_of[rows])
    stacked = sources.projector(torch.from_numpy(features)).flatten(0, 1).numpy()
    by_hand = np.sqrt((np.linalg.norm(stacked, axis=1) ** 2).mean())
    assert sources.rms_norm(rows, sources.projector) == pytest.approx(by_hand, rel=1e-6)
    with pytest.raises(UserError, match="no image of split 'train'"):
        sources.rows("train", 4)


def test_random_projector_differs_by_seed_and_has_the_norm(sources: Sources) -> None:
    settings = random_projector.Settings()
    first, second = (
        random_projector.make(replace(sources, seed=seed), settings) for seed in (0, 1)
    )
    rows = sources.rows("validation", 256)
    for made in (first, second):
        assert made.projector is not None
        assert sources.rms_norm(rows, made.projector) == pytest.approx(
            sources.rms_norm(rows, sources.projector), rel=1e-5
        )
    assert first.projector is not None and second.projector is not None
    weights = [p.linears()[0].weight for p in (first.projector, second.projector)]
    assert not torch.allclose(*weights)


def test_constant_token_is_the_mean_at_every_patch(
    made: dict[str, Any], records: RecordTable, llm: LanguageModel, sources: Sources
) -> None:
    control = constant_token.make(sources, constant_token.Settings(images=6))
    read = tokens_of(made, records, llm, "constant_token", control)([0, 7, 9])
    features = sources.features.read(sources.image_of[:6])
    mean = sources.projector(torch.from_numpy(features)).mean((0, 1))
    torch.testing.assert_close(read, mean.expand(3, 4, -1))


def test_other_image_is_never_its_own_and_of_its_split(
    made: dict[str, Any], records: RecordTable, llm: LanguageModel, sources: Sources
) -> None:
    control = other_image.make(sources, other_image.Settings())
    read = tokens_of(made, records, llm, "other_image", control)
    plain = sources.projector(torch.from_numpy(sources.features.read(sources.image_of)))
    rows = [11, 2, 6, 0]
    for row, seen in zip(rows, read(rows), strict=True):
        equal = [i for i in range(N) if torch.allclose(seen, plain[i], atol=1e-6)]
        assert len(equal) == 1 and equal != [row]
        assert (equal[0] < N // 2) == (row < N // 2)


def test_permuted_patches_keep_the_content_of_each_image(
    made: dict[str, Any], records: RecordTable, llm: LanguageModel, sources: Sources
) -> None:
    control = permuted_patches.make(sources, permuted_patches.Settings())
    read = tokens_of(made, records, llm, "permuted_patches", control)(range(N))
    plain = sources.projector(torch.from_numpy(sources.features.read(sources.image_of)))
    assert not torch.allclose(read, plain)
    torch.testing.assert_close(
        read.sort(dim=1).values, plain.sort(dim=1).values, rtol=1e-5, atol=1e-5
    )


def test_true_words_are_embeddings_of_what_is_at_the_patch(
    made: dict[str, Any], records: RecordTable, llm: LanguageModel, sources: Sources
) -> None:
    control = true_words.make(replace(sources, trained=None), true_words.Settings())
    read = tokens_of(made, records, llm, "true_words", control)([0, 7])
    # Of "fire truck" the last token counts; the other three patches hold nothing.
    words = [["truck", *["background"] * 3], ["cat", *["background"] * 3]]
    ids = torch.tensor([[WORDS.index(word) for word in row] for row in words])
    torch.testing.assert_close(read, llm.model.get_input_embeddings()(ids))


def test_snapped_tokens_are_the_words_of_the_largest_cosine(
    made: dict[str, Any], records: RecordTable, llm: LanguageModel, sources: Sources
) -> None:
    table = llm.model.get_input_embeddings().weight.detach().numpy()
    projector = trained(seed=4)
    control = snapped.make(replace(sources, trained=projector), snapped.Settings())
    read = tokens_of(made, records, llm, "snapped", control)([3]).numpy()[0]
    plain = projector(torch.from_numpy(sources.features.read(sources.image_of[[3]]))).numpy()[0]
    cosine = (plain / np.linalg.norm(plain, axis=1, keepdims=True)) @ (
        table / np.linalg.norm(table, axis=1, keepdims=True)
    ).T
    cosine[:, :4] = -2.0  # special tokens
    np.testing.assert_allclose(read, table[cosine.argmax(axis=1)], rtol=1e-6)


def test_a_control_without_a_row_for_an_image_is_refused(
    made: dict[str, Any], records: RecordTable, llm: LanguageModel, sources: Sources
) -> None:
    control = other_image.make(sources, other_image.Settings())
    artifact = publish(
        made["root"],
        "control_tokens/half",
        lambda work: save_control(work, "other_image", control, records, np.arange(N // 2)),
    )
    visual = read_visual_tokens(artifact, made["features"], records, llm)
    with pytest.raises(UserError, match=f"{TABLE} of the control has no row for an image"):
        visual.of([N - 1])


def test_a_damaged_control_is_refused(
    made: dict[str, Any], records: RecordTable, sources: Sources, tmp_path: Path
) -> None:
    control = other_image.make(sources, other_image.Settings())
    save_control(tmp_path, "other_image", control, records, np.arange(N))
    assert load_replacement(tmp_path, records) is not None
    (tmp_path / TABLE).write_bytes(b"[]")
    with pytest.raises(UserError, match="not the table of a control"):
        load_replacement(tmp_path, records)


def test_every_control_says_what_it_is() -> None:
    assert {"norm_matched", "text_scale", "best_scale", "norm_penalty"} <= set(control_names())
    for name in control_names():
        assert control_settings(name).__doc__
