# The long table and the figures.


use rule stage as report with:
    input:
        roles(
            "metrics",
            "checks",
            "projectors",
            "suggestions",
            "latents",
            "labels",
            "features",
            "records",
            "world",
            "fetched",
        ),
    pathvars:
        stage="report",
    message:
        "writing the report {wildcards.node}"


rule summary:
    input:
        plan.report,
    output:
        table=report(
            f"{plan.results}/summary.csv",
            category="Tables",
            caption="../report/table.rst",
        ),
        readable=report(
            f"{plan.results}/summary.md",
            category="Tables",
            caption="../report/summary.rst",
        ),
        parquet=f"{plan.results}/summary.parquet",
        figures=report(
            directory(f"{plan.results}/figures"),
            patterns=["{figure}.png"],
            category="Figures",
            caption="../report/figure.rst",
        ),
    log:
        f"{plan.results}/logs/summary.log",
    message:
        "copying the report's table and figures to the top of the results folder"
    shell:
        "vista summary {input:q} > {log:q} 2>&1"
