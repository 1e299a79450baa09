"""Make the README's gallery again: eight clips by the shipped weights of `full`, as animated WebP, small.

`python docs/gallery.py` makes all of them, in about five minutes of one CPU core; `python docs/gallery.py two neon` some.
"""

import sys
from pathlib import Path

import torch
from PIL import Image

import minilumiere as ml
from minilumiere.viz.files import to_pixels

HERE = Path(__file__).parent / "gallery"


def main() -> None:
    pipe = ml.load("full")
    circling, size = "a green 5 circling clockwise", pipe.scale.output_size
    real = ml.sample_batch(1, "full", captions=[circling], seed=4, size=size).video[0]
    mask, region = torch.ones(1, 1, size, size), torch.ones(1, size, size)
    mask[..., size // 2 :] = 0  # the right half is missing
    region[..., : size // 8] = 0
    clips = {
        "text": lambda: pipe.generate("a red 3 moving right", seed=0),
        "two": lambda: pipe.generate("a yellow 7 moving up and a blue 2 moving left", seed=0),
        "image": lambda: pipe.image_to_video(real[0], circling, seed=0),
        "inpainting": lambda: pipe.inpaint(real, mask, circling, seed=0),
        "cinemagraph": lambda: pipe.cinemagraph(real[0], region, "a green 5 moving down", seed=0),
        "outline": lambda: pipe.stylize("a cyan 8 moving left", style="outline", seed=1),
        "dotted": lambda: pipe.stylize("a yellow 3 moving right", style="dotted", seed=1),
        "neon": lambda: pipe.stylize("a white 4 moving up", style="neon", seed=1),
    }
    for name in sys.argv[1:] or clips:
        clip = clips[name]()
        frames = [Image.fromarray(frame.numpy()) for frame in to_pixels(clip, 1)]
        options = {"save_all": True, "append_images": frames[1:], "duration": round(1000 / pipe.scale.fps), "loop": 0}
        frames[0].save(HERE / f"{name}.webp", quality=80, method=6, **options)


if __name__ == "__main__":
    main()
