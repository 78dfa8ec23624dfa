# A text-to-image pipeline and its text encoder's stream of prompts.


use rule stage as train_diffusion with:
    input:
        roles("records", "world", "fetched"),
    pathvars:
        stage="train_diffusion",
    priority: 1
    message:
        "training a text-to-image pipeline on {wildcards.node}"


use rule stage as prompt_features with:
    input:
        roles("pipeline", "records", "files"),
    pathvars:
        stage="prompt_features",
    resources:
        gpu=GPUS,
    message:
        "reading the text encoder's stream for {wildcards.node}"
