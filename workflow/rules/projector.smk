# Projectors from cached features, and what the SAEs read in their visual tokens.


use rule stage as train_projector with:
    input:
        features=role("features"),
        records=role("records"),
        llm=role("llm"),
        saes=role("saes"),
        checks=role("checks"),
        start=role("start"),
    pathvars:
        stage="train_projector",
    resources:
        gpu=GPUS,
        nodes=MACHINES,
    message:
        "training the projector {wildcards.node}"


use rule stage as import_projector with:
    input:
        features=role("features"),
        llm=role("llm"),
        files=role("files"),
    pathvars:
        stage="import_projector",
    message:
        "importing the projector {wildcards.node}"


use rule stage as latents with:
    input:
        features=role("features"),
        records=role("records"),
        projector=role("projector"),
        llm=role("llm"),
        saes=role("saes"),
        checks=role("checks"),
    pathvars:
        stage="latents",
    resources:
        gpu=GPUS,
    message:
        "encoding into SAE latents through the projector {wildcards.node}"
