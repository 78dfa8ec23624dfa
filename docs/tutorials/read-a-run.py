# %% [markdown]
# # Read a run
#
# What a finished run holds, and how a program reads it. Run `make demo` first; this page uses its
# results.

# %%
import vista

run = vista.open("results")
run

# %% [markdown]
# `vista.open` takes a results folder, a config (then only what that config asks for is seen), or
# a folder that `vista explore --export` wrote. A run that is half done opens, too.
#
# ## The points of the sweep
#
# A point is one encoder, one language model, one weight of the SAE term, and one seed. A control
# is a point whose visual tokens were changed on purpose.

# %%
points = run.points()
points.drop(columns="folder")

# %% [markdown]
# ## The long table
#
# Each row is one figure with its 95 % interval, its chance level and n. `matching_rate` says in
# which share of the images one of the k strongest labelled latents names something in the image;
# `chance` is the same with the images shuffled. A row without a layer is he mean over layers.

# %%
table = run.table()
rates = table.query("metric == 'matching_rate' and k == 3 and of.isna() and layer.isna()")
rates = rates[rates.control.isna()]
columns = ["encoder", "llm", "sae_weight", "value", "ci_low", "ci_high", "chance", "n"]
rates[columns].round(3)

# %%
print(*sorted(table.metric.unique()), sep=", ")

# %% [markdown]
# ## The latents of the stored images
#
# `run.latents` reads what the workflow stored: each active latent of each visual token. Without a
# weight it takes the largest one, without a seed the smallest.

# %%
latents = run.latents("dinov2", "gemma2")
image_id = latents.image_ids[5]
run.image(image_id).resize((240, 240), 0)

# %%
top = latents.top(image_id, k=4)
top.round(2)

# %% [markdown]
# The same question the other way round: the images at which one latent fires most, and where it
# fires on the first one.

# %%
layer, latent = top.layer.iloc[0], top.latent.iloc[0]
images = latents.images_of(latent, layer)
images.head(5).round(2)

# %%
latents.heatmap(images.image[0], latent, layer).round(1)

# %% [markdown]
# ## Stores
#
# Features and latents are Zarr stores, read lazily by xarray: only the chunks that you index are
# read.

# %%
features = run.features("dinov2")
print(features.dims, features.shape, features.dtype)

# %%
labels = run.labels("gemma2", layer=0)
labels.dropna(subset="label").head(5).round(3)
