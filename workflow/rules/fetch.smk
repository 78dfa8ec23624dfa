# What comes over the network, and the only rules that use it. They run where Snakemake runs (on a
# cluster: the login node), since compute nodes often have no way out. What the user has already is
# named by `path` in the config and is not fetched.


use rule stage as fetch_model with:
    pathvars:
        stage="fetch_model",
    localrule: True
    message:
        "fetching the model {wildcards.node}"


use rule stage as fetch_sae with:
    pathvars:
        stage="fetch_sae",
    localrule: True
    message:
        "fetching the SAE {wildcards.node}"


use rule stage as fetch_labels with:
    pathvars:
        stage="fetch_labels",
    localrule: True
    message:
        "fetching latent labels {wildcards.node}"


use rule stage as fetch_data with:
    pathvars:
        stage="fetch_data",
    localrule: True
    message:
        "fetching data {wildcards.node}"


use rule stage as fetch_package with:
    input:
        roles("files"),
    pathvars:
        stage="fetch_package",
    localrule: True
    message:
        "fetching the package {wildcards.node}"
