# %% [markdown]
# # A sweep on Slurm
#
# Describe a sweep, see what it costs, and submit it. This page plans and lists; it submits
# nothing. Run the commands in the folder of the checkout, where `Snakefile` and `config` are.

# %%
import subprocess
from pathlib import Path

# %% [markdown]
# ## The sweep
#
# A block of `sweep` is every combination of its lists: here one encoder, one language model, four
# weights and two seeds. Images, models, SAEs and features are made once and shared by all eight
# points.

# %%
_ = Path("sweep.yaml").write_text("""
name: sweep
data: {kind: drawn, objects: glyphs}
encoders:
  dinov2: {source: {kind: standin, family: dinov2}}
llms:
  gemma2:
    model: {source: {kind: standin, family: gemma2, stream_scale: 0.316}}
    saes: {layers: [0, 1, 2], train: {}}
sweep: [{sae_weights: [0, 0.1, 1, 10], seeds: [0, 1]}]
projector: {init_scale: 0.2, stages: [{steps: 300, batch_size: 32, lr: 6.0e-3}]}
metrics:
  reconstruction: {}
  matching_rate: {mask: {max_label_density: 0.025}}
  caption: {}
""")

# %% [markdown]
# ## What it costs
#
#     vista plan sweep.yaml

# %%
plan = subprocess.run(["vista", "plan", "sweep.yaml"], capture_output=True, text=True, check=True)
print(plan.stdout.partition("\n\n")[0])

# %% [markdown]
# ## A dry run
#
# Snakemake lists the jobs that it would submit. Install what the profile needs with `pip install
# -c constraints.txt -e '.[cluster]'`; the profile workflow/profiles/slurm has memory and time of
# each rule.
#
#     snakemake --dry-run --quiet rules --configfile sweep.yaml \
#         --workflow-profile workflow/profiles/slurm

# %%
command = [
    *("snakemake", "--dry-run", "--quiet", "rules", "--configfile", "sweep.yaml"),
    *("--workflow-profile", "workflow/profiles/slurm"),
]
listed = subprocess.run(command, capture_output=True, text=True, check=True)
print(listed.stdout.split("Job stats:")[1].partition("\n\n")[0].strip())

# %% [markdown]
# ## Submit it
#
# On the login node, in `tmux`:
#
#     snakemake --workflow-profile workflow/profiles/slurm --configfile sweep.yaml \
#         --default-resources slurm_partition=gpu slurm_account=mylab \
#         mem_mb="4000 * attempt" runtime=60
#
# Snakemake stays in the foreground and submits jobs as their inputs are done. Ctrl-C ends the run
# and cancels its jobs; the same command goes on where it ended. [Clusters](../cluster.md) has
# preemption, out of memory, limits of the cluster, other schedulers and S3.
#
# ## Add a weight later
#
# Write `sae_weights: [0, 0.1, 1, 10, 30]` and submit again: what is there already is kept, and
# only the projectors, latents and metrics of the new weight run. While the sweep is running,
# `vista explore sweep.yaml` and `vista.open("sweep.yaml")` show what is done.
