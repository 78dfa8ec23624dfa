# %% [markdown]
# # Your own images
#
# Read any image file by the models of a run: its strongest labelled latents, heat maps, a
# caption.
#
# The models of `make demo` learnt a small drawn world, so this page takes two of its test images
# as "yours". With a run on photographs (config/photographs.yaml) or on pretrained models the code
# is the same.

# %%
from pathlib import Path

import vista

run = vista.open("results")
image_ids = run.latents("dinov2", "gemma2").image_ids
for name, image_id in {"first.png": image_ids[5], "second.png": image_ids[2]}.items():
    run.image(image_id).save(name)

# %% [markdown]
# ## The readout
#
# A readout is one encoder, projector and language model with its SAEs that belong together.

# %%
readout = run.readout("dinov2", "gemma2", sae_weight=1)
seen = readout(["first.png", "second.png"])
seen.top(k=3).round(2)

# %% [markdown]
# A latent without a label has none in the table: no text was found that it stands for. `layer` is
# the residual stream after that block, counted from 0; `row` and `column` are the patch where the
# latent is strongest.
#
# ## Where a latent fires
#
# `show` draws the strongest latents of an image, a row a layer.

# %%
seen.show(k=4)

# %% [markdown]
# `heatmap` draws one latent, by its number and layer or by a word that it is named after;
# `activations` gives the numbers, and `top(patch=...)` asks for one patch.

# %%
named = seen[0].top(k=20).dropna(subset="label")
word, layer = named.label.iloc[0], named.layer.iloc[0]
seen.heatmap(word, layer=layer)

# %%
seen[0].top(k=2, patch=(named.row.iloc[0], named.column.iloc[0])).round(2)

# %% [markdown]
# ## A caption

# %%
readout.caption("first.png")

# %% [markdown]
# ## Keep the readout
#
# `save_pretrained` writes the models that the workflow trained as a folder of safetensors, JSON
# and a model card with the figures; of models that are published elsewhere it names the
# repository and the commit. `push_to_hub` uploads the same folder.

# %%
readout.save_pretrained("my-readout")
again = vista.Readout.from_pretrained("my-readout")
print(*sorted(path.name for path in Path("my-readout").iterdir()), sep="\n")
assert again.caption("first.png") == readout.caption("first.png")

# %% [markdown]
# The same in a terminal: `vista look first.png second.png --save heatmaps`, and `vista look
# first.png --run my-readout`.
