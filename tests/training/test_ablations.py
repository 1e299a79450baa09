"""Small trainings: matched, the same every time, each of them once, however often they are cut off."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from minilumiere.config import UNetConfig, get_scale
from minilumiere.evaluation.claims.trained import SEEDS, read_runs, run_path
from minilumiere.evaluation.claims.variants import ALL_TUNED, FROZEN, HE, NEAREST, NO_HALVINGS
from minilumiere.evaluation.claims.variants import variant as real_variant
from minilumiere.model.unet import UNet
from minilumiere.training import ablations
from minilumiere.training.ablations import Recipe, train_ablations, train_variant, trainings

RECIPE = Recipe(steps=3, batch=2, frames=4, looks=3, held_out=2, judged=2)


@pytest.fixture
def mini(monkeypatch, perturb):
    """Miniature nets in the place of the shipped ones. Returns their scale, and a log of what was built to be trained."""
    sizes = {"channels": (8, 16, 16), "heads": 2, "embedding": 32, "text_width": 16, "text_layers": 1}
    scale, built = replace(get_scale("tiny"), size=16, upscale=2, t2i=UNetConfig(**sizes)), []

    def variant(name: str, scale, seed: int = 0):
        built.append((name, seed))
        torch.manual_seed(0)
        net = real_variant(NEAREST if name in (FROZEN, ALL_TUNED) else name, scale, seed, perturb(UNet(scale.t2i, 16), 0.05))
        net.t2i.requires_grad_(name == ALL_TUNED)
        return net

    monkeypatch.setattr(ablations, "variant", variant)
    monkeypatch.setattr(ablations, "get_scale", lambda name: scale)
    monkeypatch.setattr(ablations, "judge", lambda net, scale, recipe: {"looks": [True], "motion": [False]})
    return scale, built


def test_a_training_is_the_same_every_time_and_another_by_seed(mini):
    scale, _ = mini
    once, again, other = (train_variant(NEAREST, seed, scale, RECIPE) for seed in (0, 0, 1))

    def curve(result: dict) -> list[tuple[int, float]]:
        return [(point["step"], point["loss"]) for point in result["curve"]]

    assert curve(once) == curve(again) and [step for step, _ in curve(once)] == [0, 1, 2, 3]
    assert curve(other)[0] == curve(once)[0] and curve(other)[-1] != curve(once)[-1]
    assert once["flops_a_step"] > 0 and once["trainable"] > 0 and "judged" not in once


def test_fine_tuning_everything_trains_the_image_net_and_is_asked_what_it_makes(mini):
    scale, _ = mini
    frozen, tuned = (train_variant(name, 0, scale, RECIPE) for name in (FROZEN, ALL_TUNED))
    assert tuned["trainable"] > frozen["trainable"] and tuned["flops_a_step"] > frozen["flops_a_step"]
    for result in (frozen, tuned):
        assert [point["step"] for point in result["unseen"]] == [0, 3] and result["judged"] == {
            "looks": [True],
            "motion": [False],
        }


def test_without_halvings_there_are_as_many_operations_in_all(mini):
    scale, _ = mini
    many = replace(RECIPE, steps=100, frames=16)
    own = ablations.recipe_of(NO_HALVINGS, scale, many)
    each = [ablations.flops_a_clip(ablations.variant(name, scale), scale, many) for name in (NEAREST, NO_HALVINGS)]
    assert own.steps < 100 and own.steps * each[1] == pytest.approx(100 * each[0], rel=0.01)
    assert ablations.recipe_of(FROZEN, scale, many).rate == many.fine_rate < ablations.recipe_of(HE, scale, many).rate


def test_killed_half_way_only_what_is_missing_is_trained(mini, tmp_path, monkeypatch):
    _, built = mini
    train_one, count = ablations.train_variant, []

    def killed_at_the_third(*arguments):
        count.append(arguments[:2])
        if len(count) == 3:
            raise KeyboardInterrupt
        return train_one(*arguments)

    monkeypatch.setattr(ablations, "train_variant", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        train_ablations(tmp_path, False, (NEAREST,), RECIPE)
    assert [done for *_, done in trainings(tmp_path, (NEAREST,))] == [True, True, False]
    with pytest.raises(FileNotFoundError):
        read_runs(tmp_path, NEAREST)
    built.clear()
    train_ablations(tmp_path, False, (NEAREST,), RECIPE)
    assert built == [(NEAREST, 2)] and [run["seed"] for run in read_runs(tmp_path, NEAREST)] == list(SEEDS)


def test_a_training_of_another_recipe_or_a_broken_file_is_made_again(mini, tmp_path):
    _, built = mini
    train_ablations(tmp_path, False, (HE,), RECIPE)
    run_path(tmp_path, HE, 1).write_text("{")
    built.clear()
    train_ablations(tmp_path, False, (HE,), RECIPE)
    assert built == [(HE, 1)]
    train_ablations(tmp_path, False, (HE,), replace(RECIPE, rate=1e-4))
    assert built == [(HE, seed) for seed in (1, *SEEDS)]
    assert json.loads(run_path(tmp_path, HE, 0).read_text())["recipe"]["rate"] == 1e-4 != asdict(RECIPE)["rate"]
