# What the rules of all stages share.


# An input of a job, by its role: the manifests of the artifacts that have it, or the user's files.
def role(name):
    return lambda wildcards: plan.input(wildcards.stage, wildcards.node, name)


# What a rule makes. The stage is a wildcard of one value, so that all rules can share the rest.
def made(stage):
    return f"{plan.results}/{{stage,{stage}}}/{{node}}/manifest.json"


GPUS = lambda wildcards: plan.gpus(wildcards.stage, wildcards.node)
MACHINES = lambda wildcards: plan.machines(wildcards.stage, wildcards.node)
