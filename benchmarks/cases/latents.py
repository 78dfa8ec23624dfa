"""Latents of all layers: encoding and storing them, and the memory that it takes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.case import Case, Size, seconds
from benchmarks.models import (
    SHAPES,
    Setup,
    Shapes,
    flops_limit,
    make_saes,
    require_same,
    stream_scale,
)
from benchmarks.profiles import torch_shares

USUAL = "usual: one image at a time, dense latents, reconstructions and residuals in float32 files"


def cases(size: Size, folder: Path) -> Iterator[Case]:
    """Yield the cases of the embedded sizes, of a 16k dictionary, and of the peak memory."""
    tiny = size == "tiny"
    both = _Both(_shapes(size), folder, 4 if tiny else 512)
    check(both)
    layers = len(both.saes)
    yield _case(
        "latents of all layers",
        f"{both.images} images, {layers} layers, tokens of image, text and control, dictionaries "
        f"of {both.shapes.d_sae}; {USUAL}, each image through the vision model again",
        both.ours,
        both.usual,
        both.encoded,
    )
    wide = _Wide(*((64, 512, 2) if tiny else (2304, 16_384, 4)))
    check(wide)
    yield _case(
        "latents, 16k dictionary",
        f"random residuals of {wide.images} images x {wide.patches} tokens, width {wide.width}, "
        f"one layer, a dictionary of {wide.d_sae}; {USUAL}",
        wide.ours,
        wide.usual,
        wide.encoded,
    )
    few = 4 if tiny else 256
    yield Case(
        "peak memory of encoding latents",
        f"{4 * few} images against {few}, the whole process, embedded sizes",
        ours=lambda: peak_bytes(4 * few, size),
        usual=lambda: peak_bytes(few, size),
        bar=1.1,
        at_most=True,
        unit="bytes",
    )


def _shapes(size: Size) -> Shapes:
    if size == "full":
        return SHAPES["embedded"]
    # One layer with an SAE: a store is many small files, whatever the images.
    language = {**SHAPES["tiny"].language, "num_hidden_layers": 2}
    return replace(SHAPES["tiny"], language=language)


def _case(
    name: str,
    work: str,
    ours: Callable[[Path], Any],
    usual: Callable[[Path], Any],
    encoded: Callable[[], Any],
) -> Case:
    def run(side: Callable[[Path], Any]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return seconds(lambda: side(Path(folder)))

    return Case(
        name,
        work,
        ours=lambda: run(ours),
        usual=lambda: run(usual),
        bar=3,
        limit=flops_limit(encoded, "the encoders' products"),
        profile=lambda: (
            torch_shares(lambda: run(usual)),
            torch_shares(lambda: run(ours)),
        ),
    )


def check(both: _Both | _Wide) -> None:
    """Raise unless both ways give the same latents and errors for the first images."""
    import torch

    from vista.store.latents import LatentReader

    with tempfile.TemporaryDirectory() as folder:
        (ours := Path(folder, "ours")).mkdir()
        (usual := Path(folder, "usual")).mkdir()
        both.ours(ours)
        both.usual(usual)
        reader = LatentReader(ours / "latents.zarr")
        for image in range(min(4, both.images)):
            saved = torch.load(usual / f"{image}.pt", weights_only=True)
            for layer, d_sae in reader.layers.items():
                found = reader.tokens(layer, "image", slice(image, image + 1))
                dense_ps = np.zeros((found.index.shape[1], d_sae), np.float32)
                rows = np.arange(len(dense_ps))[:, None]
                # Slots that are not in use add 0 to latent 0.
                np.add.at(dense_ps, (rows, found.index[0]), found.value[0].astype(np.float32))
                dense = {name: x[: len(dense_ps)] for name, x in saved[f"image/{layer}"].items()}
                usual_ps = dense["latents"].numpy()
                # From cached float16 features a latent may come out on the threshold's other side.
                other_ps = (dense_ps > 0) != (usual_ps > 0)
                threshold_s = both.saes[layer].threshold.numpy()
                crossed = np.maximum(dense_ps, usual_ps)[other_ps]
                if not np.allclose(crossed, threshold_s[np.nonzero(other_ps)[1]], rtol=0.01):
                    raise AssertionError("a latent fires in one way alone, far above its threshold")
                same_p = ~other_ps.any(-1)
                if same_p.mean() < 0.9:
                    raise AssertionError(f"other latents fire at {1 - same_p.mean():.0%} of tokens")
                # The store holds float16.
                require_same("latents", dense_ps[same_p], usual_ps[same_p], 1e-3)
                error_p = (dense["reconstruction"] - dense["residual"]).square().mean(-1)
                require_same("SAE errors", found.error[0][same_p], error_p[same_p], 1e-3)


class _Both(Setup):
    """The stage's loop and the usual way on the same models, images and texts."""

    def __init__(self, shapes: Shapes, folder: Path, images: int) -> None:
        from vista.config.projector import LatentsSettings
        from vista.data.records import Record, read_records, write_records
        from vista.projector.module import make_projector

        super().__init__(shapes, folder, images)
        d_vision = self.encoder.d_vision
        self.projector = make_projector("linear", d_vision, self.llm.d_model, seed=0)
        self.settings = LatentsSettings(max_active=shapes.d_sae)
        made = (
            Record(name, "test", f"{name}.png", 48, 48, turns=tuple(turns))
            for name, turns in zip(self.names, self.turns, strict=True)
        )
        write_records(folder / "records.parquet", made)
        self.records = read_records(folder / "records.parquet")

    def ours(self, folder: Path) -> None:
        """Write latents.zarr."""
        import torch

        from vista.inputs.visual_tokens import VisualTokens
        from vista.stages.latents import write_latents

        visual = VisualTokens(self.reader, np.arange(self.images), self.projector, self.llm)
        with torch.no_grad():
            write_latents(
                folder / "latents.zarr", self.llm, self.saes, self.records,
                np.arange(self.images), visual.of, self.reader.grid, self.settings,
            )  # fmt: skip

    def usual(self, folder: Path) -> None:
        """Write a file for each image."""
        from benchmarks.usual.latents import save_images

        save_images(
            folder, self.encoder.model, self.projector, self.llm.model, self.plain_saes,
            self.pixel_values, self.prompts,
        )  # fmt: skip

    @cached_property
    def prompts(self) -> list[tuple[Any, Any]]:
        """Ids [1, t] of each image's conversation and control text."""
        from vista.inputs.text_control import control_batch

        llm, longest = self.llm, self.settings.max_length
        return [
            (
                llm.batch([record.turns], self.n_visual, longest).input_ids,
                control_batch(llm, [record], longest).input_ids,
            )
            for record in self.records
        ]

    def encoded(self) -> None:
        """The products that no way can do without: each token through each encoder."""
        import torch

        tokens = sum(ids.shape[1] - 1 for pair in self.prompts for ids in pair)
        x_nd = torch.zeros(tokens, self.llm.d_model)
        for sae in self.saes.values():
            x_nd @ sae.W_enc


