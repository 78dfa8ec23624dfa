"""A topk SAE some of whose latents are told their concept, after ProtSAE (arXiv 2509.05309).

Latents are split into `m` defined ones, one a concept, and free ones. A concept predictor
pi = sigmoid((x - b_dec) W_pred + b_pred) learns from annotated tokens. The encoder's column of a
defined latent is stopgrad(W_pred) exp(r_pred): reconstruction may stretch a concept's direction,
but not turn it. topk is taken over all latents together. The loss is that of sae_lens' topk SAE,
plus the predictor's binary cross-entropy, plus an order constraint for each pair of concepts of
which one is a kind of the other: relu(pi_child - pi_parent). Of the source's two forms for is-a
this one needs no centres and radii, and holds for the predictions themselves.

Only these two terms reach W_pred, and Adam does not see their common factor.

The trainer, its schedule, the scaling of features and the revival of dead latents are those of
`vista.sae.train`; what is saved is a plain topk SAE that holds the tied columns. The public part of
the source's program lacks the model, so what is not in its formulas is chosen here: b_pred starts
at the log odds of each concept; as a free latent starts at a token (`data_init`), a defined one
starts at the mean of the tokens that have its concept, less that of all. A column that started at
zero would lose every place in topk to a free latent that writes the same direction.

Shape legend: n token, d width, s latent, m concept, u kind of token, e pair of concepts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sae_lens.registry import register_sae_training_class
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from torch.nn.functional import binary_cross_entropy_with_logits

from vista.config.guided import GuideSettings
from vista.config.vision_sae import TrainVisionSaeSettings
from vista.device import find_device
from vista.errors import UserError
from vista.sae.patches import Features, shuffled_patches
from vista.sae.train import NewSae, fit_sae, sparsity_options

_NAME = "guided"  # of the architecture in sae_lens' register of those that it trains
# Kinds of tokens are carried as float32, which holds integers up to here.
_MOST_KINDS = 2**24


@dataclass
class Guide:
    """What guides an SAE: settings, how often each concept was annotated, pairs of concepts.

    Attributes:
        settings: Weights of the two terms, and whether activation is forced.
        share_m: Share of the annotated tokens that have each concept.
        pairs_e2: Numbers of child and parent.
        truth_um: Annotation of each kind of token: 1, 0, or -1 where it is unknown.
        truth_nm: The same of the tokens of the next step.
        sum_ud: Sum of the tokens of each kind that were read before the first step.
        count_u: Number of these.
        started: Whether the first step was made.
    """

    settings: GuideSettings
    share_m: torch.Tensor
    pairs_e2: torch.Tensor
    truth_um: torch.Tensor
    sum_ud: torch.Tensor
    count_u: torch.Tensor
    truth_nm: torch.Tensor | None = None
    started: bool = False

    def read(self, x_nd: torch.Tensor, kind_n: torch.Tensor) -> None:
        """Take the tokens of the next step, or those that the trainer reads before its steps."""
        self.truth_nm = self.truth_um[kind_n]
        if not self.started:
            self.sum_ud.index_add_(0, kind_n, x_nd)
            self.count_u += torch.bincount(kind_n, minlength=len(self.count_u))

    def directions(self) -> torch.Tensor:
        """Mean token of each concept less the mean of all, unit rows [m, d]; zero without one."""
        has_um = (self.truth_um == 1).to(self.sum_ud)
        count_m1 = (self.count_u @ has_um)[:, None]
        mean_md = has_um.T @ self.sum_ud / count_m1.clamp_min(1)
        mean_md -= self.sum_ud.sum(dim=0) / self.count_u.sum().clamp_min(1)
        return torch.nn.functional.normalize(mean_md, dim=1) * (count_m1 > 0)


@dataclass
class GuidedConfig(TopKTrainingSAEConfig):  # type: ignore[misc]
    """sae_lens' config of a topk SAE in training, with the guide, which is not saved."""

    guide: Guide | None = None

    def get_training_architecture_details(self) -> dict[str, Any]:
        """Return the further fields that sae_lens saves, without the guide."""
        details: dict[str, Any] = super().get_training_architecture_details()
        details.pop("guide")
        return details


