# Metrics: each its own artifact, each from cached stages only.


rule probe:
    input:
        lambda wildcards: plan.inputs("probe", wildcards.node),
    output:
        f"{plan.results}/probe/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/probe/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/probe/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("probe", wildcards.node),
        code=lambda wildcards: plan.code("probe", wildcards.node),
    message:
        "probing the features of {wildcards.node}"
    shell:
        "vista probe --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule naming:
    input:
        lambda wildcards: plan.inputs("naming", wildcards.node),
    output:
        f"{plan.results}/naming/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/naming/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/naming/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("naming", wildcards.node),
        code=lambda wildcards: plan.code("naming", wildcards.node),
    message:
        "counting classes with a latent of their own in {wildcards.node}"
    shell:
        "vista naming --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule judge_agreement:
    input:
        lambda wildcards: plan.inputs("judge_agreement", wildcards.node),
    output:
        f"{plan.results}/judge_agreement/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/judge_agreement/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/judge_agreement/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("judge_agreement", wildcards.node),
        code=lambda wildcards: plan.code("judge_agreement", wildcards.node),
    message:
        "measuring judges on {wildcards.node}"
    shell:
        "vista judge_agreement --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule reconstruction:
    input:
        lambda wildcards: plan.inputs("reconstruction", wildcards.node),
    output:
        f"{plan.results}/reconstruction/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/reconstruction/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/reconstruction/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("reconstruction", wildcards.node),
        code=lambda wildcards: plan.code("reconstruction", wildcards.node),
    message:
        "measuring reconstruction of {wildcards.node}"
    shell:
        "vista reconstruction --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule matching_rate:
    input:
        lambda wildcards: plan.inputs("matching_rate", wildcards.node),
    output:
        f"{plan.results}/matching_rate/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/matching_rate/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/matching_rate/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("matching_rate", wildcards.node),
        code=lambda wildcards: plan.code("matching_rate", wildcards.node),
    message:
        "measuring the matching rate of {wildcards.node}"
    shell:
        "vista matching_rate --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule localization:
    input:
        lambda wildcards: plan.inputs("localization", wildcards.node),
    output:
        f"{plan.results}/localization/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/localization/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/localization/{{node}}.tsv"
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("localization", wildcards.node),
        code=lambda wildcards: plan.code("localization", wildcards.node),
    message:
        "measuring localization of {wildcards.node}"
    shell:
        "vista localization --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule caption:
    input:
        lambda wildcards: plan.inputs("caption", wildcards.node),
    output:
        f"{plan.results}/caption/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/caption/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/caption/{{node}}.tsv"
    threads: plan.config.threads
    resources:
        gpu=lambda wildcards: plan.gpus("caption", wildcards.node),
    params:
        spec=lambda wildcards: plan.spec("caption", wildcards.node),
        code=lambda wildcards: plan.code("caption", wildcards.node),
    message:
        "captioning with {wildcards.node}"
    shell:
        "vista caption --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"
