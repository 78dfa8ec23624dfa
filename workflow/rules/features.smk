# Dense patch features, one store for each encoder.
from snakemake.io import _IOFile


rule features:
    input:
        lambda wildcards: plan.inputs("features", wildcards.node),
        # Snakemake's record of the features that are there is what it compares its inputs with.
        lambda wildcards: plan.parts(
            "features",
            wildcards.node,
            lambda manifest: workflow.persistence.input(_IOFile(manifest, None)),
        ),
    output:
        f"{plan.results}/features/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/features/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/features/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("features", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("features", wildcards.node),
        code=lambda wildcards: plan.code("features", wildcards.node),
    message:
        "extracting patch features of {wildcards.node}"
    shell:
        "vista features --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


# A range of the shards, where a config asks for several jobs: into the work folder of the features,
# which the rule above then finds as it finds that of a killed job.
rule features_part:
    input:
        lambda wildcards: plan.inputs("features", wildcards.node),
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
        gpu=lambda wildcards: plan.gpus("features", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("features", wildcards.node),
        code=lambda wildcards: plan.code("features", wildcards.node),
        manifest=f"{plan.results}/features/{{node}}/manifest.json",
    message:
        "extracting part {wildcards.part} of {wildcards.parts} of the features of {wildcards.node}"
    shell:
        "vista features --spec {params.spec:q} --manifest {params.manifest:q}"
        " --part {wildcards.part}/{wildcards.parts} --threads {threads} --log {log:q}"


rule combine_features:
    input:
        lambda wildcards: plan.inputs("combine_features", wildcards.node),
    output:
        f"{plan.results}/combine_features/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/combine_features/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/combine_features/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("combine_features", wildcards.node),
        code=lambda wildcards: plan.code("combine_features", wildcards.node),
    message:
        "joining the features of two encoders into {wildcards.node}"
    shell:
        "vista combine_features --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"
