"""Two captions on one noisy clip: how far apart features are, and from which layer on."""

import pytest
import torch
from matplotlib.image import BboxImage

import minilumiere as ml
from minilumiere.viz.compare import OPPOSITE, distance, opposite, parting, plot_parting, render_pair
from minilumiere.viz.layers import record

ONE, OTHER = "a red 3 moving right", "a red 3 moving left"


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return ml.sample_batch(1, captions=[ONE], seed=0).video[0]


def test_distance_is_zero_of_the_same_and_root_two_of_unrelated_maps():
    torch.manual_seed(0)
    one, other = torch.randn(2, 16, 8, 16, 16)
    assert distance(one, one) == 0 and distance(one, other) == distance(other, one)
    assert abs(distance(one, other) - 2**0.5) < 0.02
    shift = 5 * torch.randn(16, 1, 1, 1)
    assert abs(distance(one + shift, other + shift) - distance(one, other)) < 1e-4  # what all places share does not count
    assert abs(distance(3 * one, 3 * other) - distance(one, other)) < 1e-4
    assert distance(torch.ones(2, 1, 1, 1), torch.ones(2, 1, 1, 1)) == 0  # nothing varies: not NaN


def test_the_stem_has_heard_no_words_and_the_same_caption_parts_nowhere(stunet, video):
    table = parting(stunet, video, (ONE, OTHER), (0.0, -8.0))
    for values in table.values():
        assert values["stem"] == 0 and min(value for name, value in values.items() if name != "stem") > 0
    assert set(parting(stunet, video, (ONE, ONE), (0.0,))[0.0].values()) == {0.0}
    axis = plot_parting(table, "title").axes[0]
    assert [line.get_ydata().tolist() for line in axis.lines] == [list(values.values()) for values in table.values()]
    assert [label.get_text() for label in axis.get_xticklabels()] == list(table[0.0])


def test_a_pair_is_drawn_on_one_scale_with_its_difference(stunet, video, pictures):
    one, other = (record(stunet, video, caption, 2.0) for caption in (ONE, OTHER))
    figure = render_pair(one, other, (ONE, OTHER), "up.1.space-time", frame=3, channel=5, row=2)
    a, b = one.features["up.1.space-time"][0], other.features["up.1.space-time"][0]
    shown = pictures(figure)
    expected = (a[5], b[5], (a - b)[5], (a - b).square().mean(0).sqrt())
    for number, clip in enumerate(expected):
        assert torch.equal(shown[2 * number], clip[3]) and torch.equal(shown[2 * number + 1], clip[:, 2])
    one_s, _, other_s, _, difference_s, *_ = (image.get_clim() for image in figure.findobj(BboxImage))
    assert one_s == other_s and difference_s[0] == -difference_s[1]
    assert f"{distance(a, b):.2f} apart" in figure.get_suptitle()
    with pytest.raises(ValueError, match="unknown layer"):
        render_pair(one, other, (ONE, OTHER), "down.9")
    with pytest.raises(ValueError, match="channel must be from 0 to 15"):
        render_pair(one, other, (ONE, OTHER), "up.1.space-time", channel=16)


def test_opposites_are_opposite():
    assert all(OPPOSITE[OPPOSITE[motion]] == motion != OPPOSITE[motion] for motion in OPPOSITE) and len(OPPOSITE) == 6
    assert OPPOSITE["moving up"] == "moving down" and OPPOSITE["circling clockwise"] == "circling anticlockwise"
    assert opposite("a red 3 moving left quickly and a blue 7") == "a red 3 moving right quickly and a blue 7 moving right"
    with pytest.raises(ValueError, match="pink"):
        opposite("a pink 3")
