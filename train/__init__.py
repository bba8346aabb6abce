"""LiveBand: a causal GAN that accompanies a live musician, trained on shards of latents, played frame by frame."""
