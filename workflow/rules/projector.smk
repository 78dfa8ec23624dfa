# Projectors from cached features, and what the SAEs read in their visual tokens.


rule train_projector:
    input:
        lambda wildcards: plan.inputs("train_projector", wildcards.node),
    output:
        f"{plan.results}/train_projector/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/train_projector/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/train_projector/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("train_projector", wildcards.node),
        nodes=lambda wildcards: plan.machines("train_projector", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("train_projector", wildcards.node),
        code=lambda wildcards: plan.code("train_projector", wildcards.node),
    message:
        "training the projector {wildcards.node}"
    shell:
        "vista train_projector --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule import_projector:
    input:
        lambda wildcards: plan.inputs("import_projector", wildcards.node),
    output:
        f"{plan.results}/import_projector/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/import_projector/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/import_projector/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("import_projector", wildcards.node),
        code=lambda wildcards: plan.code("import_projector", wildcards.node),
    message:
        "importing the projector {wildcards.node}"
    shell:
        "vista import_projector --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule latents:
    input:
        lambda wildcards: plan.inputs("latents", wildcards.node),
    output:
        f"{plan.results}/latents/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/latents/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/latents/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("latents", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("latents", wildcards.node),
        code=lambda wildcards: plan.code("latents", wildcards.node),
    message:
        "encoding into SAE latents through the projector {wildcards.node}"
    shell:
        "vista latents --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"
