# What the rules of all stages share.


# The inputs of a job by role: the manifests of the artifacts that have it, or the user's files. A
# role that the job does not have is left out; "judge_*" stands for all roles that begin so.
def roles(*names):
    return unpack(lambda wildcards: plan.inputs(wildcards.node, names))


GPUS = lambda wildcards: plan.node(wildcards.node).gpus
MACHINES = lambda wildcards: plan.node(wildcards.node).machines

SHELL = (
    "vista {params.order[stage]} --spec {params.order[spec]:q} --manifest {output:q}"
    " --threads {threads} --log {log:q}"
)
