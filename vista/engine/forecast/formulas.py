"""The formulas of the forecast: bytes on disk, bytes on a GPU, seconds. Pure numbers.

Symbols: d width of the stream, m width of the MLP, h heads, s latents of an SAE, v vocabulary,
T tokens a sample, e bytes of a number in the model's dtype.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vista.config.published import VisionShape
from vista.engine.forecast.model_shapes import LanguageShape

_ITEM = {"float32": 4, "bfloat16": 2, "float16": 2}

# What no setting tells; `render` states the most important of it.
TEXT_TOKENS = 128  # of a sample, beside the visual ones, where the data do not tell
L0 = 99.0  # active latents a token, of an SAE that is not trained here
BYTES_A_VALUE = 3.4  # of a sparse latent on disk: 330 B a token measured at an L0 of 99
PEAK = {"float32": 67e12, "bfloat16": 989e12, "float16": 989e12}  # H200 data sheet, dense, FLOP/s
SHARE = 0.4  # of peak and bandwidth that is reached
BANDWIDTH = 4.8e12  # H200 data sheet, bytes/s
# FLOP/s of a thread that small models reach, of 99e9 in large products: of the default run
# train_encoder reached 40e9; train_llm and train_sae 27e9, train_projector 19e9.
CPU_RATE = 40e9
STANDIN_LLM_CPU_RATE = 20e9
# The same of pretrained models: 72e9 of DINOv2-S on images of 126 px, 67e9 of a projector's steps
# through SmolLM2-135M, one thread of a Xeon.
PRETRAINED_CPU_RATE = 70e9
CPU_BANDWIDTH = 10e9  # bytes/s
_LAUNCH = 1e-3  # s a block and decoding step on a GPU, however little is computed
_CONTEXT = 1e9  # bytes that CUDA takes for itself
_DENSE = 256e6  # bytes of the dense activations that a neutral SAE makes at once
_ENCODED_ROWS = 4096  # tokens that an SAE encodes densely at once when its latents are stored


@dataclass(frozen=True)
class Device:
    """What a job computes on."""

    gpu: bool
    dtype: str
    threads: int
    cpu_rate: float = CPU_RATE

    @property
    def item(self) -> int:
        """Bytes of a number in the model's dtype."""
        return _ITEM[self.dtype]

    def memory(self, estimate: float | None) -> float | None:
        """GPU memory: an estimate, or 0 on a CPU."""
        return estimate if self.gpu else 0.0

    def seconds(self, flops: float, float32_flops: float = 0.0) -> float:
        """Time of work in the model's dtype, and of work in float32 (that of SAEs)."""
        if not self.gpu:
            return (flops + float32_flops) / (self.cpu_rate * self.threads)
        return (flops / PEAK[self.dtype] + float32_flops / PEAK["float32"]) / SHARE

    def decoding_seconds(self, steps: float, shape: LanguageShape) -> float:
        """Time of generating token by token: a step reads all weights once."""
        weights = shape.parameters * self.item
        if not self.gpu:
            return steps * weights / CPU_BANDWIDTH
        return steps * max(weights / (SHARE * BANDWIDTH), shape.blocks * _LAUNCH)


@dataclass(frozen=True)
class Dictionaries:
    """The SAEs of a job: the layer of each, its latents and how many are active a token."""

    layers: Sequence[int]
    widths: Sequence[int]
    active: Sequence[float]

    @property
    def latents(self) -> int:
        """Latents of all of them."""
        return sum(self.widths)

    def weight_bytes(self, d_model: int) -> float:
        """Encoder and decoder of each in float32: 2 d s x 4."""
        return 8.0 * d_model * self.latents


NONE = Dictionaries((), (), ())


def feature_bytes(images: int, shape: VisionShape) -> float:
    """Disk of dense features: images x patches x d_vision x 2 (fp16, not compressed)."""
    return 2.0 * images * shape.patches * shape.d_vision


def latent_bytes(images: int, tokens: int, saes: Dictionaries) -> float:
    """Disk of latents: images x tokens x layers x L0 x 3.4; twice, with the index by latent."""
    return 2.0 * BYTES_A_VALUE * images * tokens * sum(saes.active)


