# A text-to-image pipeline and its text encoder's stream of prompts.


use rule stage as train_diffusion with:
    input:
        records=role("records"),
        world=role("world"),
        fetched=role("fetched"),
    pathvars:
        stage="train_diffusion",
    priority: 1
    message:
        "training a text-to-image pipeline on {wildcards.node}"


use rule stage as prompt_features with:
    input:
        pipeline=role("pipeline"),
        records=role("records"),
        files=role("files"),
    pathvars:
        stage="prompt_features",
    resources:
        gpu=GPUS,
    message:
        "reading the text encoder's stream for {wildcards.node}"
