"""The small world of notebook 05b, and the text-to-image net that is inflated there.

One digit of four in one of four colours moves in one of four directions: 8 frames of 16×16 pixels. Each digit is always
written in the same hand, and is 8 pixels tall.

    cd notebooks && python -m course.small_world 1500 && python -m course.small_world 2500

trains the image net (4 minutes of one CPU core) and writes `small_world.safetensors`; where that file is there already, its
training goes on. Lumiere starts from a pretrained text-to-image net, too. The training is that of notebook 02: v-prediction,
cosine schedule, one caption in ten dropped. In the file that comes with the course, the first 1,500 steps had shift 0.
"""

import sys
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from minilumiere.config import UNetConfig
from minilumiere.dataset.captions import DIRECTIONS, parse_caption
from minilumiere.dataset.glyphs import load_bank
from minilumiere.dataset.moving_digits import render
from minilumiere.dataset.paths import CANVAS, random_paths
from minilumiere.dataset.subjects import subjects_of
from minilumiere.model import UNet, null_tokens, tokenise
from minilumiere.model.diffusion import add_noise, log_snr_at, stratified_times, velocity

FILE = Path(__file__).with_name("small_world.safetensors")
SIZE, FRAMES = 16, 8
COLOURS, DIGITS = ("red", "green", "cyan", "white"), (0, 1, 3, 7)
GLYPHS = {0: 299, 1: 599, 3: 1119, 7: 2259}  # of the bank: the hand in which each digit is written
FINE = 2 * SIZE  # pixels at which scenes are drawn before they are averaged
CONFIG = UNetConfig(channels=(48, 64), attention=(False, True), embedding=64, text_width=48, text_layers=1)
BATCH, RATE, SHIFT = 32, 2e-3, -1.0  # the shift makes a tenth of the images hidden: there the caption has to do


@cache
def hand() -> Tensor:
    """The ink of each digit, one after the other; 16 units of the canvas tall."""
    return load_bank("train").draw(16 * FINE / CANVAS, torch.tensor(list(GLYPHS.values())))


def draw(captions: list[str], generator: torch.Generator, frames: slice = slice(None)) -> Tensor:
    """A clip of each caption, b 3 t h w in [-1, 1]: where it starts and its pace, ± 10 %, are random."""
    asked = subjects_of([parse_caption(caption) for caption in captions])
    centres = random_paths(asked, generator, FRAMES)[:, :, frames]  # n 2 t 2; of the second objects, which are not there, too
    ink = hand()[torch.tensor([[DIGITS.index(int(digit)) for digit in row] for row in asked.digit])]  # n 2 p p
    return render(ink, centres * FINE / CANVAS, asked, FINE, SIZE).transpose(1, 2) * 2 - 1


def choose(options: list[str], count: int, generator: torch.Generator) -> list[str]:
    return [options[i] for i in torch.randint(len(options), (count,), generator=generator).tolist()]


def drop_some(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """One caption in ten becomes "no caption", for classifier-free guidance."""
    return torch.where(torch.rand(len(tokens), 1, generator=generator) < 0.1, null_tokens(len(tokens)), tokens)


def image_net() -> UNet:
    """The trained image net."""
    net = UNet(CONFIG, SIZE)
    net.load_state_dict({name: tensor.float() for name, tensor in load_file(FILE).items()})
    return net.eval()


def train_image_net(steps: int) -> UNet:
    torch.manual_seed(steps)
    generator = torch.Generator().manual_seed(steps)
    net = image_net().train() if FILE.exists() else UNet(CONFIG, SIZE)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.05)
    things = [f"a {colour} {digit}" for colour in COLOURS for digit in DIGITS]
    for _ in (progress := tqdm(range(steps), mininterval=10)):
        captions = choose(things, BATCH, generator)
        moving = [f"{caption} moving {way}" for caption, way in zip(captions, DIRECTIONS * BATCH, strict=False)]
        frame = int(torch.randint(FRAMES, (1,), generator=generator))
        clean = draw(moving, generator, slice(frame, frame + 1))[:, :, 0]  # n 3 h w
        log_snr = log_snr_at(stratified_times(BATCH, generator), SHIFT)
        noise = torch.randn(clean.shape, generator=generator)
        tokens = drop_some(tokenise(captions), generator)
        loss = (net(add_noise(clean, noise, log_snr), log_snr, tokens) - velocity(clean, noise, log_snr)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    return net.eval()


if __name__ == "__main__":
    save_file(
        {name: tensor.half().contiguous() for name, tensor in train_image_net(int(sys.argv[1])).state_dict().items()}, FILE
    )
