# What the rules of all stages share, said once: `use rule stage as ...`.


# It makes nothing itself: no stage has an empty name.
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