class GuidedSae(TopKTrainingSAE):  # type: ignore[misc]
    """The SAE in training. Its first `m` columns of W_enc are not used."""

    def __init__(self, cfg: GuidedConfig, use_error_term: bool = False) -> None:
        super().__init__(cfg, use_error_term)
        assert cfg.guide is not None
        self.guide = cfg.guide
        share_m = self.guide.share_m.clamp(1e-6, 1 - 1e-6)
        self.W_pred = torch.nn.Parameter(self.W_enc.new_zeros(cfg.d_in, len(share_m)))
        self.b_pred = torch.nn.Parameter(torch.logit(share_m).to(self.W_enc))
        self.r_pred = torch.nn.Parameter(self.W_enc.new_zeros(len(share_m)))

    def encoder(self) -> torch.Tensor:
        """The encoder's weights [d, s]: the tied columns of defined latents, then the free ones."""
        tied_dm = self.W_pred.detach() * self.r_pred.exp()
        return torch.cat([tied_dm, self.W_enc[:, tied_dm.shape[1] :]], dim=1)

    def predict(self, x_nd: torch.Tensor) -> torch.Tensor:
        """Log odds of each concept [n, m]; their loss does not move b_dec."""
        kept_d = (self.b_dec - self.b_dec.detach()) * self.cfg.apply_b_dec_to_input
        centred_nd = self.process_sae_in(x_nd) + kept_d
        logit_nm: torch.Tensor = centred_nd @ self.W_pred + self.b_pred
        return logit_nm

    def encode_with_hidden_pre(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Activations and pre-activations [n, s] of tokens [n, d]."""
        pre_ns = self.process_sae_in(x) @ self.encoder() + self.b_enc
        if self.guide.settings.forced:
            pre_ns = forced(pre_ns, self.predict(x).detach() > 0)
        if self.cfg.rescale_acts_by_decoder_norm:
            pre_ns = pre_ns * self.W_dec.norm(dim=-1)
        return self.hook_sae_acts_post(self.activation_fn(pre_ns)), pre_ns

    def training_forward_pass(self, step_input: Any) -> Any:
        """Losses of a step; the first one starts defined latents at their concepts."""
        if not self.guide.started:
            self.guide.started = True
            self.start()
        return super().training_forward_pass(step_input)

    @torch.no_grad()
    def start(self) -> None:
        """Point each defined latent, of which a token was read, at its concept."""
        row_md = self.guide.directions().to(self.W_dec)
        m, seen_m = len(row_md), row_md.any(dim=1)
        row_md *= self.W_dec[:m].norm(dim=1, keepdim=True)
        self.W_dec[:m] = torch.where(seen_m[:, None], row_md, self.W_dec[:m])
        self.W_pred.copy_(row_md.T)

    def calculate_aux_loss(self, step_input: Any, **parts: torch.Tensor) -> dict[str, torch.Tensor]:
        """The losses beside the squared error: for dead latents, of annotation, of is-a pairs."""
        losses: dict[str, torch.Tensor] = super().calculate_aux_loss(step_input=step_input, **parts)
        logit_nm, settings = self.predict(step_input.sae_in), self.guide.settings
        assert self.guide.truth_nm is not None
        annotation = annotation_loss(logit_nm, self.guide.truth_nm)
        losses["annotation"] = settings.annotation_weight * annotation
        losses["is_a"] = settings.is_a_weight * is_a_loss(logit_nm, self.guide.pairs_e2)
        return losses

    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        """Fold the scale that features had in training into the weights."""
        super().fold_activation_norm_scaling_factor(scaling_factor)
        self.W_pred.data *= scaling_factor

    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """Leave what a plain topk SAE has: the tied columns in W_enc, and no predictor."""
        state_dict["W_enc"] = self.encoder().detach().contiguous()
        for name in ("W_pred", "b_pred", "r_pred"):
            del state_dict[name]
        super().process_state_dict_for_saving_inference(state_dict)


register_sae_training_class(_NAME, GuidedSae, GuidedConfig)


def forced(pre_ns: torch.Tensor, predicted_nm: torch.Tensor) -> torch.Tensor:
    """Raise defined latents whose concept is predicted to the mean of the free ones, at least."""
    m = predicted_nm.shape[1]
    defined_nm, free = pre_ns[:, :m], pre_ns[:, m:]
    lifted_nm = torch.relu(free.mean(dim=1, keepdim=True) - defined_nm) * predicted_nm
    return torch.cat([defined_nm + lifted_nm, free], dim=1)


def annotation_loss(logit_nm: torch.Tensor, truth_nm: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of known entries (0, 1), summed over concepts, mean over tokens with a
    known entry; 0 where nothing is known."""
    known_nm = truth_nm >= 0
    loss_nm = binary_cross_entropy_with_logits(
        logit_nm, truth_nm.clamp_min(0).to(logit_nm), reduction="none"
    )
    return (loss_nm * known_nm).sum() / known_nm.any(dim=1).sum().clamp_min(1)


def is_a_loss(logit_nm: torch.Tensor, pairs_e2: torch.Tensor) -> torch.Tensor:
    """Sum over pairs of relu(pi_child - pi_parent), mean over tokens."""
    pi_nm = torch.sigmoid(logit_nm)
    return torch.relu(pi_nm[:, pairs_e2[:, 0]] - pi_nm[:, pairs_e2[:, 1]]).sum(dim=1).mean()


class _Marked:
    """Features with the kind of each token as one more channel, so that both are shuffled alike."""

    def __init__(
        self, features: Features, images: NDArray[np.int64], kind_bp: NDArray[np.int32]
    ) -> None:
        n_images, n_patches, width = features.shape
        self.features, self.kind_bp = features, kind_bp
        self.place = {image: b for b, image in enumerate(images.tolist())}
        self.shape = (n_images, n_patches, width + 1)

    def read(self, indices: Any) -> NDArray[Any]:
        """Return features and kinds of some images [b, p, d + 1], float32."""
        x_bpd = np.asarray(self.features.read(indices), dtype=np.float32)
        at = [self.place[image] for image in np.asarray(indices).tolist()]
        return np.concatenate([x_bpd, self.kind_bp[at, :, None].astype(np.float32)], axis=2)


def train_guided_sae(
    features: Features,
    images: NDArray[np.int64],
    kind_bp: NDArray[np.int32],
    concepts_um: NDArray[np.int8],
    pairs: Sequence[tuple[int, int]],
    settings: TrainVisionSaeSettings,
    guide: GuideSettings,
    name: str,
    folder: Path,
) -> dict[str, list[float]]:
    """Train an SAE on the patches of `images` (rows of `features`), save it in `folder`.

    Without its guide it is the SAE of `vista.sae.vision_train`: the same patches in the same order,
    the same first weights. The same input gives the same bytes on a CPU. Returns the curve of
    `vista.sae.train`.

    Args:
        features: Features of all images.
        images: Rows of `features` to learn from.
        kind_bp: The kind of each of their patches, a row of `concepts_um`.
        concepts_um: 1, 0, or -1 where it is not known whether that kind has the concept.
        pairs: Concepts of which the first is a kind of the second.
        settings: How a topk SAE is trained.
        guide: Weights of the further terms.
        name: Of the SAE, for messages.
        folder: Where it is saved as sae_lens does.

    Raises:
        UserError: The dictionary is too small for the concepts or for `k`.
    """
    d_in = features.shape[2]
    d_sae, m = settings.latents(d_in), concepts_um.shape[1]
    if d_sae < m + settings.k:
        raise UserError(
            f"vision SAE {name}: {d_sae} latents are too few for {m} concepts and k = "
            f"{settings.k:g} free ones; raise `expansion` or name fewer `guide.concepts`"
        )
    if len(concepts_um) > _MOST_KINDS:
        raise UserError(f"vision SAE {name}: patches of {len(concepts_um)} kinds are too many")
    device = find_device(settings.device)
    rng = np.random.default_rng(settings.seed)
    truth_um = torch.from_numpy(concepts_um).to(device)
    count_u = np.bincount(kind_bp.reshape(-1), minlength=len(concepts_um)).astype(np.float64)
    present_m, known_m = (count_u @ mask_um for mask_um in (concepts_um == 1, concepts_um >= 0))
    guiding = Guide(
        guide,
        torch.from_numpy(present_m / np.maximum(known_m, 1)).float(),
        torch.tensor(pairs, dtype=torch.int64, device=device).reshape(-1, 2),
        truth_um,
        torch.zeros(len(truth_um), d_in, device=device),
        torch.zeros(len(truth_um), device=device),
    )
    size = settings.batch_patches
    marked = _Marked(features, images, kind_bp)

    def batches() -> Iterator[torch.Tensor]:
        for batch in shuffled_patches(marked, images, size, settings.buffer_patches, rng, device):
            # The trainer asks for a batch right before the step that learns from it.
            x_nd = batch[:, :-1].contiguous()
            guiding.read(x_nd, batch[:, -1].long())
            yield x_nd

    options = {**sparsity_options("topk", settings), "k": int(settings.k), "guide": guiding}
    new = NewSae(_NAME, d_in, d_sae, name=f"vision SAE {name}", options=options, metadata={})
    return fit_sae(new, batches(), size, settings, rng, folder, str(device))
