"""What a server adds to the runtime: a model kept loaded and checked, batches, limits. No torch, no widgets."""
