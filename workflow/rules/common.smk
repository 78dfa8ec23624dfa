# What the rules of all stages share.


# An input of a job, by its role: the manifests of the artifacts that have it, or the user's files.
def role(name):
    return lambda wildcards: plan.input(wildcards.node, name)


GPUS = lambda wildcards: plan.node(wildcards.node).gpus
MACHINES = lambda wildcards: plan.node(wildcards.node).machines

SHELL = (
    "vista {params.order[stage]} --spec {params.order[spec]:q} --manifest {output:q}"
    " --threads {threads} --log {log:q}"
)
