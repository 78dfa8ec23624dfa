# Metrics: each its own artifact, each from cached stages only.


use rule stage as probe with:
    input:
        features=role("features"),
        records=role("records"),
    output:
        made("probe"),
    message:
        "probing the features of {wildcards.node}"


use rule stage as naming with:
    input:
        labels=role("labels"),
        records=role("records"),
    output:
        made("naming"),
    message:
        "counting classes with a latent of their own in {wildcards.node}"


use rule stage as judge_agreement with:
    input:
        records=role("records"),
        labels=role("labels"),
        world=role("world"),
        fetched=role("fetched"),
        judges=role("judge_*"),
        files=role("files"),
    output:
        made("judge_agreement"),
    message:
        "measuring judges on {wildcards.node}"


use rule stage as reconstruction with:
    input:
        latents=role("latents"),
    output:
        made("reconstruction"),
    message:
        "measuring reconstruction of {wildcards.node}"


use rule stage as matching_rate with:
    input:
        latents=role("latents"),
        labels=role("labels"),
        records=role("records"),
        world=role("world"),
        fetched=role("fetched"),
        judge=role("judge"),
        files=role("files"),
    output:
        made("matching_rate"),
    message:
        "measuring the matching rate of {wildcards.node}"


use rule stage as localization with:
    input:
        latents=role("latents"),
        labels=role("labels"),
        records=role("records"),
        features=role("features"),
        judge=role("judge"),
        files=role("files"),
    output:
        made("localization"),
    message:
        "measuring localization of {wildcards.node}"


use rule stage as caption with:
    input:
        features=role("features"),
        records=role("records"),
        projector=role("projector"),
        llm=role("llm"),
        judge=role("judge"),
        files=role("files"),
    output:
        made("caption"),
    resources:
        gpu=GPUS,
    message:
        "captioning with {wildcards.node}"
