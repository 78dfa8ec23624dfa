# Data: drawn scenes, or the user's own, as one table of records and one of text.


rule draw_world:
    input:
        lambda wildcards: plan.inputs("draw_world", wildcards.node),
    output:
        f"{plan.results}/draw_world/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/draw_world/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/draw_world/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("draw_world", wildcards.node),
        code=lambda wildcards: plan.code("draw_world", wildcards.node),
    message:
        "drawing scenes {wildcards.node}"
    shell:
        "vista draw_world --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule records:
    input:
        lambda wildcards: plan.inputs("records", wildcards.node),
    output:
        f"{plan.results}/records/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/records/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/records/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("records", wildcards.node),
        code=lambda wildcards: plan.code("records", wildcards.node),
    message:
        "reading the data {wildcards.node}"
    shell:
        "vista records --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule text:
    input:
        lambda wildcards: plan.inputs("text", wildcards.node),
    output:
        f"{plan.results}/text/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/text/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/text/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("text", wildcards.node),
        code=lambda wildcards: plan.code("text", wildcards.node),
    message:
        "reading the language corpus {wildcards.node}"
    shell:
        "vista text --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"
