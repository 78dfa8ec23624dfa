# Dense patch features, one store for each encoder.


use rule stage as features with:
    input:
        roles("encoder", "records", "world", "fetched"),
        parts=lambda wildcards: plan.parts(wildcards.node, recorded),
    pathvars:
        stage="features",
    resources:
        gpu=GPUS,
    message:
        "extracting patch features of {wildcards.node}"


# A range of the shards, where a config asks for several jobs: into the work folder of the features,
# which the rule above then finds as it finds that of a killed job.
rule features_part:
    input:
        roles("encoder", "records", "world", "fetched"),
    output:
        temp(touch(f"{plan.results}/.work/features/{{node}}.{{part}}of{{parts}}")),
    log:
        f"{plan.results}/logs/features/{{node}}.{{part}}of{{parts}}.log",
    benchmark:
        f"{plan.results}/benchmarks/features/{{node}}.{{part}}of{{parts}}.tsv"
    wildcard_constraints:
        part=r"\d+",
        parts=r"\d+",
    threads: plan.config.threads
    resources:
        gpu=GPUS,
    params:
        order=lambda wildcards: plan.order(wildcards.node),
        manifest=f"{RESULTS}/features/{{node}}/manifest.json",
    message:
        "extracting part {wildcards.part} of {wildcards.parts} of the features of {wildcards.node}"
    shell:
        "vista features --spec {params.order[spec]:q} --manifest {params.manifest:q}"
        " --part {wildcards.part}/{wildcards.parts} --threads {threads} --log {log:q}"


use rule stage as combine_features with:
    input:
        roles("features"),
    pathvars:
        stage="combine_features",
    message:
        "joining the features of two encoders into {wildcards.node}"
