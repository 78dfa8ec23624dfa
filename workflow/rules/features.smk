# Dense patch features, one store for each encoder.


rule features:
    input:
        lambda wildcards: plan.inputs("features", wildcards.node),
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
