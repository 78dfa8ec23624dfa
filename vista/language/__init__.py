"""The frozen language model: prompts, spliced visual tokens, residual taps, greedy captions."""
