"""The stages of the workflow: one module with `run(job)` for each rule."""

# In the order of the workflow, each with what it makes; the command line lists them so.
STAGES = {
    "draw_world": "scenes with exact masks, boxes, captions and a text corpus",
    "records": "COCO, LLaVA or folder data as one table",
    "text": "the language corpus as one table",
    "train_encoder": "a stand-in vision encoder",
    "train_llm": "a stand-in language model",
    "train_sae": "an SAE on one block's residual stream, by sae_lens",
    "import_sae": "an SAE in the neutral form",
    "check_sae": "how well an SAE explains held-out text; fails below its bounds",
    "label_latents": "top text contexts, density and label of each latent",
    "features": "dense patch features of an encoder",
    "train_projector": "a projector for one encoder, LLM, SAE weight and seed",
    "latents": "sparse SAE latents of visual, text and control tokens",
    "probe": "linear-probe patch accuracy of an encoder",
    "naming": "share of classes that have a latent of their own",
    "reconstruction": "reconstruction error and sparsity by layer",
    "matching_rate": "do the top latents' labels name what the image shows",
    "localization": "do named latents fire on their object",
    "caption": "held-out cross-entropy, object recall and hallucinated objects",
    "report": "the long table and the figures",
}
