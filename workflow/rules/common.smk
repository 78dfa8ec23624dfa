# What the rules of all stages share.
from snakemake.dag import DAG
from snakemake.io import _IOFile

# The results folder as jobs see it: behind the prefix, where another workflow uses this one with one.
RESULTS = workflow.modifier.path_modifier.replace_prefix(plan.results)


# The inputs of a job by role: the manifests of the artifacts that have it, or the user's files. A
# role that the job does not have is left out; "judge_*" stands for all roles that begin so.
def roles(*names):
    def inputs(wildcards):
        paths = plan.inputs(wildcards.node, names)
        if "files" in paths:
            # They lie where the config says: no prefix.
            paths["files"] = list(map(local, paths["files"]))
        return paths

    return unpack(inputs)


# The inputs of a manifest in Snakemake's record, with which it compares those of a job; None if it
# has no record.
def recorded(manifest):
    there = manifest.replace(plan.results, RESULTS, 1)
    inputs = workflow.persistence.input(_IOFile(there, None))
    return inputs and [name.replace(RESULTS, plan.results, 1) for name in inputs]


# For `--until RULE`, Snakemake first removes the jobs behind those of the rule. Then it starts none
# that reads a result of the rule, even if it belongs to the rule: latents in the scale of text read
# other latents, a stage of training starts from the one before. So Snakemake forgets the rule when
# the other jobs are removed.
def set_until_jobs(dag, original=getattr(DAG, "set_until_jobs", None)):
    original(dag)
    dag.untilrules.clear()
    dag.untilfiles.clear()


# Another Snakemake may do without this method.
if hasattr(DAG, "set_until_jobs"):
    DAG.set_until_jobs = set_until_jobs


GPUS = lambda wildcards: plan.node(wildcards.node).gpus
MACHINES = lambda wildcards: plan.node(wildcards.node).machines

SHELL = (
    "vista {params.order[stage]} --spec {params.order[spec]:q} --manifest {output:q}"
    " --threads {threads} --log {log:q}"
)
