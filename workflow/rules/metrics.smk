# Metrics: each its own artifact, each from cached stages only. A metric declares itself in
# vista/metrics/<name>/__init__.py, or as a plug-in that the config names; `reads` are the roles of
# its inputs.
for metric in metrics_with(node.stage for node in plan.nodes.values()).values():

    rule:
        name:
            metric.name
        input:
            roles(*metric.reads, "files"),
        output:
            f"{plan.results}/{metric.name}/{{node}}/manifest.json",
        log:
            f"{plan.results}/logs/{metric.name}/{{node}}.log",
        benchmark:
            f"{plan.results}/benchmarks/{metric.name}/{{node}}.tsv"
        threads: plan.config.threads
        resources:
            gpu=GPUS if metric.gpu else 0,
        params:
            order=lambda wildcards: plan.order(wildcards.node),
        message:
            f"{metric.message} {{wildcards.node}}"
        shell:
            SHELL
