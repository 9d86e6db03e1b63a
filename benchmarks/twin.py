"""A PyTorch twin of FusionNet: same layers, same weights, same loss and optimiser, to be compared and timed.

Pictures are (B, C, H, W) in memory as (B, H, W, C), PyTorch's `channels_last`, which is its fastest layout. Dropout is
left out. `check_equal` tells whether it computes what our network does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fusion_jax import cost
from fusion_jax.config import Config
from fusion_jax.inputs import network_inputs
from fusion_jax.losses import fusion_loss
from fusion_jax.network import Conv, Layer, active_streams, fusion_layers
from fusion_jax.state import TrainState, network_variables

Inputs = Mapping[str, torch.Tensor]


class Block(nn.Module):
    """Convolution, max pooling, ReLU; or a dense layer and ReLU. One layer record of network.py."""

    def __init__(self, layer: Layer, shape: tuple[int, ...]):
        """`shape` is of one example's features, channels last."""
        super().__init__()
        self.pool = layer.pool if isinstance(layer, Conv) else 1
        self.pad: list[int] = []
        if not isinstance(layer, Conv):
            self.linear: nn.Module = nn.Linear(math.prod(shape), layer.features)
            return
        window, stride = (layer.kernel, layer.kernel), (layer.stride, layer.stride)
        rows, columns = jax.lax.padtype_to_pads(shape[:2], window, stride, layer.padding)
        even = rows[0] == rows[1] and columns[0] == columns[1]
        if not even:  # what Conv2d cannot do itself
            self.pad = [*columns, *rows]
        padding = (rows[0], columns[0]) if even else 0
        self.linear = nn.Conv2d(shape[-1], layer.features, layer.kernel, layer.stride, padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.linear, nn.Linear):
            return functional.relu(self.linear(flat(x)), inplace=True)
        x = self.linear(functional.pad(x, self.pad) if self.pad else x)
        x = functional.max_pool2d(x, self.pool) if self.pool > 1 else x
        return functional.relu(x, inplace=True)


def flat(x: torch.Tensor) -> torch.Tensor:
    """Features as (B, D) in our order, channels last: a view of a channels_last picture, so that weights fit as is."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1) if x.dim() == 4 else x


class Twin(nn.Module):
    """The network of a config, any strategy, pruned or not. `copy_weights` gives it ours."""

    def __init__(self, config: Config):
        super().__init__()
        network, shapes = config.fusion, cost.example_shapes(config)
        streams = active_streams(network.streams, network.strategy)
        self.names, self.merged = [stream.name for stream in streams], fusion_layers(streams)
        self.live, self.strategy = cost.live_of(network), network.strategy
        depth, data = len(self.merged), [shapes[name] for name in self.names]
        blocks: dict[str, nn.Module] = {}
        fused = _side_by_side(data)
        for l, layer in enumerate(self.merged, start=1):
            if l <= self.live.last_data:
                for stream, shape in zip(streams, data, strict=True):
                    blocks[f"{stream.name}_{l}"] = Block(stream.layers[l - 1], shape)
            if l >= self.live.first_fusion:
                blocks[f"fusion_{l}"] = Block(layer, fused)
            data = [cost.layer_shape(stream.layers[l - 1], shape) for stream, shape in zip(streams, data, strict=True)]
            fused = cost.layer_shape(layer, fused)
        self.blocks = nn.ModuleDict(blocks)
        joints = cost.make_network(network, config.inputs).num_joints
        self.output = nn.Linear(math.prod(fused), 3 * joints)
        self.register_buffer("pose_mean_mm", torch.zeros(joints, 3))
        self.register_buffer("pose_std_mm", torch.ones(joints, 3))
        if self.strategy == "learned":
            self.alpha = nn.Parameter(torch.tensor(network.alpha_init))
            self.beta = nn.Parameter(torch.tensor((depth + 1) / 2 if network.beta is None else network.beta))
        elif self.strategy == "free":
            self.mix_logits = nn.Parameter(torch.zeros(depth))
        self.register_buffer("layer_numbers", torch.arange(1, depth + 1, dtype=torch.float32), persistent=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, inputs: Inputs) -> torch.Tensor:
        """Pose (B, J, 3) mm."""
        data, depth, live = [inputs[name] for name in self.names], len(self.merged), self.live
        weights, mixed = self.mixing_weights(), torch.cat(data, dim=1)
        for l in range(1, depth + 1):
            if l <= live.last_data:
                data = [self.blocks[f"{name}_{l}"](x) for name, x in zip(self.names, data, strict=True)]
                offered = torch.cat(data, dim=1) if len(data) > 1 else data[0]
            if l >= live.first_fusion:
                fused = self.blocks[f"fusion_{l}"](mixed)
            if l < live.first_fusion - 1:
                continue
            if l < live.first_fusion:
                mixed = offered
            elif l > live.last_data:
                mixed = fused
            else:
                mixed = torch.lerp(offered, fused, weights[l - 1].to(fused.dtype))  # (1 - w) * offered + w * fused
        raw = self.output(flat(mixed)).float()
        return raw.view(-1, *self.pose_std_mm.shape) * self.pose_std_mm + self.pose_mean_mm

    def mixing_weights(self) -> torch.Tensor | None:
        """(L,) where the strategy trains them; the others' networks mix nowhere."""
        if self.strategy == "learned":
            return torch.sigmoid(self.alpha * (self.layer_numbers - self.beta))
        return torch.sigmoid(self.mix_logits) if self.strategy == "free" else None

    def loss(self, inputs: Inputs, pose_mm: torch.Tensor, valid: torch.Tensor, penalty_weight: float) -> torch.Tensor:
        """The whole objective, as losses.fusion_loss."""
        error = torch.where(valid[..., None], self(inputs) - pose_mm, 0.0)
        data = error.square().sum((1, 2)).mean()
        if self.strategy != "learned":
            return data
        above = self.alpha.clamp(min=0.01)
        tangent = 1 / 0.01**2 - 2 / 0.01**3 * (self.alpha - 0.01)
        return data + penalty_weight * torch.where(self.alpha > 0.01, above**-2, tangent)


