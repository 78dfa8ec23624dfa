"""The stages of the workflow: one module with `run(job)` for each rule."""

# In the order of the workflow, each with what it makes; the command line lists them so.
STAGES = {
    "fetch_model": "a pretrained model, from its repository",
    "fetch_sae": "a pretrained SAE, from its release",
    "fetch_labels": "labels of latents, from Neuronpedia's export",
    "fetch_data": "images and annotations, by URL",
    "draw_world": "scenes with exact masks, boxes, captions and a text corpus",
    "records": "COCO, LLaVA, folder or WebDataset data as one table",
    "text": "the language corpus as one table",
    "train_encoder": "a stand-in vision encoder",
    "train_llm": "a stand-in language model",
    "train_sae": "an SAE on one block's residual stream, by sae_lens",
    "import_sae": "an SAE in the neutral form",
    "check_sae": "how well an SAE explains held-out text; fails below its bounds",
    "import_labels": "labels of latents out of an export",
    "label_latents": "top text contexts, density and label of each latent",
    "features": "dense patch features of an encoder",
    "train_projector": "a projector for one encoder, LLM, SAE weight and seed",
    "import_projector": "a projector that another program trained",
    "latents": "sparse SAE latents of visual, text and control tokens",
    "probe": "linear-probe patch accuracy of an encoder",
    "naming": "share of classes that have a latent of their own",
    "judge_agreement": "judges against what is known, and against each other",
    "reconstruction": "reconstruction error and sparsity by layer",
    "matching_rate": "do the top latents' labels name what the image shows",
    "localization": "do named latents fire on their object",
    "caption": "held-out cross-entropy, object recall and hallucinated objects",
    "train_vision_sae": "an SAE on an encoder's patch features, by sae_lens",
    "check_vision_sae": "how well a vision SAE explains held-out images; fails below its bounds",
    "label_vision_latents": "top patches and label of each latent of a vision SAE",
    "directions": "a direction for each concept, by one method",
    "edit_captions": "captions of images whose visual tokens were edited",
    "removal": "does an edit make captions stop naming an object",
    "replacement": "does an edit make captions name another object instead",
    "report": "the long table and the figures",
}

# Those whose work several jobs may share out, each doing a part of one artifact.
SPLIT = frozenset({"features"})
