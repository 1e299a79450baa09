"""MultiDiffusion in time: run a net on overlapping windows of a long video as if it saw the whole.

    frames   0 1 2 3 4 5 6 7 8 9 …            J' = argmin Σᵢ ‖ J'|ᵢ − Φ(Jᵢ) ‖²
    window 0 [─────────────]                  whose solution is, for each frame,
    window 1             [─────────────]      the mean of Φ(Jᵢ) over the windows i that hold it

Lumiere, section 3.2; Bar-Tal et al. 2023 in space. Averaging v, ε, x̂ or the next z is the same as long as the sampling
step is affine in them (DDIM with η = 0). Clipping x̂ is not affine: average first, clip after. Built in notebook 07.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def temporal_windows(num_frames: int, window: int, overlap: int) -> list[slice]:
    """Windows of `window` frames, neighbours sharing `overlap`, that cover every frame; the last is clamped to the end.

    A video no longer than a window is one window. Raises `ValueError` unless 0 <= overlap < window and num_frames >= 1.
    """
    if num_frames < 1 or not 0 <= overlap < window:
        raise ValueError(f"need num_frames >= 1 and 0 <= overlap < window, got {num_frames=}, {window=}, {overlap=}")
    if num_frames <= window:
        return [slice(0, num_frames)]
    starts = [*range(0, num_frames - window, window - overlap), num_frames - window]
    return [slice(start, start + window) for start in starts]


def multidiffusion(
    denoise: Callable[[Float[Tensor, "n b c s h w"], list[slice]], Float[Tensor, "n b c s h w"]],
    video: Float[Tensor, "b c t h w"],
    windows: list[slice],
    windows_per_call: int | None = None,
) -> Float[Tensor, "b c t h w"]:
    """Apply `denoise` to every window and average where windows overlap.

    `denoise(segments, windows)` gets n segments of equal length s, stacked, and their slices, from which it cuts what
    else it needs out of global tensors; it returns the same shape. All windows go in one call (they are independent
    within a step), or `windows_per_call` at a time where memory is short.

    Raises `ValueError` where the windows leave a frame uncovered or are not of one length, or another shape comes back.
    """
    lengths = {window.stop - window.start for window in windows}
    count = video.new_zeros(video.shape[2])
    for window in windows:
        count[window] += 1
    if len(lengths) != 1 or (count == 0).any() or max(window.stop for window in windows) > len(count):
        raise ValueError(f"the windows must be of one length and cover exactly the {len(count)} frames, got {windows}")
    per_call = len(windows) if windows_per_call is None else windows_per_call
    if per_call < 1:
        raise ValueError(f"windows_per_call must be at least 1, got {windows_per_call}")
    value = torch.zeros_like(video)
    for first in range(0, len(windows), per_call):
        some = windows[first : first + per_call]
        segments = torch.stack([video[:, :, window] for window in some])  # n b c s h w
        results = denoise(segments, some)
        if results.shape != segments.shape:
            raise ValueError(f"of segments {tuple(segments.shape)}, denoise made {tuple(results.shape)}")
        for window, result in zip(some, results, strict=True):
            value[:, :, window] += result
    return value / count[:, None, None]
