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
        order=lambda wildcards: plan.order(wildcards.node),
    shell:
        SHELL