def sae_bytes(d_model: int, d_sae: int, item: int = 4) -> float:
    """Disk of an SAE: encoder and decoder, 2 d s numbers."""
    return 2.0 * d_model * d_sae * item


def projector_parameters(kind: str, d_vision: int, d_model: int) -> float:
    """Weights and biases of a linear projector, or of one with a second layer."""
    second = (d_model + 1) * d_model if kind == "mlp" else 0
    return float((d_vision + 1) * d_model + second)


def aggregator_parameters(d_vision: int, d_model: int, hidden: int, depth: int) -> float:
    """Matrices of an aggregator and of the two layers behind it, as if its one encoder had windows
    of one token: few patches a window make it less, several encoders more."""
    block = (2 + 1 + 2 + 1 + 1 + 2) * hidden**2
    return float((d_vision + hidden) * hidden + depth * block + (hidden + d_model) * d_model)


def text_tokens(length: int, visual: int) -> int:
    """Text tokens that are assumed of a sample: at most what `length` leaves beside `visual`."""
    return max(0, min(TEXT_TOKENS, length - visual - 1))


def forward_flops(shape: LanguageShape, tokens: float, text: float, blocks: int = 0) -> float:
    """One pass: 2 x the blocks' parameters a token, and 2 v d a text token for the head.

    `blocks`: a pass that ends after so many, without the head; 0: a whole one. The part of
    attention that grows with the square of T is left out: below 5 % at 512 tokens.
    """
    if blocks:
        return 2.0 * shape.block_parameters * tokens * blocks / shape.blocks
    return 2.0 * (shape.block_parameters * tokens + shape.vocabulary * shape.d_model * text)


def sae_flops(d_model: int, saes: Dictionaries, tokens: float, decoded: bool) -> float:
    """2 d s a token for encoding at each layer, as much again for decoding."""
    return (4.0 if decoded else 2.0) * d_model * saes.latents * tokens


def block_bytes(shape: LanguageShape, length: int, item: int) -> float:
    """GPU memory of one block's activations a token, as the backward pass keeps them.

    e (3 m + 4 h head_dim): both factors of the gated MLP and what its activation gives; queries,
    keys, values and what attention gives. 14 d: norms, which compute in float32. Inputs of frozen
    layers are not kept. Where scores are computed in full (Gemma 2), h T (2 e + 4) besides: capped
    scores, and probabilities in e and float32. Exact for Gemma 2, 20 % too much for Llama, counted
    in both at a small width.
    """
    linear = item * (3 * shape.d_mlp + 4 * shape.heads * shape.head_dim) + 14 * shape.d_model
    scores = shape.heads * length * (2 * item + 4) if shape.eager else 0
    return float(linear + scores)


def features_flops(shape: VisionShape) -> float:
    """A pass over an image: 2 x the parameters a token, or what a model of another kind takes."""
    if shape.image_flops is not None:
        return shape.image_flops
    return 2.0 * shape.parameters * (shape.patches + shape.prefix)


def features_memory(shape: VisionShape, device: Device, batch: int) -> float:
    """Weights, and one block's activations (14 d numbers a token) of a batch of images, or those of
    a model of another kind."""
    kept = shape.image_bytes
    if kept is None:
        kept = 14.0 * (shape.patches + shape.prefix) * shape.d_vision * device.item
    return _CONTEXT + device.item * shape.loaded + batch * kept


def training_memory(
    shape: LanguageShape,
    device: Device,
    saes: Dictionaries,
    batch: int,
    length: int,
    visual: int,
    projector: float,
) -> float:
    """Weights, SAEs (their encoders twice), every block's activations of a micro-batch of samples
    of full length; three float32 copies of the logits at text positions and of one SAE's latents at
    visual ones, and a byte of each latent of all; 16 bytes a weight of the projector (value,
    gradient, AdamW's moments)."""
    kept = batch * length * shape.blocks * block_bytes(shape, length, device.item)
    logits = 12.0 * batch * max(0, length - visual) * shape.vocabulary
    latents = 1.0 * batch * visual * (saes.latents + 12 * max(saes.widths, default=0))
    frozen = shape.loaded * device.item + 1.5 * saes.weight_bytes(shape.d_model)
    return _CONTEXT + frozen + kept + logits + latents + 16 * projector


