# Stand-in models: real Hugging Face classes in small sizes, trained here.


rule train_encoder:
    input:
        lambda wildcards: plan.inputs("train_encoder", wildcards.node),
    output:
        f"{plan.results}/train_encoder/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/train_encoder/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/train_encoder/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("train_encoder", wildcards.node),
        code=lambda wildcards: plan.code("train_encoder", wildcards.node),
    message:
        "training the stand-in encoder {wildcards.node}"
    shell:
        "vista train_encoder --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule train_llm:
    input:
        lambda wildcards: plan.inputs("train_llm", wildcards.node),
    output:
        f"{plan.results}/train_llm/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/train_llm/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/train_llm/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("train_llm", wildcards.node),
        code=lambda wildcards: plan.code("train_llm", wildcards.node),
    message:
        "training the stand-in language model {wildcards.node}"
    shell:
        "vista train_llm --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"
