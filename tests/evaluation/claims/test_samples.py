"""Measures that claims are judged by do what their names say, on clips whose answer is known."""

import pytest
import torch

from minilumiere.config import STYLES
from minilumiere.evaluation.claims import samples
from minilumiere.evaluation.claims.ledger import KEYS
from minilumiere.evaluation.claims.verdicts import FAILS, HOLDS, OPEN, VERDICTS
from minilumiere.evaluation.style_scores import ALPHAS
from minilumiere.model.stunet import STUNet
from minilumiere.model.unet import UNet

WINDOWS = [slice(0, 4), slice(4, 8)]


def test_a_jump_that_the_truth_has_is_no_seam():
    truth = torch.zeros(8, 3, 4, 4) + 0.01 * torch.arange(8)[:, None, None, None]
    truth[4:] += 0.05
    assert samples.seam(samples.ratio_to_truth(truth, truth), WINDOWS) == pytest.approx(1, abs=1e-4)
    clip = truth.clone()
    clip[4:] += 0.06
    assert samples.seam(samples.ratio_to_truth(clip, truth), WINDOWS) == pytest.approx(2, abs=1e-3)


def test_where_every_frame_is_a_join_nothing_is_elsewhere():
    assert samples.seam(torch.ones(3), [slice(0, 2), slice(1, 3), slice(2, 4)]) is None


def test_seams_are_measured_on_miniature_nets(tmp_path, mini, perturb):
    net = STUNet.from_t2i(perturb(UNet(mini.ssr, mini.output_size), 0.05), halvings=0, whole=False, verbose=False)
    row = samples.measure_seams(tmp_path, clips=2, scale=mini, net=net)
    assert {*KEYS} <= {*row} and row["verdict"] in VERDICTS
    assert {key: len(values) for key, values in row["values"]["seams"].items()} == {"0": 2, "2": 2, "4": 2, "8": 0}
    assert row["values"]["seconds_a_clip"]["8"] > row["values"]["seconds_a_clip"]["0"], "ten windows, not two"


def styled(motion_at_1: int, score_at_1: float) -> list[dict]:
    """What is measured of 20 clips a style: all is right at α = 0."""
    return [
        {
            "style": style,
            "alpha": alpha,
            "score": [alpha * score_at_1 + 0.01 * (i % 3) for i in range(20)],
            "motion": [i >= (20 - motion_at_1) * (alpha == 1) for i in range(20)],
        }
        for style in STYLES
        for alpha in ALPHAS
    ]


@pytest.mark.parametrize(
    ("motion", "score", "verdict"), [(10, 1.0, HOLDS), (20, 1.0, OPEN), (10, -1.0, FAILS), (10, 0.0, OPEN)]
)
def test_a_trade_takes_both_sides(motion, score, verdict):
    row = samples.told_of_styles(styled(motion, score))
    assert row["verdict"] == verdict and row["n"] == 60
    assert len(row["values"]["curves"]) == len(STYLES) * len(ALPHAS)
    last = row["values"]["curves"][-1]
    assert last["motion"][0] == motion / 20 and last["n"] == 20


def tasks(first: float = 0.0, alone: float = 0.05, motion: float = 0.9) -> dict[str, float]:
    return {
        "image-to-video: largest difference on the first frame": first,
        "image-to-video: the same of the base net alone (RMS)": alone,
        "image-to-video: motion as captioned": motion,
        "cinemagraph: largest change over time outside the region": 0.0,
        "cinemagraph: motion as captioned inside": motion,
    }


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [({}, HOLDS), ({"first": 0.01}, FAILS), ({"alone": 0.3}, FAILS), ({"motion": 0.15}, OPEN), ({"motion": 0.0}, FAILS)],
)
def test_conditioning_keeps_and_follows(changes, verdict):
    row = samples.told_of_tasks(tasks(**changes), unrelated=0.3, cases=64)
    assert row["verdict"] == verdict and "by chance 14 %" in row["spread"]


def test_the_start_is_compared_clip_by_clip(tmp_path, mini, perturb):
    row = samples.measure_start(tmp_path, clips=4, scale=mini, image_net=perturb(UNet(mini.t2i, mini.size), 0.05))
    assert {*KEYS} <= {*row} and row["verdict"] in VERDICTS and len(row["values"]["he"]) == 3
