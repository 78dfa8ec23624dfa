"""The neutral form of a sparse autoencoder: what every stage that *runs* one loads.

Two files: `sae.safetensors` (float32 weights) and `sae.json` (SaeConfig). They need torch and
nothing else; sae_lens, which costs five seconds of imports a process, is met only where an SAE is
trained or imported (`vista.sae.train`, `vista.sae.convert`).

What each architecture does at inference, equal to sae_lens 6.54 (tests hold it to 1e-5):

    x' = normalise(x) - b_dec         (b_dec only where `subtract_decoder_bias`)
    standard                          z = relu(x' W_enc + b_enc)
    topk                              z = relu of the k largest entries of (x' W_enc + b_enc)
    jumprelu, batchtopk, matryoshka   z = relu(h) where h = x' W_enc + b_enc exceeds `threshold`
    gated                             z = [x' W_enc + b_gate > 0] * relu(x' (W_enc e^r_mag) + b_mag)
    SAE(x) = denormalise(z W_dec + b_dec)

BatchTopK and Matryoshka choose the k largest of a whole batch while they train; at inference they
run with the one threshold learned then, so a token's latents never depend on its neighbours
(Bussmann et al. 2024, arXiv 2412.06410, section 3). Architectures that select by activation times
decoder norm (`rescale_acts_by_decoder_norm` in sae_lens) are stored with that norm folded into the
encoder: the same function, with unit decoder rows.

Shape legend: n token (any leading dimensions), d width of the residual stream, s dictionary latent,
k slots for active latents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import embedding_bag

from vista.errors import UserError, reason_of
from vista.sae.architectures import activation_of, architecture_names

WEIGHTS_FILE = "sae.safetensors"
CONFIG_FILE = "sae.json"
FORMAT = 1

# Activation functions at inference.
ACTIVATIONS = ("relu", "gated", "topk", "jumprelu")
# centre: subtract the token's mean over dimensions, for SAEs whose model was read with centred
# writing weights (TransformerLens' GPT-2); the plain model's stream differs by that mean alone.
NORMALISATIONS = ("none", "constant_norm_rescale", "layer_norm", "centre")
_NORM_FLOOR = 1e-12  # only an all-zero token is below it; sae_lens would return NaN there
_LAYER_NORM_EPS = 1e-5  # sae_lens adds it to the standard deviation, not to the variance
# Dense activations held at once: 4096 tokens of a 16k dictionary, 512 of a 131k one; 256 MB.
_DENSE_CELLS = 2**26
_MOST_ROWS = 4096


@dataclass(frozen=True)
class SaeConfig:
    """What an SAE is: everything but its weights.

    `layer` is the block after which the residual stream is read, counted from 0. `k` is the number
    of active latents of a topk SAE (None for the others). `name` says where it comes from, for
    messages. `activation` is the function at inference; empty: the architecture's. `neuronpedia` is
    the "model/source" of its published labels, where that is known.
    """

    architecture: str
    d_in: int
    d_sae: int
    layer: int
    name: str
    k: int | None = None
    normalisation: str = "none"
    subtract_decoder_bias: bool = True
    neuronpedia: str | None = None
    activation: str = ""

    def __post_init__(self) -> None:
        """Refuse values no architecture here can run; raises ValueError that names the key."""
        if self.architecture not in (names := architecture_names()):
            raise ValueError(f"architecture {self.architecture!r} is none of {', '.join(names)}")
        if not self.activation:
            object.__setattr__(self, "activation", activation_of(self.architecture))
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is none of {', '.join(ACTIVATIONS)}")
        if self.normalisation not in NORMALISATIONS:
            known = ", ".join(NORMALISATIONS)
            raise ValueError(f"normalisation {self.normalisation!r} is none of {known}")
        if min(self.d_in, self.d_sae) < 1 or self.layer < 0:
            raise ValueError("d_in and d_sae must be positive, layer must not be negative")
        if (self.k is not None) != (self.architecture == "topk"):
            raise ValueError("k belongs to the topk architecture, and only to it")
        if self.k is not None and not 1 <= self.k <= self.d_sae:
            raise ValueError(f"k = {self.k} is not within 1..d_sae = {self.d_sae}")

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the tensors in `sae.safetensors`."""
        shapes: dict[str, tuple[int, ...]] = {
            "W_enc": (self.d_in, self.d_sae),
            "W_dec": (self.d_sae, self.d_in),
            "b_dec": (self.d_in,),
        }
        per_latent = {"gated": ("b_gate", "b_mag", "r_mag"), "jumprelu": ("b_enc", "threshold")}
        for name in per_latent.get(self.activation, ("b_enc",)):
            shapes[name] = (self.d_sae,)
        return shapes


class SparseCodes(NamedTuple):
    """Active latents of n tokens in k padded slots, strongest first.

    index_nk: int64 latent ids; value_nk: activations (> 0); nnz_n: int64 number of slots in use.
    Slots from `nnz_n` on hold index 0 and value 0.
    """

    index_nk: torch.Tensor
    value_nk: torch.Tensor
    nnz_n: torch.Tensor


