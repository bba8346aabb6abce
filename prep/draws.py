"""Random numbers that depend on what they are for, and on nothing else.

A generator is keyed by (seed, id, stage), so what is drawn for one multitrack stays the same whatever else is in the
corpus, in which order it is built and by how many workers.
"""

import hashlib
import json

import numpy as np


def rng_for(seed: int, id: str, stage: str) -> np.random.Generator:
    """A fresh generator for one stage of one multitrack; equal arguments give equal draws on every machine."""
    # json keeps ("a", "bc") and ("ab", "c") apart, which plain joining would not
    digest = hashlib.sha256(json.dumps([seed, id, stage]).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
