# What comes over the network, and the only rules that use it. They run where Snakemake runs (on a
# cluster: the login node), since compute nodes often have no way out. What the user has already is
# named by `path` in the config and is not fetched.


rule fetch_model:
    input:
        lambda wildcards: plan.inputs("fetch_model", wildcards.node),
    output:
        f"{plan.results}/fetch_model/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/fetch_model/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/fetch_model/{{node}}.tsv"
    localrule: True
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("fetch_model", wildcards.node),
        code=lambda wildcards: plan.code("fetch_model", wildcards.node),
    message:
        "fetching the model {wildcards.node}"
    shell:
        "vista fetch_model --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule fetch_sae:
    input:
        lambda wildcards: plan.inputs("fetch_sae", wildcards.node),
    output:
        f"{plan.results}/fetch_sae/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/fetch_sae/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/fetch_sae/{{node}}.tsv"
    localrule: True
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("fetch_sae", wildcards.node),
        code=lambda wildcards: plan.code("fetch_sae", wildcards.node),
    message:
        "fetching the SAE {wildcards.node}"
    shell:
        "vista fetch_sae --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule fetch_labels:
    input:
        lambda wildcards: plan.inputs("fetch_labels", wildcards.node),
    output:
        f"{plan.results}/fetch_labels/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/fetch_labels/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/fetch_labels/{{node}}.tsv"
    localrule: True
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("fetch_labels", wildcards.node),
        code=lambda wildcards: plan.code("fetch_labels", wildcards.node),
    message:
        "fetching latent labels {wildcards.node}"
    shell:
        "vista fetch_labels --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"


rule fetch_data:
    input:
        lambda wildcards: plan.inputs("fetch_data", wildcards.node),
    output:
        f"{plan.results}/fetch_data/{{node}}/manifest.json",
    log:
        f"{plan.results}/logs/fetch_data/{{node}}.log",
    benchmark:
        f"{plan.results}/benchmarks/fetch_data/{{node}}.tsv"
    localrule: True
    threads: plan.config.threads
    params:
        spec=lambda wildcards: plan.spec("fetch_data", wildcards.node),
        code=lambda wildcards: plan.code("fetch_data", wildcards.node),
    message:
        "fetching data {wildcards.node}"
    shell:
        "vista fetch_data --spec {params.spec:q} --manifest {output:q}"
        " --threads {threads} --log {log:q}"
