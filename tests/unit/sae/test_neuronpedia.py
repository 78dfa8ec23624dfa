"""Neuronpedia's bulk export -> labels: choice, refusals, untrusted text, and the stage."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vista.config.sae import NeuronpediaSettings
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.inputs.latents import read_layer_labels
from vista.sae.label_table import FILE, LatentLabels, read_labels
from vista.sae.neuronpedia import read_export
from vista.stages import import_labels

MODEL, SOURCE = "gemma-2-2b", "5-gemmascope-res-16k"
D_SAE = 12
OPENAI, GEMINI = "oai_token-act-pair/gpt-4o-mini", "np_acts-logits-general/gemini-2.0-flash"


def explanation(index: int | str, text: Any, kind: str = OPENAI, **more: Any) -> Any:
    type_name, _, model = kind.partition("/")
    return {
        "id": f"c{index}",
        "modelId": MODEL,
        "layer": SOURCE,
        "index": str(index),
        "authorId": "someone",
        "description": text,
        "embedding": "[0.1,0.2]",
        "typeName": type_name,
        "explanationModelName": model,
        "umap_x": 0,
        **more,
    }


def feature(index: int, share: Any, **more: Any) -> Any:
    row = {"modelId": MODEL, "layer": SOURCE, "index": str(index), "maxActApprox": 30.2}
    return {**row, "frac_nonzero": share, "pos_str": ["cat"], "pos_values": [0.3], **more}


def write(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def export(folder: Path) -> Path:
    """Two batches of each kind; batch 10 comes after batch 2."""
    write(
        folder / "explanations/batch-2.jsonl.gz",
        [
            explanation(0, "references to cats and other pets"),
            explanation(0, "cats", GEMINI),
            explanation(3, "snow-covered mountains", GEMINI),
            explanation(4, None),
        ],
    )
    write(
        folder / "explanations/batch-10.jsonl.gz",
        [explanation(3, "weather words"), explanation(0, "feline animals", GEMINI)],
    )
    features = [feature(i, i / 1000) for i in range(D_SAE) if i != 7]
    write(folder / "features/batch-0.jsonl.gz", features[:6])
    write(folder / "features/batch-1.jsonl.gz", [*features[6:-1], feature(11, None)])
    return folder


def read(folder: Path, neuronpedia: str | None = None, **settings: Any) -> LatentLabels:
    given = NeuronpediaSettings(**{"path": str(folder), **settings})
    return read_export(folder, given, layer=5, d_sae=D_SAE, sae="gemma-l5", neuronpedia=neuronpedia)


def test_the_first_explanation_is_the_label_and_the_others_are_kept(tmp_path: Path) -> None:
    labels = read(export(tmp_path))
    expected: list[str | None] = [None] * D_SAE
    expected[0], expected[3] = "references to cats and other pets", "snow-covered mountains"
    assert list(labels.label_s) == expected
    assert labels.contexts_s[0] == (f"{GEMINI}: cats", f"{GEMINI}: feline animals")
    assert labels.contexts_s[3] == (f"{OPENAI}: weather words",)
    assert labels.share_s.tolist() == [float(label is not None) for label in expected]
    assert (labels.layer, labels.sae, labels.tokens) == (5, "gemma-l5", 0)


@pytest.mark.parametrize(
    ("order", "cat", "snow"),
    [
        ((GEMINI,), "cats", "snow-covered mountains"),
        (("np_acts-logits-general", OPENAI), "cats", "snow-covered mountains"),
        ((OPENAI, GEMINI), "references to cats and other pets", "weather words"),
    ],
)
def test_sets_of_explanations_have_an_order(
    order: tuple[str, ...], cat: str, snow: str, tmp_path: Path
) -> None:
    labels = read(export(tmp_path), explanations=order)
    assert (labels.label_s[0], labels.label_s[3]) == (cat, snow)


def test_a_latent_without_the_sets_asked_for_stays_unlabelled(tmp_path: Path) -> None:
    write(
        export(tmp_path) / "explanations/batch-11.jsonl.gz", [explanation(8, "x", "human/someone")]
    )
    labels = read(tmp_path, explanations=("human",))
    assert [i for i, label in enumerate(labels.label_s) if label] == [8]
    assert labels.contexts_s[3] == (f"{GEMINI}: snow-covered mountains", f"{OPENAI}: weather words")
    with pytest.raises(UserError, match=f"no explanations of other, only of .*{GEMINI}"):
        read(tmp_path, explanations=("other",))


def test_density_is_the_share_of_tokens_and_never_nan(tmp_path: Path) -> None:
    density = read(export(tmp_path)).density_s
    np.testing.assert_allclose(density[:7], np.arange(7) / 1000, rtol=1e-6)
    # A latent that the export says nothing about is masked as one never seen on text.
    assert density[7] == density[11] == 1.0


def test_without_features_the_density_must_be_set(tmp_path: Path) -> None:
    for path in export(tmp_path).glob("features/*"):
        path.unlink()
    with pytest.raises(UserError, match="set `density` under `labels`"):
        read(tmp_path)
    assert set(read(tmp_path, density=0.0).density_s.tolist()) == {0.0}


def test_text_of_strangers_is_plain_and_short(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>\x1b[2J \u202etac\u200b\ud800\nnext " + "x" * 500
    write(export(tmp_path) / "explanations/batch-0.jsonl.gz", [explanation(1, nasty)])
    label = read(tmp_path, max_length=60).label_s[1]
    assert label is not None
    assert len(label) == 60
    assert label.startswith("<script>alert(1)</script> [2J tac ? next xxx")
    assert label.endswith("x…")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ('{"modelId": ', "not JSON"),
        ("[1]", "not a JSON object"),
        (explanation(12, "x"), "latent 12, but the SAE has 12 latents"),
        (explanation(-1, "x"), "`index` is not"),
        (explanation("two", "x"), "`index` is not"),
        (explanation(1, "x", layer="6-gemmascope-res-16k"), "'6-gemmascope-res-16k'"),
        (explanation(1, "x", modelId="gpt2-small"), "'gpt2-small' where 'gemma-2-2b'"),
        (explanation(1, "x", layer=None), "no `layer`"),
        (explanation(1, 5), "`description` is not a text"),
    ],
)
def test_a_bad_line_is_named(row: Any, sentence: str, tmp_path: Path) -> None:
    write(export(tmp_path) / "explanations/batch-7.jsonl.gz", [explanation(1, "fine"), row])
    with pytest.raises(UserError, match=r"batch-7\.jsonl\.gz, line 2: ") as caught:
        read(tmp_path)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("share", [1.5, -0.1, "0.2", float("nan")])
def test_a_bad_density_is_named(share: Any, tmp_path: Path) -> None:
    write(export(tmp_path) / "features/batch-3.jsonl.gz", [feature(2, share)])
    with pytest.raises(UserError, match=r"features/batch-3\.jsonl\.gz, line 1: `frac_nonzero`"):
        read(tmp_path)


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    path = export(tmp_path) / "features/batch-1.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"batch-1\.jsonl\.gz, line \d+: cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl"])
def test_blank_lines_carriage_returns_and_a_byte_order_mark_change_nothing(
    suffix: str, tmp_path: Path
) -> None:
    expected = read(export(tmp_path))
    for path in sorted(tmp_path.glob("*/*.jsonl.gz")):
        text = gzip.decompress(path.read_bytes()).decode().replace("\n", "\r\n")
        content = f"\ufeff{text}\r\n \n\n".encode()
        path.unlink()
        name = path.name.removesuffix(".jsonl.gz") + suffix
        path.with_name(name).write_bytes(gzip.compress(content) if suffix[-1] == "z" else content)
        path.with_name(f"._{name}").write_bytes(b"\0\5\x16\7")  # macOS' own, beside each file
    labels = read(tmp_path)
    assert labels.label_s == expected.label_s
    assert labels.contexts_s == expected.contexts_s
    assert labels.density_s.tolist() == expected.density_s.tolist()


@pytest.mark.parametrize("index", [1, 1.0, "1", " 1", "1.0"])
def test_the_number_of_a_latent_may_be_text_or_float(index: Any, tmp_path: Path) -> None:
    write(tmp_path / "explanations/batch-0.jsonl.gz", [{**explanation(1, "cats"), "index": index}])
    assert read(tmp_path, density=0.0).label_s[1] == "cats"


@pytest.mark.parametrize("index", [True, None, [1], 1.5, "1e30", 2**80, -1])
def test_what_is_no_number_of_a_latent_is_named(index: Any, tmp_path: Path) -> None:
    write(tmp_path / "explanations/batch-0.jsonl.gz", [{**explanation(1, "cats"), "index": index}])
    with pytest.raises(UserError, match="`index` is not the number of a latent"):
        read(tmp_path, density=0.0)


def test_rows_that_are_left_out_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        explanation(1, "cats"),
        explanation(1, "cats"),
        explanation(1, "felines"),
        explanation(2, None),
        explanation(2, " \u200b"),
        "null",
        "",
    ]
    write(tmp_path / "explanations/batch-0.jsonl.gz", rows)
    shares = [feature(i, 0.5) for i in range(D_SAE)]
    write(tmp_path / "features/batch-0.jsonl.gz", [*shares, feature(3, 0.5), feature(4, None)])
    labels = read(tmp_path)
    assert labels.label_s[1:3] == ("cats", None)
    assert labels.contexts_s[1] == (f"{OPENAI}: felines",)
    assert capsys.readouterr().out == (
        f"{tmp_path}: 20 rows; left out: 2 explanations without text, 1 latents without density, "
        "1 repeated densities, 1 repeated explanations, 1 rows of null\n"
    )


def test_two_densities_of_one_latent_are_named(tmp_path: Path) -> None:
    write(export(tmp_path) / "features/batch-3.jsonl.gz", [feature(2, 0.002), feature(2, 0.25)])
    with pytest.raises(UserError, match=r"line 2: latent 2 has two densities, 0\.002 and 0\.25"):
        read(tmp_path)


def test_a_file_of_another_encoding_is_named(tmp_path: Path) -> None:
    write(tmp_path / "explanations/batch-0.jsonl.gz", [explanation(1, "cats")])
    path = tmp_path / "explanations/batch-0.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).decode().encode("utf-16")))
    with pytest.raises(UserError, match=r"batch-0\.jsonl\.gz, line 1: cannot be read"):
        read(tmp_path, density=0.0)


def test_labels_of_another_sae_are_refused(tmp_path: Path) -> None:
    export(tmp_path)
    own = f"{MODEL}/{SOURCE}"
    assert read(tmp_path, own).label_s[0]
    assert read(tmp_path, own, model=MODEL, source=SOURCE).label_s[0]
    with pytest.raises(UserError, match="of another SAE than the one at layer 5"):
        read(tmp_path, own, source="5-gemmascope-res-65k")
    with pytest.raises(UserError, match="where '5-gemmascope-res-65k' was asked for"):
        read(tmp_path, f"{MODEL}/5-gemmascope-res-65k")
    with pytest.raises(UserError, match="where '5-gemmascope-att-16k' was asked for"):
        read(tmp_path, source="5-gemmascope-att-16k")
    settings = NeuronpediaSettings(path=str(tmp_path))
    with pytest.raises(UserError, match="but the SAE reads layer 4"):
        read_export(tmp_path, settings, layer=4, d_sae=D_SAE, sae="gemma-l4")


def test_a_named_source_is_of_the_layer_that_the_sae_reads(tmp_path: Path) -> None:
    def labels_of(found: str, neuronpedia: str | None = None, **settings: Any) -> LatentLabels:
        rows = [explanation(0, "cats", layer=found)]
        write(tmp_path / "explanations/batch-0.jsonl.gz", rows)
        return read(tmp_path, neuronpedia, density=0.0, **settings)

    given = {"model": MODEL, "source": "6-res-jb"}
    for settings in ({}, {"source": "6-res-jb"}, given):
        with pytest.raises(UserError, match="labels of '6-res-jb', but the SAE reads layer 5"):
            labels_of("6-res-jb", **settings)
    # On the input of block 6: sae_lens' directory knows, its number does not.
    assert labels_of("6-res-jb", f"{MODEL}/6-res-jb", **given).label_s[0] == "cats"
    for plain in ("res-jb", "50k-res", "5-res-jb"):
        assert labels_of(plain, source=plain).label_s[0] == "cats"
        assert labels_of(plain).label_s[0] == "cats"


def test_labels_of_a_smaller_dictionary_are_refused(tmp_path: Path) -> None:
    settings = NeuronpediaSettings(path=str(export(tmp_path)))
    with pytest.raises(UserError, match="ends at latent 11, but the SAE has 48 latents"):
        read_export(tmp_path, settings, layer=5, d_sae=48, sae="wide")


def test_no_export_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a Neuronpedia export"):
        read(tmp_path)


def publish(root: Path, stage: str, inputs: Any, write: Callable[[Path], object]) -> Artifact:
    record = Provenance(stage, {}, inputs, "code", {})
    with publishing(root, stage, "one", record) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / "one")


def test_the_stage_gives_what_metrics_accept(tmp_path: Path) -> None:
    config = {"d_sae": D_SAE, "layer": 5, "name": "gemma-l5", "neuronpedia": f"{MODEL}/{SOURCE}"}
    sae = publish(
        tmp_path, "import_sae", {}, lambda work: (work / "sae.json").write_text(json.dumps(config))
    )
    fetched = publish(tmp_path, "fetch_labels", {}, lambda work: export(work / "export"))
    settings = {
        "labels": NeuronpediaSettings(model=MODEL, source=SOURCE).model_dump(),
        "layer": 5,
    }
    inputs = {"sae": sae, "export": fetched}
    digests = {role: artifact.digest for role, artifact in inputs.items()}
    labels = publish(
        tmp_path,
        "import_labels",
        digests,
        lambda work: import_labels.run(Job("import_labels", settings, {**inputs}, work)),
    )
    table = read_labels(labels.file(FILE))
    assert table.label_s[0] == "references to cats and other pets"
    latents = publish(
        tmp_path, "latents", {"saes": [sae.digest]}, lambda work: (work / "x").write_text("x")
    )
    reader: Any = SimpleNamespace(layers={5: D_SAE})
    assert read_layer_labels([labels], latents, reader)[5].label_s == table.label_s
    with pytest.raises(UserError, match="asked for layer 4"):
        import_labels.run(Job("import_labels", {**settings, "layer": 4}, {**inputs}, tmp_path))


def test_a_local_export_is_read_by_path_and_gives_the_same_bytes(tmp_path: Path) -> None:
    config = {"d_sae": D_SAE, "layer": 5, "name": "gemma-l5"}
    sae = publish(
        tmp_path, "import_sae", {}, lambda work: (work / "sae.json").write_text(json.dumps(config))
    )
    source = NeuronpediaSettings(path=str(export(tmp_path / "labels-5"))[:-1] + "{layer}")
    settings = {"labels": source.for_layer(5).model_dump(), "layer": 5}
    tables = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        import_labels.run(Job("import_labels", settings, {"sae": sae}, tmp_path / name))
        tables.append((tmp_path / name / FILE).read_bytes())
    assert tables[0] == tables[1]
