# What SAEs of vision models are good for: the second paper's experiments, each its own artifact.


rule monosemanticity:
    input:
        lambda wildcards: plan.inputs("monosemanticity", wildcards.node),
    output:
        f"{plan.results}/monosemanticity/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/monosemanticity/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/monosemanticity/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("monosemanticity", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("monosemanticity", wildcards.node),
        code=lambda wildcards: plan.code("monosemanticity", wildcards.node),
    message:
        "judging how alike the images of a latent are in {wildcards.node}"
    shell:
        "vista monosemanticity --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule ood_detection:
    input:
        lambda wildcards: plan.inputs("ood_detection", wildcards.node),
    output:
        f"{plan.results}/ood_detection/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/ood_detection/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/ood_detection/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("ood_detection", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("ood_detection", wildcards.node),
        code=lambda wildcards: plan.code("ood_detection", wildcards.node),
    message:
        "telling other images from held-out ones in {wildcards.node}"
    shell:
        "vista ood_detection --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule ood_generalization:
    input:
        lambda wildcards: plan.inputs("ood_generalization", wildcards.node),
    output:
        f"{plan.results}/ood_generalization/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/ood_generalization/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/ood_generalization/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("ood_generalization", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("ood_generalization", wildcards.node),
        code=lambda wildcards: plan.code("ood_generalization", wildcards.node),
    message:
        "probing under shift in {wildcards.node}"
    shell:
        "vista ood_generalization --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule ontology:
    input:
        lambda wildcards: plan.inputs("ontology", wildcards.node),
    output:
        f"{plan.results}/ontology/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/ontology/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/ontology/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("ontology", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("ontology", wildcards.node),
        code=lambda wildcards: plan.code("ontology", wildcards.node),
    message:
        "placing latents in WordNet in {wildcards.node}"
    shell:
        "vista ontology --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule image_attributes:
    input:
        lambda wildcards: plan.inputs("image_attributes", wildcards.node),
    output:
        f"{plan.results}/image_attributes/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/image_attributes/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/image_attributes/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("image_attributes", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("image_attributes", wildcards.node),
        code=lambda wildcards: plan.code("image_attributes", wildcards.node),
    message:
        "looking for attributes in images in {wildcards.node}"
    shell:
        "vista image_attributes --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule shared_latents:
    input:
        lambda wildcards: plan.inputs("shared_latents", wildcards.node),
    output:
        f"{plan.results}/shared_latents/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/shared_latents/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/shared_latents/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("shared_latents", wildcards.node),
        code=lambda wildcards: plan.code("shared_latents", wildcards.node),
    message:
        "looking for latents shared by words and images in {wildcards.node}"
    shell:
        "vista shared_latents --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule logit_lens:
    input:
        lambda wildcards: plan.inputs("logit_lens", wildcards.node),
    output:
        f"{plan.results}/logit_lens/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/logit_lens/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/logit_lens/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("logit_lens", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("logit_lens", wildcards.node),
        code=lambda wildcards: plan.code("logit_lens", wildcards.node),
    message:
        "reading visual tokens by the head of the language model in {wildcards.node}"
    shell:
        "vista logit_lens --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"
