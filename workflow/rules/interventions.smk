# Removal and replacement of objects: directions and edited captions; and the vision SAEs that they
# are compared with.


use rule stage as train_vision_sae with:
    input:
        features=role("features"),
        records=role("records"),
        encoder=role("encoder"),
    pathvars:
        stage="train_vision_sae",
    resources:
        gpu=GPUS,
    message:
        "training the vision SAE {wildcards.node}"


use rule stage as check_vision_sae with:
    input:
        features=role("features"),
        records=role("records"),
        sae=role("sae"),
    pathvars:
        stage="check_vision_sae",
    resources:
        gpu=GPUS,
    message:
        "checking the vision SAE on held-out images {wildcards.node}"


use rule stage as label_vision_latents with:
    input:
        features=role("features"),
        records=role("records"),
        sae=role("sae"),
        check=role("check"),
    pathvars:
        stage="label_vision_latents",
    resources:
        gpu=GPUS,
    message:
        "labelling the latents of {wildcards.node}"


use rule stage as directions with:
    input:
        features=role("features"),
        records=role("records"),
        latents=role("latents"),
        labels=role("labels"),
        projector=role("projector"),
        llm=role("llm"),
        saes=role("saes"),
        checks=role("checks"),
        vision_sae=role("vision_sae"),
        check=role("check"),
        judge=role("judge"),
        files=role("files"),
    pathvars:
        stage="directions",
    resources:
        gpu=GPUS,
    message:
        "finding directions of concepts {wildcards.node}"


use rule stage as edit_captions with:
    input:
        features=role("features"),
        records=role("records"),
        directions=role("directions"),
        projector=role("projector"),
        llm=role("llm"),
        saes=role("saes"),
        vision_sae=role("vision_sae"),
        judge=role("judge"),
        files=role("files"),
    pathvars:
        stage="edit_captions",
    resources:
        gpu=GPUS,
    message:
        "captioning edited images {wildcards.node}"
