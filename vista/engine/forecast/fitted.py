"""The formulas of directions that are fitted in the residual stream.

Symbols: d width of the stream, p visual tokens, n tokens that are fitted on, c concepts, m tokens
that one feature machine is fitted on, L blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

from vista.engine.forecast import formulas
from vista.engine.forecast.formulas import Device, Dictionaries
from vista.engine.forecast.model_shapes import LanguageShape

# As vista/interventions/feature_machine.py has them, which is not imported: numpy.
_EXAMPLES, _GRIDS, _ROUNDS, _HELD_OUT = 2000, 6, 10, 4
# What an entry of a kernel takes beside the products, in FLOP, and s of a round however small: of
# 300 to 1,500 tokens 5 to 120 ms were measured at d = 96.
_ENTRY, _ROUND = 1000.0, 5e-4
_ITERATIONS = 100  # of L-BFGS, of at most 500: 9 ms a concept measured at n = 8,000 and d = 96


def stream_flops(shape: LanguageShape, tokens: float, layers: Sequence[int]) -> float:
    """A pass over visual tokens up to the highest block that is read."""
    return formulas.forward_flops(shape, tokens, 0, blocks=max(layers) + 1)


def stream_memory(
    shape: LanguageShape, device: Device, layers: Sequence[int], batch: int, visual: int
) -> float:
    """As what reads latents, without SAEs."""
    return formulas.reading_memory(shape, device, Dictionaries(layers, [], []), batch, visual)


def sampled_tokens(images: int, visual: int, patches_per_image: int) -> int:
    """Tokens of images, at most: some patches of objects and as many others."""
    return images * min(visual, 2 * patches_per_image)


def fitting_seconds(method: str, cpu: Device, n: float, d: int, c: int) -> float:
    """Time of fitting directions after one block; 0 of a method that fits nothing.

    mean_difference: 4 n d FLOP a concept. logistic: 4 n d FLOP a concept and iteration. rfm: on m
    tokens of a concept and of others, 2,000 at most, if concepts are equally frequent (m = n / c);
    three of four are fitted on in up to 6 x 10 rounds, each with products with M and between all
    pairs, twice, and a solve (12 m d^2 + 6 m^2 d + m^3 / 3); at the end a decomposition (9 d^3).
    """
    if method == "mean_difference":
        return cpu.seconds(4.0 * n * d * c)
    if method == "logistic":
        return cpu.seconds(4.0 * n * d * c * _ITERATIONS)
    if method != "rfm":
        return 0.0
    m = min(_EXAMPLES, n / c) * (1 - 1 / _HELD_OUT)
    a_round = 12 * m * d**2 + 6 * m**2 * d + m**3 / 3 + _ENTRY * m**2
    rounds = _GRIDS * _ROUNDS
    return c * (rounds * (_ROUND + cpu.seconds(a_round)) + cpu.seconds(9.0 * d**3))


def fitting_bytes(n: float, d: int, layers: int) -> float:
    """Main memory while one block is fitted on: its tokens and their mean's rest in float64."""
    return 4.0 * n * d * max(2 * layers, layers + 4)
