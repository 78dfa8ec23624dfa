# A text-to-image pipeline steered through its text encoder, and the attributes found in it.


rule train_diffusion:
    input:
        lambda wildcards: plan.inputs("train_diffusion", wildcards.node),
    output:
        f"{plan.results}/train_diffusion/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/train_diffusion/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/train_diffusion/{{node}}.tsv"
    # Often the longest job, with others in a row behind it: the last one standing if it waits.
    priority: 1
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("train_diffusion", wildcards.node),
        code=lambda wildcards: plan.code("train_diffusion", wildcards.node),
    message:
        "training a text-to-image pipeline on {wildcards.node}"
    shell:
        "vista train_diffusion --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule prompt_features:
    input:
        lambda wildcards: plan.inputs("prompt_features", wildcards.node),
    output:
        f"{plan.results}/prompt_features/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/prompt_features/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/prompt_features/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("prompt_features", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("prompt_features", wildcards.node),
        code=lambda wildcards: plan.code("prompt_features", wildcards.node),
    message:
        "reading the text encoder's stream for {wildcards.node}"
    shell:
        "vista prompt_features --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule diffusion_steering:
    input:
        lambda wildcards: plan.inputs("diffusion_steering", wildcards.node),
    output:
        f"{plan.results}/diffusion_steering/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/diffusion_steering/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/diffusion_steering/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("diffusion_steering", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("diffusion_steering", wildcards.node),
        code=lambda wildcards: plan.code("diffusion_steering", wildcards.node),
    message:
        "steering images of {wildcards.node}"
    shell:
        "vista diffusion_steering --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule attribute_discovery:
    input:
        lambda wildcards: plan.inputs("attribute_discovery", wildcards.node),
    output:
        f"{plan.results}/attribute_discovery/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/attribute_discovery/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/attribute_discovery/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("attribute_discovery", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("attribute_discovery", wildcards.node),
        code=lambda wildcards: plan.code("attribute_discovery", wildcards.node),
    message:
        "looking for attributes in {wildcards.node}"
    shell:
        "vista attribute_discovery --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"
