# Stand-in models: real Hugging Face classes in small sizes, trained here.


use rule stage as train_encoder with:
    input:
        roles("records", "world"),
    pathvars:
        stage="train_encoder",
    message:
        "training the stand-in encoder {wildcards.node}"


use rule stage as train_llm with:
    input:
        roles("text"),
    pathvars:
        stage="train_llm",
    message:
        "training the stand-in language model {wildcards.node}"
