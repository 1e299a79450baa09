"""What a run must remember to go on bit for bit: weights, their average, AdamW's moments, the step, and what run it is.

identity: stage, scale, config, batch, seed, and the weights that it is built on and goes on from. All must agree on resuming.
steps     may grow: a longer run goes on from where it is, on the learning rate of the longer one.
"""

from pathlib import Path

import torch
from torch import nn

from minilumiere.weights.checkpoint import Tensors, load_weights, matching, read_checkpoint, write_checkpoint

ANOTHER = "or begin anew in another folder (--folder)"
ADVICE = {  # of what does not agree: what to do
    "batch": "give that batch to go on, " + ANOTHER,
    "seed": "give that seed to go on, " + ANOTHER,
    "from": "begin anew in another folder (--folder): the weights that it went on from are not those that would be taken now",
    "built_on": "begin anew in another folder (--folder): the image net that it is built on has changed",
    "teacher": "begin anew in another folder (--folder): the net that it learns from has changed",
}


def save(path: Path, metadata: dict, model: nn.Module, ema: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """The whole training state: model, EMA and Adam's moments of every trainable parameter, and the step."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    tensors = {}
    for prefix, module in (("model.", model), ("ema.", ema)):
        parameters = dict(module.named_parameters())
        tensors |= {prefix + name: parameters[name] for name in names}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"{key}.{names[index]}": value for key, value in moments.items() if key != "step"}
    write_checkpoint(path, tensors, metadata)


def read_state(path: Path, identity: dict) -> tuple[Tensors, dict]:
    """What `save` wrote. Raises `ValueError` with what to do where the run is another one."""
    tensors, metadata = read_checkpoint(path)
    for key, wanted in identity.items():
        if metadata.get(key) != wanted:
            what = f"{path} is of another {key}: it has {metadata.get(key)!r}, wanted {wanted!r}"
            raise ValueError(f"{what}; {ADVICE.get(key, 'begin anew in another folder (--folder)')}")
    return tensors, metadata


def check_steps(path: Path, metadata: dict, steps: int) -> str:
    """What there is to say where a run of `metadata` is asked for `steps`. Raises `ValueError` for fewer than it began with."""
    if steps < metadata["steps"]:
        what = f"{path} is of another number of steps: it has {metadata['steps']}, wanted {steps}"
        raise ValueError(f"{what}; give {metadata['steps']} steps or more to go on, {ANOTHER}")
    if steps == metadata["steps"]:
        return ""
    now = f"from step {metadata['step']} on the learning rate is that of a run of {steps}, and so jumps up"
    return f"{path.parent}: extended from {metadata['steps']} steps to {steps}; {now}"


def restore(
    tensors: Tensors, metadata: dict, model: nn.Module, ema: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[int, float]:
    """Put what `read_state` read into a run. Returns the step to go on from, and the minutes trained so far."""
    step = metadata["step"]
    load_weights(model, tensors, "model.")
    load_weights(ema, tensors, "ema.")
    if step == 0:  # AdamW has no moments yet
        return step, metadata["minutes"]
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    moments = {key: matching(tensors, f"{key}.", trainable) for key in ("exp_avg", "exp_avg_sq")}
    state = {}
    for index, (name, parameter) in enumerate(trainable.items()):
        # In the parameter's memory layout (channels_last, say): fused AdamW pairs the elements by address.
        copies = {key: torch.empty_like(parameter).copy_(moment[name]).detach() for key, moment in moments.items()}
        state[index] = copies | {"step": torch.tensor(float(step))}
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return step, metadata["minutes"]