class Trainer:
    """The twin's training step: loss, gradients, clipping of each group by itself, Adam with our rates."""

    def __init__(self, twin: Twin, config: Config, compiled: bool = False):
        """Rates stay at the config's peak: a schedule would change a number, not the work."""
        self._loss = torch.compile(twin.loss) if compiled else twin.loss
        self._penalty_weight, self._clip = config.optim.alpha_penalty_weight, config.optim.clip_norm
        self._autocast = config.fusion.compute_dtype == "bfloat16"
        own = {name: parameter for name, parameter in twin.named_parameters()}
        mixing = [own[name] for name in ("alpha", "beta", "mix_logits") if name in own]
        weights = [parameter for parameter in own.values() if not any(parameter is other for other in mixing)]
        rates = (config.optim.learning_rate, config.optim.fusion_learning_rate)
        groups = [{"params": p, "lr": r} for p, r in zip((weights, mixing), rates, strict=True) if p]
        self._adam = torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)

    def step(self, inputs: Inputs, pose_mm: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """The loss before the step."""
        self._adam.zero_grad(set_to_none=True)
        with torch.autocast(pose_mm.device.type, torch.bfloat16, enabled=self._autocast):
            loss = self._loss(inputs, pose_mm, valid, self._penalty_weight)
        loss.backward()
        if self._clip:
            for group in self._adam.param_groups:
                nn.utils.clip_grad_norm_(group["params"], self._clip)
        self._adam.step()
        return loss.detach()


def copy_weights(twin: Twin, state: TrainState) -> None:
    """Our parameters and constants into the twin: kernels (k, k, C, D) as (D, C, k, k), dense ones (C, D) as (D, C)."""
    ours = network_variables(state)
    theirs = in_our_layout(twin, lambda tensor: tensor)
    with torch.no_grad():
        for (path, value), place in zip(
            jax.tree_util.tree_leaves_with_path(ours["params"]), jax.tree.leaves(theirs), strict=True
        ):
            value = np.array(value, np.float32)
            assert value.shape == tuple(place.shape), jax.tree_util.keystr(path)
            place.copy_(torch.from_numpy(value))
        for name, value in ours["constants"].items():
            getattr(twin, name).copy_(torch.from_numpy(np.array(value)))


def in_our_layout(twin: Twin, read: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    """The parameters, or what `read` finds at each (such as its gradient), as views in the tree of our parameters."""

    def layer(module: nn.Module) -> dict[str, torch.Tensor]:
        weight = read(module.weight)
        kernel = weight.permute(2, 3, 1, 0) if weight.dim() == 4 else weight.T
        return {"kernel": kernel, "bias": read(module.bias)}

    tree: dict[str, Any] = {}
    for name, block in twin.blocks.items():
        own = layer(block.linear)
        tree[name] = own if isinstance(block.linear, nn.Conv2d) else {"dense": own}
    tree[f"fusion_{len(twin.merged) + 1}"] = layer(twin.output)
    return tree | {name: read(getattr(twin, name)) for name in ("alpha", "beta", "mix_logits") if hasattr(twin, name)}


def twin_inputs(state: TrainState, batch: Mapping[str, Any], device: str = "cpu") -> tuple[dict, torch.Tensor, Any]:
    """A batch as the twin reads it, all on its device: inputs in channels_last, `pose_mm`, `valid`."""
    made = network_inputs(batch, state.inputs)
    inputs = {name: torch.from_numpy(np.array(value)).to(device).permute(0, 3, 1, 2) for name, value in made.items()}
    pose, valid = (torch.from_numpy(np.array(batch[name])).to(device) for name in ("pose_mm", "valid"))
    return inputs, pose, valid


def check_equal(
    twin: Twin, state: TrainState, batches: Sequence[Mapping[str, Any]], tolerance: float = 1e-4
) -> dict[str, float]:
    """Compares the twin with our network of the same weights: poses, and the loss's gradient by every parameter.

    In float32 proper, without TF32 or autocast. lambda is 1: with the training's the penalty's share of alpha's
    gradient would hide that of the data.

    Args:
      twin: with our weights, see `copy_weights`; its gradients are gone afterwards.
      state: a state whose network computes in float32.
      batches: small. A few, and each number counts where it agrees best: a value within rounding of ReLU's 0, or of its
        neighbour in the pooling, sends a gradient another way, which a second batch does not repeat and a fault does.
      tolerance: of norm(difference) / norm(ours).

    Returns:
      The differences, by name.

    Raises:
      ValueError: naming what differs most, and by how much.
    """

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def ours(params, batch):
        pred = state.network.apply(network_variables(state, params), network_inputs(batch, state.inputs))
        return fusion_loss(pred, batch["pose_mm"], batch["valid"], params.get("alpha"), 1.0)[0], pred

    differences: dict[str, float] = {}
    for batch in batches:
        with jax.default_matmul_precision("highest"):
            (_, pose), grads = ours(state.params, batch)
        inputs, *labels = twin_inputs(state, batch, twin.output.weight.device.type)
        twin.zero_grad(set_to_none=True)
        twin.loss(inputs, *labels, 1.0).backward()
        with torch.no_grad():
            found = {"pose_mm": twin(inputs), **in_our_layout(twin, lambda tensor: tensor.grad)}
        twin.zero_grad(set_to_none=True)
        leaves = jax.tree_util.tree_leaves_with_path({"pose_mm": pose, **grads})
        for (path, wanted), got in zip(leaves, jax.tree.leaves(found), strict=True):
            wanted, got = np.asarray(wanted, np.float64), got.cpu().double().numpy()
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            apart = np.linalg.norm(got - wanted) / max(np.linalg.norm(wanted), 1e-30)
            differences[name] = min(differences.get(name, np.inf), float(np.nan_to_num(apart, nan=np.inf)))
    worst = max(differences, key=lambda name: differences[name])
    if differences[worst] > tolerance:
        raise ValueError(
            f"the twin is not our network: {worst} differs by {differences[worst]:.2g} of its norm, more than "
            f"{tolerance:g}; nothing is timed"
        )
    return differences


def compiler_fault(twin: Twin, inputs: Inputs) -> str | None:
    """Why torch.compile does not work here, in one line; None where it does."""
    try:
        with torch.inference_mode():
            torch.compile(twin)(inputs)
    except Exception as error:  # of many types: no C++ compiler, no Python headers, no Triton
        return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
    return None


def _side_by_side(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))
