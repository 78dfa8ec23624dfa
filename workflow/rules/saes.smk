# SAEs on the residual stream: train or import into the neutral form, check, label.


use rule stage as cache_text with:
    input:
        roles("llm", "text"),
    pathvars:
        stage="cache_text",
    resources:
        gpu=GPUS,
    message:
        "reading text for the SAEs of {wildcards.node}"


use rule stage as train_sae with:
    input:
        roles("llm", "text", "cache"),
    pathvars:
        stage="train_sae",
    resources:
        gpu=GPUS,
    message:
        "training the SAE {wildcards.node}"


use rule stage as import_sae with:
    input:
        roles("train_sae", "fetched"),
    pathvars:
        stage="import_sae",
    message:
        "importing the SAE {wildcards.node}"


use rule stage as check_sae with:
    input:
        roles("llm", "sae", "text", "cache"),
    pathvars:
        stage="check_sae",
    resources:
        gpu=GPUS,
    message:
        "checking the SAE on held-out text {wildcards.node}"


use rule stage as label_latents with:
    input:
        roles("llm", "sae", "text", "cache"),
    pathvars:
        stage="label_latents",
    resources:
        gpu=GPUS,
    message:
        "labelling the latents of {wildcards.node}"


use rule stage as import_labels with:
    input:
        roles("sae", "export"),
    pathvars:
        stage="import_labels",
    message:
        "importing labels of {wildcards.node}"
