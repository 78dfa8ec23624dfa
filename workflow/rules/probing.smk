# What SAEs of vision models are good for: the second paper's experiments, each its own artifact.


use rule stage as monosemanticity with:
    input:
        features=role("features"),
        records=role("records"),
        sae=role("sae"),
        check=role("check"),
        labels=role("labels"),
        other=role("other"),
        world=role("world"),
        fetched=role("fetched"),
    pathvars:
        stage="monosemanticity",
    resources:
        gpu=GPUS,
    message:
        "judging how alike the images of a latent are in {wildcards.node}"


use rule stage as ood_detection with:
    input:
        features=role("features"),
        records=role("records"),
        sae=role("sae"),
        check=role("check"),
        set_features=role("set_features"),
        set_records=role("set_records"),
    pathvars:
        stage="ood_detection",
    resources:
        gpu=GPUS,
    message:
        "telling other images from held-out ones in {wildcards.node}"


use rule stage as ood_generalization with:
    input:
        features=role("features"),
        records=role("records"),
        sae=role("sae"),
        check=role("check"),
        set_features=role("set_features"),
        set_records=role("set_records"),
    pathvars:
        stage="ood_generalization",
    resources:
        gpu=GPUS,
    message:
        "probing under shift in {wildcards.node}"


use rule stage as ontology with:
    input:
        features=role("features"),
        records=role("records"),
        sae=role("sae"),
        check=role("check"),
        labels=role("labels"),
        files=role("files"),
    pathvars:
        stage="ontology",
    resources:
        gpu=GPUS,
    message:
        "placing latents in WordNet in {wildcards.node}"


use rule stage as image_attributes with:
    input:
        features=role("features"),
        records=role("records"),
        sae=role("sae"),
        check=role("check"),
        world=role("world"),
        fetched=role("fetched"),
        judge=role("judge"),
    pathvars:
        stage="image_attributes",
    resources:
        gpu=GPUS,
    message:
        "looking for attributes in images in {wildcards.node}"


use rule stage as shared_latents with:
    input:
        features=role("features"),
        records=role("records"),
        latents=role("latents"),
        llm=role("llm"),
    pathvars:
        stage="shared_latents",
    message:
        "looking for latents shared by words and images in {wildcards.node}"


use rule stage as logit_lens with:
    input:
        features=role("features"),
        records=role("records"),
        projector=role("projector"),
        llm=role("llm"),
        judge=role("judge"),
        files=role("files"),
    pathvars:
        stage="logit_lens",
    resources:
        gpu=GPUS,
    message:
        "reading visual tokens by the head of the language model in {wildcards.node}"
