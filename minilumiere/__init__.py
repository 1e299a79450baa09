"""minilumiere: Lumiere's text-to-video diffusion, small enough to read and to train. Read in this order:

     config           every size, in two presets
     captions         the grammar: "a red 3 moving right"
     glyphs           handwritten-like digits from splines
     styles           three other ways to draw a digit
     moving_digits    scenes, paths and their truth
     text             captions to token features
     diffusion        noise, v-prediction, the sampler
     blocks           small parts that the nets share
     unet             the text-to-image net
     temporal         what makes an image net a video net
     stunet           the Space-Time U-Net
     appearance       the image net's guidance of every frame
     composition      two objects: each alone, then both together
     conditioning     masks: what of a clip is given
     stylize          an image net in between plain and styled
     multidiffusion   windows of a long video, reconciled
     superres         super-resolution in windows
     checkpoint, weights    files that are whole and are believed only if they match
     judge            reading videos
     models           the nets of a scale, fresh or trained
     pipeline         text to video, image to video, inpainting, cinemagraphs, stylization
     training_clips   what the base is trained on, and in which order
     stages, train    what is trained, and how
     evaluate, evaluate_tasks, evaluate_styles    the tables: real beside generated; given pixels; styles
     features, explorer    every layer's output, and sliders to look at it
     viz, validate, cli    showing, checking, the command line

Axes: `b` batch, `c` channels, `t` frames, `h w` height and width, `n` words. A user's video is (T, 3, H, W) in [0, 1];
inside the models it is `b c t h w` in [-1, 1]. The diffusion time is `time`; `t` is always the axis of the frames.
"""

from minilumiere.judge import assess
from minilumiere.moving_digits import UNSEEN_PAIRS, sample_batch
from minilumiere.pipeline import load
from minilumiere.viz import save_video, show_video

__version__ = "0.1.0"
__all__ = ["UNSEEN_PAIRS", "assess", "load", "sample_batch", "save_video", "show_video"]
