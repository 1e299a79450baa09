"""Figures that several notebooks share."""

import torch
from IPython.display import Image as Inline
from IPython.display import display
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from minilumiere.viz.clips import PALETTE
from minilumiere.viz.files import encode_video

ORANGE, BLUE, GREEN = "#E69F00", "#0072B2", "#009E73"  # told apart by colour-blind readers too
NEARLY_BLACK = 0.08


def show_beside(clips: dict[str, Tensor], fps: float = 16, side: int = 128, shown: float = 1.5) -> None:
    """Clips (t, 3, h, w) in [0, 1] side by side, moving, each with its name above. `side` is a multiple of each h.

    What is nearly black is shown as black: its many shades would take up the palette, and half of the bytes.
    """
    gap, strip = 6, 16
    columns = []
    for name, clip in clips.items():
        ink = torch.where(clip.amax(1, keepdim=True) > NEARLY_BLACK, clip, 0).detach().cpu().clamp(0, 1)
        large = ink.repeat_interleave(side // clip.shape[2], 2)
        large = large.repeat_interleave(side // clip.shape[2], 3)
        label = Image.new("L", (side, strip), 255)
        ImageDraw.Draw(label).text((2, 2), name, fill=0, font=ImageFont.load_default(11))
        head = torch.tensor(list(label.getdata())).reshape(1, 1, strip, side).expand(len(large), 3, -1, -1) / 255
        columns += [torch.cat([head, large], dim=2), torch.ones(len(large), 3, strip + side, gap)]
    video = torch.cat(columns[:-1], dim=3)
    display(Inline(data=encode_video(video, "PNG", fps, 1, PALETTE), format="png", width=int(shown * video.shape[3])))


def show_slice(axis, video: Tensor, title: str = "") -> None:
    """The x–t slice of a clip (t, 3, h, w): the brightest pixel of each column, one row a frame."""
    axis.imshow(video.amax(dim=2).mT.clamp(0, 1), aspect="auto", interpolation="nearest")
    axis.set(xlabel="x →", ylabel="← t", title=title)
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.xaxis.get_major_locator().set_params(integer=True)