def reading_memory(
    shape: LanguageShape,
    device: Device,
    saes: Dictionaries,
    batch: int,
    length: int,
    encoded: int = _ENCODED_ROWS,
) -> float:
    """Weights, SAEs, one block's activations of a batch, the stream at each layer that is read
    (also in float32), and three float32 copies of `encoded` tokens' latents of one SAE."""
    tokens = batch * length
    stream = tokens * len(saes.layers) * shape.d_model * (device.item + 4)
    latents = 12.0 * encoded * max(saes.widths, default=0)
    frozen = shape.loaded * device.item + saes.weight_bytes(shape.d_model)
    return _CONTEXT + frozen + tokens * block_bytes(shape, length, device.item) + stream + latents


def caption_memory(
    shape: LanguageShape, device: Device, batch: int, length: int, answer: int
) -> float:
    """Weights, one block's activations, three float32 copies of the logits of the answers, and
    the keys and values of all blocks twice: as they were read, and with the answers."""
    tokens = batch * length
    logits = 12.0 * batch * answer * shape.vocabulary
    cache = 4.0 * shape.blocks * shape.kv_heads * shape.head_dim * device.item
    block = block_bytes(shape, length, device.item)
    return _CONTEXT + shape.loaded * device.item + tokens * (block + cache) + logits


def cross_attention_parameters(blocks: int, d_model: int, d_vision: int) -> float:
    """Weights of gated cross-attention: queries and outputs (d^2), keys and values (d d_v), after
    each of its blocks."""
    return 2.0 * blocks * d_model * (d_model + d_vision)


def cross_attention_flops(
    blocks: int, d_model: int, d_vision: int, text: float, patches: float
) -> float:
    """A pass of gated cross-attention: 2 x the weights, of queries and outputs a text token, of
    keys and values a patch."""
    return 4.0 * blocks * d_model * (d_model * text + d_vision * patches)


def cross_attention_memory(
    blocks: int, heads: int, d_model: int, batch: int, text: int, patches: int
) -> float:
    """Activations of gated cross-attention in float32, of all its blocks: keys and values of the
    patches, and the attention of each head, text token and patch twice."""
    return 8.0 * blocks * batch * patches * (d_model + heads * text)


def vision_sae_memory(d: int, s: int, batch: int) -> float:
    """Weights, gradients and AdamW's moments in float32, and a batch's latents four times."""
    return _CONTEXT + 16 * 2.0 * d * s + 4 * 4.0 * batch * s


def dictionaries_memory(d: int, s: int) -> float:
    """Two dictionaries in float32, and the dense activations of a batch four times."""
    return _CONTEXT + 2 * sae_bytes(d, s) + 4 * _DENSE


def autoencoder_flops(recipe: Mapping[str, Any]) -> float:
    """A pass of a stand-in's autoencoder: 3 x 3 convolutions, one way and back, at each size."""
    sides = [recipe["image_size"] / 2**i for i in range(recipe["autoencoder_sizes"])]
    return float(2 * 9 * recipe["autoencoder_channels"] ** 2 * sum(side**2 for side in sides))


def denoiser_parameters(recipe: Mapping[str, Any]) -> float:
    """Parameters of a stand-in's denoiser; see `_denoiser_levels`."""
    return sum(parameters for parameters, _ in _denoiser_levels(recipe))


def denoiser_flops(recipe: Mapping[str, Any]) -> float:
    """A pass of a stand-in's denoiser: 2 x the parameters of each size at each of its places."""
    return sum(2 * parameters * places for parameters, places in _denoiser_levels(recipe))


def _denoiser_levels(recipe: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Parameters and places of each size of the denoiser.

    On the way down a residual block (18 c^2) and a transformer (20 c^2), on the way up two with
    twice the channels coming in (54 and 40 c^2), a convolution (9 c^2) from and to the next size;
    at the last, two blocks and a transformer (56 c^2) in its place.
    """
    side = recipe["image_size"] / 2 ** (recipe["autoencoder_sizes"] - 1)
    last = len(recipe["channels"]) - 1
    return [
        ((132.0 + (56 if i == last else 18)) * c**2, max(1.0, side / 2**i) ** 2)
        for i, c in enumerate(recipe["channels"])
    ]
