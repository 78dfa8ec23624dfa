# A text-to-image pipeline steered through its text encoder, and the attributes found in it.


use rule stage as train_diffusion with:
    input:
        records=role("records"),
        world=role("world"),
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


use rule stage as diffusion_steering with:
    input:
        pipeline=role("pipeline"),
        prompts=role("prompts"),
        sae=role("sae"),
        check=role("check"),
        labels=role("labels"),
        features=role("features"),
        records=role("records"),
        encoder=role("encoder"),
    pathvars:
        stage="diffusion_steering",
    resources:
        gpu=GPUS,
    message:
        "steering images of {wildcards.node}"


use rule stage as attribute_discovery with:
    input:
        pipeline=role("pipeline"),
        prompts=role("prompts"),
        sae=role("sae"),
        check=role("check"),
        labels=role("labels"),
        features=role("features"),
        records=role("records"),
        encoder=role("encoder"),
        judge=role("judge"),
    pathvars:
        stage="attribute_discovery",
    resources:
        gpu=GPUS,
    message:
        "looking for attributes in {wildcards.node}"
