# Models: real Hugging Face classes in small sizes, trained here, and files of other programs,
# joined where they come in parts, and converted once; and words of the text by their residual stream.


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


use rule stage as index_text with:
    input:
        roles("llm", "text"),
    pathvars:
        stage="index_text",
    resources:
        gpu=GPUS,
    message:
        "indexing words of the text by the language model {wildcards.node}"


use rule stage as join_package with:
    input:
        roles("parts"),
    pathvars:
        stage="join_package",
    message:
        "joining the parts of {wildcards.node}"


use rule stage as import_gguf with:
    input:
        roles("package", "files"),
    pathvars:
        stage="import_gguf",
    message:
        "converting the GGUF file of the language model {wildcards.node}"


use rule stage as import_onnx with:
    input:
        roles("package", "files"),
    pathvars:
        stage="import_onnx",
    message:
        "converting the ONNX file of the encoder {wildcards.node}"
