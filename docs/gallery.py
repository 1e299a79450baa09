"""Make the README's gallery again: eight clips by the shipped weights, as animated WebP, small. `python docs/gallery.py`"""

from pathlib import Path

import torch
from PIL import Image

import minilumiere as ml
from minilumiere.viz.files import to_pixels

HERE = Path(__file__).parent / "gallery"


def main() -> None:
    pipe = ml.load("tiny")
    circling, size = "a green 5 circling clockwise", pipe.scale.output_size
    real = ml.sample_batch(1, captions=[circling], seed=4, size=size, frames=32).video[0]
    mask, region = torch.ones(1, 1, size, size), torch.ones(1, size, size)
    mask[..., size // 2 :] = 0  # the right half is missing
    region[..., : size // 8] = 0
    clips = {
        "text": pipe.generate("a red 3 moving right", seed=0, frames=80),
        "two": pipe.generate("a yellow 7 moving up and a blue 2 moving left", seed=0, frames=32),
        "image": pipe.image_to_video(real[0], circling, seed=0, frames=32),
        "inpainting": pipe.inpaint(real, mask, circling, seed=0),
        "cinemagraph": pipe.cinemagraph(real[0], region, "a green 5 moving down", seed=0, frames=32),
        "outline": pipe.stylize("a cyan 8 moving left", style="outline", seed=1, frames=32),
        "dotted": pipe.stylize("a purple 0 circling anticlockwise", style="dotted", seed=1, frames=32),
        "neon": pipe.stylize("a white 4 moving up", style="neon", seed=1, frames=32),
    }
    for name, clip in clips.items():
        frames = [Image.fromarray(frame.numpy()) for frame in to_pixels(clip, 1)]
        options = {"save_all": True, "append_images": frames[1:], "duration": round(1000 / pipe.scale.fps), "loop": 0}
        frames[0].save(HERE / f"{name}.webp", quality=80, method=6, **options)


if __name__ == "__main__":
    main()
