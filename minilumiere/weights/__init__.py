"""Files that are believed only if they match. Read checkpoint, shipped, nets.

A checkpoint is whole or absent; what is shipped lies in `data/weights`, with a manifest; `nets` puts it into a net.
"""

from minilumiere.weights.nets import build, trained

__all__ = ["build", "trained"]
