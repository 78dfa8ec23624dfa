# The long table and the figures.


rule report:
    input:
        lambda wildcards: plan.inputs("report", wildcards.node),
    output:
        f"{plan.results}/report/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/report/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/report/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("report", wildcards.node),
        code=lambda wildcards: plan.code("report", wildcards.node),
    message:
        "writing the report {wildcards.node}"
    shell:
        "vista report --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule summary:
    input:
        plan.report,
    output:
        expand(
            "{results}/summary.{kind}",
            results=plan.results,
            kind=["csv", "parquet", "md"],
        ),
    log:
        f"{plan.results}/logs/summary.log",
    message:
        "copying the report's table and figures to the top of the results folder"
    shell:
        "vista summary {input:q} > {log:q} 2>&1"
