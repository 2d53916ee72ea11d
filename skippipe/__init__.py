"""SkipPipe, rebuilt: pipeline training whose microbatches may skip and reorder the model's stages."""
