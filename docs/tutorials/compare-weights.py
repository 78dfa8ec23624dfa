# %% [markdown]
# # Compare weights of the SAE term
#
# What does the SAE term change? Compare the projector that was trained without it (weight 0) with
# one that was trained with it, on the same images, with the same encoder, language model, SAEs
# and labels.

# %%
import pandas as pd

import vista

run = vista.open("results")
points = run.points()
weights = sorted(points[points.control.isna()].sae_weight.unique().tolist())
readouts = {weight: run.readout("dinov2", "gemma2", sae_weight=weight) for weight in weights}
list(readouts)

# %% [markdown]
# ## One image

# %%
image = run.image(run.latents("dinov2", "gemma2").image_ids[5])
seen = {weight: readout(image) for weight, readout in readouts.items()}
pd.concat({weight: one.top(k=3, layer=0) for weight, one in seen.items()}).round(2)

# %%
seen[0].show(k=4, layer=0)

# %%
seen[1].show(k=4, layer=0)

# %%
for weight, readout in readouts.items():
    print(weight, readout.caption(image))

# %% [markdown]
# ## All test images
#
# One image proves nothing. The long table has the figures over all test images, with intervals.
# Means over layers:

# %%
table = run.table()
point = table.query("encoder == 'dinov2' and llm == 'gemma2' and seed == 0 and control.isna()")
wanted = ["matching_rate", "fvu", "mse", "caption_cross_entropy", "caption_names_object"]
figures = point[point.metric.isin(wanted)]
figures = figures[figures.of.isna() & figures.token_kind.isin([None, "image"])]
figures.groupby(["metric", "sae_weight"])[["value", "chance"]].mean().round(3)

# %% [markdown]
# ## Is it more than scale?
#
# The term makes visual tokens small, and text SAEs read small tokens as they read text.
# `matching_difference` is the gain in matching rate over weight 0, paired over images: as run,
# over the baseline in the norm of the point (`norm_matched`), and with both sides in the norm of
# text (`text_scale`). [Controls](../controls.md) says what each one tells.

# %%
gains = table.query("metric == 'matching_difference' and seed == 0 and layer.isna()")
gains = gains.query("encoder == 'dinov2' and llm == 'gemma2'")
gains[["of", "value", "ci_low", "ci_high", "n"]].round(3)

# %% [markdown]
# Read a figure beside its chance level, its interval and n. An interval is over images: another
# seed of the projector can differ by more, so run several seeds before you conclude (`seeds: [0,
# 1, 2]` in the sweep).
