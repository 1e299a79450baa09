"""Captions to token features: a closed word-level vocabulary and a small transformer encoder.

    "a red 3 moving right" ──► [a, red, 3, moving, right, PAD ...] ──► features (b n d), mask (b n), summary (b d)

The features are reached by cross-attention (which colour belongs to which digit), the summary joins the noise level in
scaling and shifting every block. The encoder trains with the text-to-image model and is frozen afterwards, as
all of Lumiere's text-to-image model is. Our choice: a pretrained T5, say, would be larger than everything else here together.
"""

from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minilumiere.dataset.captions import COLOURS, MOTIONS, SPEEDS, WORDS, format_caption, parse_caption
from minilumiere.dataset.subjects import Subjects

PAD, NULL = 0, 1  # NULL stands alone for "no caption": its embedding is learned, for classifier-free guidance
VOCABULARY = {word: number for number, word in enumerate(WORDS, start=2)}
MAX_TOKENS = 14  # "a C D circling clockwise quickly and a C D circling anticlockwise quickly" has 13


def tokenise(captions: list[str]) -> Int[Tensor, "b n"]:
    """Word numbers, padded to `MAX_TOKENS`. Raises `TypeError` for one string, and what `parse_caption` raises."""
    if isinstance(captions, str):
        raise TypeError(f"give a list of captions, not {captions!r}")
    tokens = torch.full((len(captions), MAX_TOKENS), PAD)
    for row, caption in enumerate(captions):
        words = format_caption(parse_caption(caption)).split()
        tokens[row, : len(words)] = torch.tensor([VOCABULARY[word] for word in words])
    return tokens


def tokens_of(subjects: Subjects) -> Int[Tensor, "n words"]:
    """The tokens of the captions of `subjects`, without spelling them out: what `tokenise` makes of `subjects.words()`."""
    device = subjects.colour.device
    article, joint, colours, digits, motions, speeds = _tables(str(device))
    words = torch.cat(
        [
            article.expand(len(subjects), 2, 1),
            colours[subjects.colour][..., None],
            digits[subjects.digit][..., None],
            motions[subjects.motion],  # two words, or two paddings where it is left open (the last row)
            speeds[subjects.speed][..., None],
        ],
        dim=-1,
    )  # n 2 6
    two = subjects.two.to(device)[:, None]
    row = torch.cat([words[:, 0], torch.where(two, joint, PAD), torch.where(two, words[:, 1], PAD)], dim=1)  # n 13
    row = row.gather(1, (row == PAD).int().argsort(dim=1, stable=True))  # paddings go to the end
    return torch.nn.functional.pad(row, (0, MAX_TOKENS - row.shape[1]), value=PAD)


@cache
def _tables(device: str) -> tuple[Tensor, ...]:
    """Word numbers: of "a", of "and", of every colour, digit, motion (two words; the last row is of none) and speed."""
    motions = [[VOCABULARY[word] for word in motion.split()] for motion in MOTIONS] + [[PAD, PAD]]
    speeds = [VOCABULARY[speed] if speed else PAD for speed in SPEEDS]
    colours, digits = [VOCABULARY[colour] for colour in COLOURS], [VOCABULARY[str(digit)] for digit in range(10)]
    rows = ([VOCABULARY["a"]], [VOCABULARY["and"]], colours, digits, motions, speeds)
    return tuple(torch.tensor(row, device=device) for row in rows)


def null_tokens(batch: int) -> Int[Tensor, "b n"]:
    """The tokens of "no caption"."""
    tokens = torch.full((batch, MAX_TOKENS), PAD)
    tokens[:, 0] = NULL
    return tokens


class TextEncoder(nn.Module):
    """Word and position embeddings, then pre-norm transformer layers."""

    def __init__(self, width: int, layers: int, heads: int = 4):
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY) + 2, width)
        self.positions = nn.Parameter(torch.randn(MAX_TOKENS, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        nn.init.normal_(self.words.weight, std=0.3)

    def forward(self, tokens: Int[Tensor, "b n"]) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"], Float[Tensor, "b d"]]:
        """Features of each word, which of them are words (not padding), and their mean."""
        real = tokens != PAD  # b n
        features = self.layers(self.words(tokens) + self.positions, src_key_padding_mask=~real)  # b n d
        weight = real[..., None] / real.sum(1)[:, None, None]  # b n 1
        return features, real, (features * weight).sum(1)
