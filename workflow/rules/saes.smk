# SAEs on the residual stream: train or import into the neutral form, check, label.


rule train_sae:
    input:
        lambda wildcards: plan.inputs("train_sae", wildcards.node),
    output:
        f"{plan.results}/train_sae/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/train_sae/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/train_sae/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("train_sae", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("train_sae", wildcards.node),
        code=lambda wildcards: plan.code("train_sae", wildcards.node),
    message:
        "training the SAE {wildcards.node}"
    shell:
        "vista train_sae --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule import_sae:
    input:
        lambda wildcards: plan.inputs("import_sae", wildcards.node),
    output:
        f"{plan.results}/import_sae/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/import_sae/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/import_sae/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("import_sae", wildcards.node),
        code=lambda wildcards: plan.code("import_sae", wildcards.node),
    message:
        "importing the SAE {wildcards.node}"
    shell:
        "vista import_sae --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule check_sae:
    input:
        lambda wildcards: plan.inputs("check_sae", wildcards.node),
    output:
        f"{plan.results}/check_sae/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/check_sae/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/check_sae/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("check_sae", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("check_sae", wildcards.node),
        code=lambda wildcards: plan.code("check_sae", wildcards.node),
    message:
        "checking the SAE on held-out text {wildcards.node}"
    shell:
        "vista check_sae --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule label_latents:
    input:
        lambda wildcards: plan.inputs("label_latents", wildcards.node),
    output:
        f"{plan.results}/label_latents/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/label_latents/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/label_latents/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("label_latents", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("label_latents", wildcards.node),
        code=lambda wildcards: plan.code("label_latents", wildcards.node),
    message:
        "labelling the latents of {wildcards.node}"
    shell:
        "vista label_latents --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule import_labels:
    input:
        lambda wildcards: plan.inputs("import_labels", wildcards.node),
    output:
        f"{plan.results}/import_labels/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/import_labels/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/import_labels/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("import_labels", wildcards.node),
        code=lambda wildcards: plan.code("import_labels", wildcards.node),
    message:
        "importing labels of {wildcards.node}"
    shell:
        "vista import_labels --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"
