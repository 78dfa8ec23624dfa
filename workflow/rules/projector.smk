# Projectors from cached features, and what the SAEs read in their visual tokens.


use rule stage as train_projector with:
    input:
        roles("features", "records", "llm", "saes", "checks", "start", "files"),
    pathvars:
        stage="train_projector",
    resources:
        gpu=GPUS,
        nodes=MACHINES,
    message:
        "training the projector {wildcards.node}"


use rule stage as train_cross_attention with:
    input:
        roles("features", "records", "llm", "files"),
    pathvars:
        stage="train_cross_attention",
    resources:
        gpu=GPUS,
    message:
        "training cross-attention {wildcards.node}"


use rule stage as suggest with:
    input:
        roles("features", "records", "llm", "saes", "checks", "files"),
    pathvars:
        stage="suggest",
    resources:
        gpu=GPUS,
    message:
        "trying settings of training for {wildcards.node}"


use rule stage as import_projector with:
    input:
        roles("features", "llm", "files"),
    pathvars:
        stage="import_projector",
    message:
        "importing the projector {wildcards.node}"


use rule stage as control_tokens with:
    input:
        roles("features", "records", "llm", "projector", "reference", "files"),
    pathvars:
        stage="control_tokens",
    resources:
        gpu=GPUS,
    message:
        "making the visual tokens of the control {wildcards.node}"


use rule stage as choose_scale with:
    input:
        roles(
            "features",
            "records",
            "projector",
            "llm",
            "saes",
            "checks",
            "labels",
            "judge",
            "files",
        ),
    pathvars:
        stage="choose_scale",
    resources:
        gpu=GPUS,
    message:
        "choosing the scale of the visual tokens of {wildcards.node}"


use rule stage as latents with:
    input:
        roles(
            "features",
            "records",
            "projector",
            "llm",
            "saes",
            "checks",
            "unscaled",
            "files",
        ),
    pathvars:
        stage="latents",
    resources:
        gpu=GPUS,
    message:
        "encoding into SAE latents through the projector {wildcards.node}"
