include: "workflow/Snakefile"


# A target of an included file is never the default one, so the default is named here.
rule default:
    default_target: True
    input:
        rules.all.input,
