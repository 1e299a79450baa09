"""minilumiere: Lumiere's text-to-video diffusion, small enough to read and to train. Floors, from the ground up:

    config, validate   every size, in two presets; checks of what users hand in
    dataset/           captions, glyphs and styles, moving digits: the world and its truth
    model/             the paper: diffusion, U-Net, Space-Time U-Net, MultiDiffusion, conditioning, stylization
    weights/           files that are believed only if they match
    viz/               clips, and what every layer makes of them
    pipeline           use it: text to video, image to video, inpainting, cinemagraphs, stylization
    evaluation/        the judge, and the tables that it fills
    training/          batches, stages, the loop
    cli                the door: the command line

A file imports only what lies on its own floor or below (a test keeps it so). Each folder says in which order to read it.

Axes: `b` batch, `c` channels, `t` frames, `h w` height and width, `n` words. A user's video is (T, 3, H, W) in [0, 1];
inside the models it is `b c t h w` in [-1, 1]. The diffusion time is `time`; `t` is always the axis of the frames.
"""

from importlib import import_module

from minilumiere.config import VERSION

__version__ = VERSION
_HOME = {  # public name: the module that has it, imported at first use, so that `import minilumiere` takes no time
    "UNSEEN_PAIRS": "dataset",
    "assess": "evaluation",
    "load": "pipeline",
    "sample_batch": "dataset",
    "save_video": "viz",
    "show_video": "viz",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"minilumiere.{_HOME[name]}"), name)
    raise AttributeError(f"module 'minilumiere' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
