# Removal and replacement of objects: directions and edited captions; and the vision SAEs that they
# are compared with.


use rule stage as train_vision_sae with:
    input:
        roles("features", "records", "encoder"),
    pathvars:
        stage="train_vision_sae",
    resources:
        gpu=GPUS,
    message:
        "training the vision SAE {wildcards.node}"


use rule stage as import_vision_sae with:
    input:
        roles("features", "records", "encoder", "fetched", "files"),
    pathvars:
        stage="import_vision_sae",
    message:
        "importing the vision SAE {wildcards.node}"


use rule stage as train_guided_sae with:
    input:
        roles("features", "records", "encoder", "files"),
    pathvars:
        stage="train_guided_sae",
    resources:
        gpu=GPUS,
    message:
        "training the guided vision SAE {wildcards.node}"


use rule stage as check_vision_sae with:
    input:
        roles("features", "records", "sae"),
    pathvars:
        stage="check_vision_sae",
    resources:
        gpu=GPUS,
    message:
        "checking the vision SAE on held-out images {wildcards.node}"


use rule stage as label_vision_latents with:
    input:
        roles("features", "records", "sae", "check"),
    pathvars:
        stage="label_vision_latents",
    resources:
        gpu=GPUS,
    message:
        "labelling the latents of {wildcards.node}"


use rule stage as label_guided_latents with:
    input:
        roles("features", "records", "sae", "check"),
    pathvars:
        stage="label_guided_latents",
    resources:
        gpu=GPUS,
    message:
        "labelling the latents of {wildcards.node} by their concepts"


use rule stage as label_by_steering with:
    input:
        roles(
            "sae",
            "labels",
            "features",
            "records",
            "projector",
            "encoder",
            "llm",
            "files",
        ),
    pathvars:
        stage="label_by_steering",
    resources:
        gpu=GPUS,
    message:
        "steering a blank image along the latents of {wildcards.node}"


use rule stage as directions with:
    input:
        roles(
            "features",
            "records",
            "latents",
            "labels",
            "projector",
            "llm",
            "saes",
            "checks",
            "vision_sae",
            "check",
            "judge",
            "files",
        ),
    pathvars:
        stage="directions",
    resources:
        gpu=GPUS,
    message:
        "finding directions of concepts {wildcards.node}"


use rule stage as edit_captions with:
    input:
        roles(
            "features",
            "records",
            "directions",
            "projector",
            "llm",
            "saes",
            "vision_sae",
            "judge",
            "files",
        ),
    pathvars:
        stage="edit_captions",
    resources:
        gpu=GPUS,
    message:
        "captioning edited images {wildcards.node}"