class SparseAutoencoder(nn.Module):
    """A frozen SAE on the residual stream after block `config.layer`.

    Parameters never ask for a gradient. `forward` passes gradients on to its input; the projector's
    regulariser takes the faster way of `vista.sae.through`.
    """

    W_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter
    b_enc: nn.Parameter
    threshold: nn.Parameter
    b_gate: nn.Parameter
    b_mag: nn.Parameter
    r_mag: nn.Parameter

    def __init__(self, config: SaeConfig, weights: Mapping[str, torch.Tensor]) -> None:
        """Take `weights` as `config.weight_shapes()` asks; raises ValueError on any other set."""
        super().__init__()
        self.config = config
        shapes = config.weight_shapes()
        sizes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        if sizes != shapes:
            raise ValueError(f"weights {sizes} where {config.architecture} needs {shapes}")
        for name in shapes:
            tensor = weights[name].detach().contiguous()
            setattr(self, name, nn.Parameter(tensor, requires_grad=False))
        # Made when first used; a buffer, so that `to` moves it.
        self._encoder_rows: torch.Tensor | None
        self.register_buffer("_encoder_rows", None, persistent=False)

    @property
    def dense_rows(self) -> int:
        """Tokens to encode at once so that dense activations stay near 256 MB in float32."""
        return max(1, min(_MOST_ROWS, _DENSE_CELLS // self.config.d_sae))

    def encode(self, x_nd: torch.Tensor) -> torch.Tensor:
        """Residual stream [..., d] -> dense activations [..., s], zero where a latent is silent."""
        return self.activate(self.centred(x_nd))

    def centred(self, x_nd: torch.Tensor) -> torch.Tensor:
        """What the encoder's weights are applied to: the normalised stream [..., d], without the
        decoder's bias where that is subtracted."""
        x_nd, _, _ = self.normalise(x_nd.to(self.W_enc.dtype))
        return x_nd - self.b_dec if self.config.subtract_decoder_bias else x_nd

    def activate(self, x_nd: torch.Tensor) -> torch.Tensor:
        """Activations [..., s] of normalised tokens [..., d] without the decoder's bias."""
        if self.config.activation == "gated":
            # (x W) * e^r equals sae_lens' x (W * e^r) and spares a second product.
            pre_ns = x_nd @ self.W_enc
            magnitude_ns = torch.relu(pre_ns * self.r_mag.exp() + self.b_mag)
            return magnitude_ns * (pre_ns + self.b_gate > 0)
        pre_ns = x_nd @ self.W_enc + self.b_enc
        if self.config.activation == "jumprelu":
            return torch.relu(pre_ns) * (pre_ns > self.threshold)
        if self.config.activation == "topk":
            assert self.config.k is not None
            value_nk, index_nk = torch.topk(pre_ns, self.config.k, dim=-1, sorted=False)
            return torch.zeros_like(pre_ns).scatter(-1, index_nk, torch.relu(value_nk))
        return torch.relu(pre_ns)

    def decode(self, z_ns: torch.Tensor, like: torch.Tensor | None = None) -> torch.Tensor:
        """Activations [..., s] -> residual stream [..., d].

        An SAE that normalises each token needs the token back to undo it: pass the stream that was
        encoded as `like` [..., d]. Raises ValueError where it is needed and missing.
        """
        return self.restored(z_ns @ self.W_dec + self.b_dec, like)

    def restored(self, out_nd: torch.Tensor, like: torch.Tensor | None) -> torch.Tensor:
        """The decoder's output [..., d] with the normalisation of the stream `like` undone."""
        if self.config.normalisation == "none":
            return out_nd
        if like is None:
            raise ValueError(f"{self.config.normalisation} needs the encoded stream in `like`")
        _, shift_n1, scale_n1 = self.normalise(like.to(self.W_enc.dtype))
        return out_nd * scale_n1 + shift_n1

    def forward(self, x_nd: torch.Tensor) -> torch.Tensor:
        """Reconstruct the residual stream: [..., d] -> [..., d], in the dtype of the weights."""
        return self.decode(self.encode(x_nd), like=x_nd)

    def slope(self) -> torch.Tensor | None:
        """Slope [s] of an active latent's activation over x W_enc; None: 1."""
        return self.r_mag.exp() if self.config.activation == "gated" else None

    def encoder_rows(self) -> torch.Tensor:
        """The encoder transposed [s, d], each latent's weights in one piece."""
        if self._encoder_rows is None:
            self._encoder_rows = self.W_enc.T.contiguous()
        return self._encoder_rows

    def encode_sparse(self, x_nd: torch.Tensor, k: int, setting: str = "k") -> SparseCodes:
        """Encode [n, d] without gradients and keep only the active latents, in `k` slots a token.

        Raises UserError that names `setting` (the config key behind `k`) when a token has more than
        `k` active latents: dropping the rest would change every figure downstream without a trace.
        """
        index_nk = torch.zeros((len(x_nd), k), dtype=torch.int64, device=x_nd.device)
        value_nk = torch.zeros((len(x_nd), k), dtype=self.W_enc.dtype, device=x_nd.device)
        nnz_n = torch.zeros(len(x_nd), dtype=torch.int64, device=x_nd.device)
        with torch.no_grad():
            for start in range(0, len(x_nd), self.dense_rows):
                rows = slice(start, start + self.dense_rows)
                z_ns = self.encode(x_nd[rows])
                nnz_n[rows] = (z_ns > 0).sum(dim=-1)
                most = int(nnz_n[rows].max())
                if most > k:
                    raise UserError(
                        f"SAE {self.config.name}: a token has {most} active latents, but "
                        f"`{setting}` keeps only {k}; raise `{setting}` (d_sae = "
                        f"{self.config.d_sae} always fits)"
                    )
                value, index = torch.topk(z_ns, most, dim=-1)
                value_nk[rows, :most] = value
                index_nk[rows, :most] = index.masked_fill(value <= 0, 0)
        return SparseCodes(index_nk, value_nk, nnz_n)

    def decode_sparse(self, codes: SparseCodes, like: torch.Tensor) -> torch.Tensor:
        """Codes of tokens and the stream `like` [n, d] that they were made of -> its
        reconstruction [n, d]."""
        used = max(1, int(codes.nnz_n.max())) if len(like) else 1
        index_nk, value_nk = codes.index_nk[:, :used], codes.value_nk[:, :used]
        out_nd = embedding_bag(index_nk, self.W_dec, mode="sum", per_sample_weights=value_nk)
        return self.restored(out_nd + self.b_dec, like)

    def decoder_row(self, latent: int) -> torch.Tensor:
        """Direction [d] that latent number `latent` writes; not normalised. Raises IndexError."""
        if not 0 <= latent < self.config.d_sae:
            raise IndexError(f"latent {latent} is not within 0..{self.config.d_sae - 1}")
        return self.W_dec[latent]

    def normalise(self, x_nd: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(normalised x [..., d], shift [..., 1], scale [..., 1]) with x ~ normalised * scale +
        shift.

        "~": sae_lens' layer_norm divides by std + eps and multiplies by std.
        """
        if self.config.normalisation == "constant_norm_rescale":
            norm_n1 = x_nd.norm(dim=-1, keepdim=True).clamp_min(_NORM_FLOOR)
            scale_n1 = norm_n1 / self.config.d_in**0.5
            return x_nd / scale_n1, torch.zeros_like(scale_n1), scale_n1
        if self.config.normalisation == "layer_norm":
            shift_n1 = x_nd.mean(dim=-1, keepdim=True)
            centred_nd = x_nd - shift_n1
            scale_n1 = centred_nd.std(dim=-1, keepdim=True)
            return centred_nd / (scale_n1 + _LAYER_NORM_EPS), shift_n1, scale_n1
        if self.config.normalisation == "centre":
            shift_n1 = x_nd.mean(dim=-1, keepdim=True)
            return x_nd - shift_n1, shift_n1, torch.ones_like(shift_n1)
        return x_nd, x_nd.new_zeros(1), x_nd.new_ones(1)


def save_sae(folder: Path, sae: SparseAutoencoder) -> None:
    """Write `sae.safetensors` (float32) and `sae.json` into `folder`, the same bytes every time."""
    weights = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in sae.named_parameters()
    }
    save_file(weights, folder / WEIGHTS_FILE)
    described = {"format": FORMAT, **asdict(sae.config)}
    text = json.dumps(described, sort_keys=True, indent=2) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def load_sae(
    folder: Path, dtype: torch.dtype = torch.float32, expect_d_in: int | None = None
) -> SparseAutoencoder:
    """Read the neutral form that `save_sae` wrote, onto the CPU.

    `expect_d_in` is the width of the language model's residual stream. Raises UserError when a
    file is missing or broken, and when the SAE reads another width than `expect_d_in`.
    """
    config = _read_config(folder / CONFIG_FILE)
    if expect_d_in is not None and config.d_in != expect_d_in:
        raise UserError(
            f"SAE {config.name} has d_in {config.d_in}, but the language model's residual stream "
            f"has width {expect_d_in}; choose an SAE trained on this model, or the model it was "
            "trained on"
        )
    path = folder / WEIGHTS_FILE
    try:
        weights = load_file(path, device="cpu")
        sae = SparseAutoencoder(config, weights)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(
            f"{path}: not the weights of a neutral SAE ({reason_of(error)}); import it again"
        ) from error
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(f"{path}: {', '.join(broken)} holds NaN or infinity; import the SAE again")
    return sae.to(dtype=dtype).eval()


def _read_config(path: Path) -> SaeConfig:
    """SaeConfig out of `sae.json`; UserError that names the file on anything else."""
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
            raise ValueError(f"`format` is not {FORMAT}")
        known = {field.name for field in fields(SaeConfig)}
        if unknown := sorted(set(raw) - known):
            raise ValueError(f"unknown key {unknown[0]!r}")
        return SaeConfig(**raw)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: not the config of a neutral SAE ({reason_of(error)}); import it again"
        ) from error
