# `use rule stage as latents with: pathvars: stage="latents"` makes results/latents/{node}. The rule
# itself makes nothing.
rule stage:
    output:
        f"{plan.results}/<stage>/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/<stage>/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/<stage>/{{node}}.tsv"
    pathvars:
        stage="none",
    threads: plan.config.threads
    params:
        stage=lambda wildcards: plan.node(wildcards.node).stage,
        spec=lambda wildcards: plan.spec(wildcards.node),
        code=lambda wildcards: plan.code(wildcards.node),
    shell:
        "vista {params.stage} --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"