class _Wide:
    """Both ways from residuals on: one layer with a dictionary of published size."""

    patches = 256

    def __init__(self, width: int, d_sae: int, images: int) -> None:
        import torch

        from benchmarks.usual.models import plain_saes

        self.width, self.d_sae, self.images = width, d_sae, images
        shapes = Shapes({}, {}, d_sae)
        place = SimpleNamespace(d_model=width, device=torch.device("cpu"))
        self.saes = make_saes(shapes, place, (0,))
        self.plain_saes = plain_saes(self.saes)
        generator = torch.Generator().manual_seed(1)
        shape = (images, 1 + self.patches, width)
        self.x_btd = stream_scale(0) * torch.randn(shape, generator=generator)

    def ours(self, folder: Path) -> None:
        """Write latents.zarr with image tokens alone."""
        import torch

        from vista.stages.latents import write_tokens
        from vista.store.latents import LatentWriter

        slots = min(512, self.d_sae)
        side = round(self.patches**0.5)
        writer = LatentWriter(
            folder / "latents.zarr", [str(i) for i in range(self.images)], (side, side),
            {0: self.d_sae}, {"image": self.patches}, slots, self.width,
        )  # fmt: skip
        mask_bt = torch.ones(self.x_btd.shape[:2], dtype=torch.bool)
        mask_bt[:, 0] = False
        with torch.no_grad():
            shape = ("image", self.patches, slots)
            write_tokens(writer, shape, 0, {0: self.x_btd}, mask_bt, self.saes)
        writer.finish(0, "image")
        writer.close()

    def usual(self, folder: Path) -> None:
        """Write a file for each image."""
        from benchmarks.usual.latents import save_tokens

        for i in range(self.images):
            states = SimpleNamespace(hidden_states=(None, self.x_btd[i : i + 1]))
            save_tokens(folder / f"{i}.pt", {"image": states}, self.plain_saes)

    def encoded(self) -> None:
        """The products that no way can do without."""
        self.x_btd[:, 1:] @ self.saes[0].W_enc


def peak_bytes(images: int, size: Size) -> int:
    """Return the peak resident memory of a process that encodes so many images, bytes."""
    command = [sys.executable, "-m", "benchmarks.cases.latents", size, str(images)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout)


def main() -> None:
    """Encode in this process and print its peak memory, bytes."""
    with tempfile.TemporaryDirectory() as folder:
        shapes = _shapes("tiny" if sys.argv[1] == "tiny" else "full")
        _Both(shapes, Path(folder), int(sys.argv[2])).ours(Path(folder))
    # Not ru_maxrss, which a process inherits from the larger one that started it.
    status = Path("/proc/self/status").read_text()
    print(1024 * int(status.split("VmHWM:")[1].split()[0]))


if __name__ == "__main__":
    main()
