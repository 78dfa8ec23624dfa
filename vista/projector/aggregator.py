"""Spatial Vision Aggregator: queries that read windows of the maps of several encoders.

Cambrian-1 (arXiv 2406.16860, section 4; cambrian/model/vision_sampler.py of its authors): the place
of a query in the grid has a window in the map of each encoder, and the query attends to the tokens
of its own windows alone.

The features of a place hold its windows, encoder after encoder and token after token, so that one
store has the maps of all encoders, whatever their grids (stage combine_features, how: windows).

Legend of shape suffixes: b image, p place of the grid, v channels of all windows of a place, w
token of one window, k token of any window of a place, n place of any image, h hidden width, a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

# (tokens of a window, channels of a token), for each encoder.
Windows = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class AggregatorShape:
    """Sizes of an aggregator.

    Attributes:
        windows: Tokens of a window and their channels, for each encoder.
        hidden: Width of queries, keys and values.
        heads: Attention heads.
        depth: Layers of cross-attention.
        context: Whether queries know the mean of the first encoder's map.

    Raises:
        ValueError: A size is not positive, or `heads` does not divide `hidden`.
    """

    windows: Windows
    hidden: int = 1024
    heads: int = 16
    depth: int = 3
    context: bool = True

    def __post_init__(self) -> None:
        sizes = [self.hidden, self.heads, self.depth, *(n for pair in self.windows for n in pair)]
        if not self.windows or min(sizes) < 1 or self.hidden % self.heads:
            raise ValueError(f"impossible sizes of an aggregator: {self}")

    @property
    def channels(self) -> int:
        """Channels of all windows of a place."""
        return sum(tokens * width for tokens, width in self.windows)


class SpatialAggregator(nn.Module):
    """From the windows of each place to one token a place: [b, p, v] -> [b, p, h].

    The first query is a learned vector that all places share, as in the authors' program.
    """

    def __init__(self, shape: AggregatorShape) -> None:
        super().__init__()
        self.shape = shape
        self.inputs = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, shape.hidden),
                nn.GELU(),
                nn.Linear(shape.hidden, shape.hidden),
                nn.LayerNorm(shape.hidden),
            )
            for _, width in shape.windows
        )
        self.query_h = nn.Parameter(torch.empty(shape.hidden))
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.depth))

    def forward(self, features_bpv: Tensor) -> Tensor:
        b, p, _ = features_bpv.shape
        maps = []
        sizes = [tokens * width for tokens, width in self.shape.windows]
        parts = torch.split(features_bpv, sizes, dim=-1)
        for part, (tokens, width), read in zip(parts, self.shape.windows, self.inputs, strict=True):
            maps.append(read(part.reshape(b * p, tokens, width)))
        query_nh = self.query_h.expand(b * p, -1)
        context_nh = None
        if self.shape.context:
            mean_bh = maps[0].reshape(b, -1, self.shape.hidden).mean(1)
            context_nh = mean_bh[:, None].expand(-1, p, -1).flatten(0, 1)
        for block in self.blocks:
            query_nh = block(query_nh, context_nh, maps)
        return query_nh.reshape(b, p, -1)


class _Block(nn.Module):
    """One layer: a query reads its windows, then an MLP with a residual connection."""

    def __init__(self, shape: AggregatorShape) -> None:
        super().__init__()
        h = shape.hidden
        self.heads = shape.heads
        self.context = nn.Linear(h, h, bias=False) if shape.context else None
        self.enter = nn.Linear(2 * h if shape.context else h, h, bias=False)
        self.query = _normed(h)
        self.keys = nn.ModuleList(_normed(h) for _ in shape.windows)
        self.values = nn.ModuleList(_normed(h) for _ in shape.windows)
        # A window of one token has no places to tell apart.
        self.places = nn.ParameterDict(
            {
                str(i): nn.Parameter(torch.empty(tokens, h))
                for i, (tokens, _) in enumerate(shape.windows)
                if tokens > 1
            }
        )
        self.leave = nn.Linear(h, h, bias=False)
        self.norm = nn.LayerNorm(h)
        self.mlp = nn.Sequential(
            nn.Linear(h, h, bias=False), nn.GELU(), nn.Linear(h, h, bias=False)
        )

    def forward(
        self, query_nh: Tensor, context_nh: Tensor | None, maps_nwh: Sequence[Tensor]
    ) -> Tensor:
        inner_nh = query_nh
        if self.context is not None and context_nh is not None:
            inner_nh = torch.cat([query_nh, self.context(context_nh)], dim=-1)
        inner_nh = self.enter(inner_nh)
        inner_nh = inner_nh + self._read(inner_nh, maps_nwh)
        out_nh: Tensor = query_nh + self.mlp(self.norm(inner_nh))
        return out_nh

    def _read(self, inner_nh: Tensor, maps_nwh: Sequence[Tensor]) -> Tensor:
        """Cross-attention of each query to the tokens of its windows, of all encoders together."""
        placed = [
            map_nwh + self.places[str(i)] if str(i) in self.places else map_nwh
            for i, map_nwh in enumerate(maps_nwh)
        ]
        key_nkh, value_nkh = (
            torch.cat([read(map_nwh) for read, map_nwh in zip(reads, placed, strict=True)], dim=1)
            for reads in (self.keys, self.values)
        )
        read_na1e = functional.scaled_dot_product_attention(
            self._by_head(self.query(inner_nh)[:, None]),
            self._by_head(key_nkh),
            self._by_head(value_nkh),
        )
        read_nh: Tensor = self.leave(read_na1e.transpose(1, 2).flatten(1))
        return read_nh

    def _by_head(self, x_nkh: Tensor) -> Tensor:
        return x_nkh.reshape(*x_nkh.shape[:-1], self.heads, -1).transpose(1, 2)


def _normed(width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width, bias=False))


def draw_weights(module: SpatialAggregator, generator: torch.Generator) -> None:
    """Draw the first weights: of linear layers uniform in +-1 / sqrt(inputs), the places normal,
    the query normal with deviation 1 / sqrt(hidden); norms start as they are.

    A larger query, which all places share, drowns what they read: their tokens would be alike.
    """
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                for parameter in layer.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)
        module.query_h.normal_(std=module.shape.hidden**-0.5, generator=generator)
        for name, parameter in module.named_parameters():
            if ".places." in name:
                parameter.normal_(generator=generator)
