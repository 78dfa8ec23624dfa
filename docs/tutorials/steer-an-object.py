# %% [markdown]
# # Steer an object
#
# Edit what the language model sees: take the direction of an object away from the visual tokens,
# or put another one in, and read the caption.

# %%
import vista

run = vista.open("results")
readout = run.readout("dinov2", "gemma2", sae_weight=1)
image = run.image(run.latents("dinov2", "gemma2").image_ids[5])
image.resize((240, 240), 0)

# %%
before = readout.caption(image)
before

# %% [markdown]
# ## Find the latent of the object
#
# Captions of the drawn world read "a COLOUR OBJECT at PLACE on GROUND", so the third word is the
# object. Where no latent of this image has that name, the strongest label is taken.

# %%
seen = readout(image)
named = seen.top(k=100).dropna(subset="label")
words = [word for word in before.split()[2:3] if word in set(named.label)]
word = (words or list(named.label))[0]
row = named[named.label == word].iloc[0]
print(f"{word}: latent {row.latent}, layer {row.layer}, patch {row.row},{row.column}")
seen.heatmap(row.latent, layer=row.layer)

# %% [markdown]
# ## Remove it
#
# `remove` takes a concept that the workflow found a direction for (`interventions` in the
# config), or a word that a latent is named after; then the direction is the latent's decoder row.
# `strength` is the coefficient, `blocks` are the blocks after which the edit is made (none: after
# that of the latent), `where` is what is edited: a mask of patches, patches as (row, column), a
# box (x, y, width, height) in px, or all.

# %%
mask = seen.activations(row.latent, layer=row.layer) > 0
for strength in (0.5, 1, 2, 4):
    after = readout.caption(image, remove=word, strength=strength, where=mask, blocks=[0, 1])
    print(strength, after)

# %% [markdown]
# ## The control
#
# Any change of the tokens may change a caption. So compare with the same tokens moved as far
# along one random direction, and with the same edit at a place without the object.

# %%
edit = {"remove": word, "strength": 4, "blocks": [0, 1]}
print("random direction:", readout.caption(image, **edit, where=mask, random=True))
print("elsewhere:", readout.caption(image, **edit, where=[(0, 0), (5, 5)]))

# %% [markdown]
# ## Replace it
#
# With `add` beside `remove`, another concept takes the object's place.

# %%
labels = set(run.labels("gemma2").label.dropna())
other = "cat" if "cat" in labels - {word} else sorted(labels - {word})[0]
for strength in (1, 4):
    edit = {"remove": word, "add": other, "strength": strength, "blocks": [0, 1]}
    print(strength, readout.caption(image, **edit, where=mask))

# %% [markdown]
# ## How often does it work?
#
# One image proves nothing. `interventions` in a config measures removal and replacement over many
# images, with controls and a judge; its figures are in the long table: `edit_ms` is 2 for clean,
# 1 for done with new details, 0 for failed. `set` is `object` for the edit itself, else a
# control: the same edit outside of the object, with a random direction, or with the direction of
# another concept.

# %%
edits = run.table().query("metric == 'edit_ms'")
edits[["of", "set", "method", "value", "ci_low", "ci_high", "n"]].round(2)
