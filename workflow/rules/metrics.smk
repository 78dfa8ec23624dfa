# Metrics: each its own artifact, each from cached stages only.


use rule stage as probe with:
    input:
        features=role("features"),
        records=role("records"),
    pathvars:
        stage="probe",
    message:
        "probing the features of {wildcards.node}"


use rule stage as naming with:
    input:
        labels=role("labels"),
        records=role("records"),
    pathvars:
        stage="naming",
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
    pathvars:
        stage="judge_agreement",
    message:
        "measuring judges on {wildcards.node}"


use rule stage as reconstruction with:
    input:
        latents=role("latents"),
    pathvars:
        stage="reconstruction",
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
    pathvars:
        stage="matching_rate",
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
    pathvars:
        stage="localization",
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
    pathvars:
        stage="caption",
    resources:
        gpu=GPUS,
    message:
        "captioning with {wildcards.node}"
