# The long table and the figures.


use rule stage as report with:
    input:
        metrics=role("metrics"),
        checks=role("checks"),
        projectors=role("projectors"),
        latents=role("latents"),
        labels=role("labels"),
        features=role("features"),
        records=role("records"),
        world=role("world"),
        fetched=role("fetched"),
    output:
        made("report"),
    message:
        "writing the report {wildcards.node}"


rule summary:
    input:
        plan.report,
    output:
        expand(
            "{results}/summary.{kind}",
            results=plan.results,
            kind=["csv", "parquet", "md"],
        ),
    log:
        f"{plan.results}/logs/summary.log",
    message:
        "copying the report's table and figures to the top of the results folder"
    shell:
        "vista summary {input:q} > {log:q} 2>&1"
