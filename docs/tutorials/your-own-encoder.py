# %% [markdown]
# # Your own encoder
#
# Put a vision encoder of yours in the place of DINOv2 or CLIP. What it needs: a `save_pretrained`
# folder of transformers with safetensors weights and the settings of its image processor.
# Families: clip, dinov2, dinov3, ijepa, siglip, siglip2, and vit for any other ViT.
#
# Here a very small DINOv2 with random weights stands for your model.

# %%
import subprocess
from pathlib import Path

import numpy as np
import torch
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

import vista

torch.manual_seed(0)
config = Dinov2Config(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=48, patch_size=8
)
Dinov2Model(config).save_pretrained("my-encoder")
side = {"height": 48, "width": 48}
_ = BitImageProcessorPil(size=side, crop_size=side).save_pretrained("my-encoder")

# %% [markdown]
# ## Does it load?
#
# `load_encoder` gives patch tokens: class and register tokens are dropped by what the model's own
# config says, and the family's final norm is applied.

# %%
encoder = vista.load_encoder("my-encoder")
pixels = np.zeros((2, encoder.size, encoder.size, 3), np.uint8)
tokens = encoder.encode(pixels)
print("image, patch, channel:", tuple(tokens.shape), "of patches of", encoder.patch, "px")

# %% [markdown]
# ## A config with it
#
# An entry under `encoders` names the folder (`path`), or a repository of the hub (`repo` and
# `revision`). All else is that of the default run here: its drawn images, its language model and
# SAEs. Parts that the default run made are shared, not made again.

# %%
_ = Path("mine.yaml").write_text("""
name: mine
data: {kind: drawn, objects: glyphs}
encoders:
  mine: {source: {kind: checkpoint, family: dinov2, path: my-encoder}}
llms:
  gemma2:
    model: {source: {kind: standin, family: gemma2, stream_scale: 0.316}}
    saes: {layers: [0, 1, 2], train: {}}
sweep: [{sae_weights: [0, 1], seeds: [0]}]
projector: {init_scale: 0.2, stages: [{steps: 300, batch_size: 32, lr: 6.0e-3}]}
metrics:
  probe: {}
  reconstruction: {}
  matching_rate: {mask: {max_label_density: 0.025}}
  caption: {}
""")

# %% [markdown]
# `vista plan` says what the run needs and what it would trip over, before anything runs.

# %%
plan = subprocess.run(["vista", "plan", "mine.yaml"], capture_output=True, text=True, check=True)
print(plan.stdout.partition("\n\n")[0])

# %% [markdown]
# ## Run it, read it
#
#     snakemake --cores --configfile mine.yaml
#
# Then it is a run like any other:
#
#     run = vista.open("mine.yaml")
#     readout = run.readout("mine", "gemma2", sae_weight=1)
#
# `probe` is the figure to look at first: the accuracy of a linear probe of the patch tokens. What
# a probe can't read, no projector brings into the language model. A family that is not in the
# list is one file: CONTRIBUTING.md has the steps.
