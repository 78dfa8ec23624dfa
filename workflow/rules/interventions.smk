# Removal and replacement of objects: directions, edited captions, figures; and the vision SAEs that
# they are compared with.


rule train_vision_sae:
    input:
        lambda wildcards: plan.inputs("train_vision_sae", wildcards.node),
    output:
        f"{plan.results}/train_vision_sae/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/train_vision_sae/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/train_vision_sae/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("train_vision_sae", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("train_vision_sae", wildcards.node),
        code=lambda wildcards: plan.code("train_vision_sae", wildcards.node),
    message:
        "training the vision SAE {wildcards.node}"
    shell:
        "vista train_vision_sae --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule check_vision_sae:
    input:
        lambda wildcards: plan.inputs("check_vision_sae", wildcards.node),
    output:
        f"{plan.results}/check_vision_sae/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/check_vision_sae/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/check_vision_sae/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("check_vision_sae", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("check_vision_sae", wildcards.node),
        code=lambda wildcards: plan.code("check_vision_sae", wildcards.node),
    message:
        "checking the vision SAE on held-out images {wildcards.node}"
    shell:
        "vista check_vision_sae --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule label_vision_latents:
    input:
        lambda wildcards: plan.inputs("label_vision_latents", wildcards.node),
    output:
        f"{plan.results}/label_vision_latents/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/label_vision_latents/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/label_vision_latents/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("label_vision_latents", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("label_vision_latents", wildcards.node),
        code=lambda wildcards: plan.code("label_vision_latents", wildcards.node),
    message:
        "labelling the latents of {wildcards.node}"
    shell:
        "vista label_vision_latents --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule directions:
    input:
        lambda wildcards: plan.inputs("directions", wildcards.node),
    output:
        f"{plan.results}/directions/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/directions/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/directions/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("directions", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("directions", wildcards.node),
        code=lambda wildcards: plan.code("directions", wildcards.node),
    message:
        "finding directions of concepts {wildcards.node}"
    shell:
        "vista directions --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule edit_captions:
    input:
        lambda wildcards: plan.inputs("edit_captions", wildcards.node),
    output:
        f"{plan.results}/edit_captions/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/edit_captions/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/edit_captions/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("edit_captions", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("edit_captions", wildcards.node),
        code=lambda wildcards: plan.code("edit_captions", wildcards.node),
    message:
        "captioning edited images {wildcards.node}"
    shell:
        "vista edit_captions --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule removal:
    input:
        lambda wildcards: plan.inputs("removal", wildcards.node),
    output:
        f"{plan.results}/removal/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/removal/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/removal/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("removal", wildcards.node),
        code=lambda wildcards: plan.code("removal", wildcards.node),
    message:
        "measuring removal {wildcards.node}"
    shell:
        "vista removal --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule replacement:
    input:
        lambda wildcards: plan.inputs("replacement", wildcards.node),
    output:
        f"{plan.results}/replacement/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/replacement/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/replacement/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("replacement", wildcards.node),
        code=lambda wildcards: plan.code("replacement", wildcards.node),
    message:
        "measuring replacement {wildcards.node}"
    shell:
        "vista replacement --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"
