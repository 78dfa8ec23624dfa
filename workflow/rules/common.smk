# What the rules of all stages share.


# An input of a job, by its role: the manifests of the artifacts that have it, or the user's files.
def role(name):
    return lambda wildcards: plan.input(wildcards.stage, wildcards.node, name)


# What a rule makes. The stage is a wildcard of one value, so that all rules can share the rest.
def made(stage):
    return f"{plan.results}/{{stage,{stage}}}/{{node}}/manifest.json"


GPUS = lambda wildcards: plan.gpus(wildcards.stage, wildcards.node)
MACHINES = lambda wildcards: plan.machines(wildcards.stage, wildcards.node)


# What all rules share, said once. It makes nothing itself: no stage has an empty name.
rule stage:
    output:
        made("(?!)"),
    log:
        f"{plan.results}/logs/{{stage}}/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/{{stage}}/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec(wildcards.stage, wildcards.node),
        code=lambda wildcards: plan.code(wildcards.stage, wildcards.node),
    shell:
        "vista {wildcards.stage} --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"
