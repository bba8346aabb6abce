"""Training and scoring the causal codec of prep.codecs."""
