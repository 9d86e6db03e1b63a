"""The published PyTorch hourglass, as its state_dict's names and shapes and what it computes of them."""

import numpy as np


def shapes(stacks, features=256, joints=16, depth=4):
    """Shape of each array of the state_dict by its name, in the published order."""
    found = {}

    def conv(name, read, made, size):
        found.update({f"{name}.conv.weight": (made, read, size, size), f"{name}.conv.bias": (made,)})

    def norm(name, width):
        found.update({f"{name}.{kind}": (width,) for kind in ("weight", "bias", "running_mean", "running_var")})
        found[f"{name}.num_batches_tracked"] = ()

    def residual(name, read, made):
        norm(f"{name}.bn1", read)
        conv(f"{name}.conv1", read, made // 2, 1)
        norm(f"{name}.bn2", made // 2)
        conv(f"{name}.conv2", made // 2, made // 2, 3)
        norm(f"{name}.bn3", made // 2)
        conv(f"{name}.conv3", made // 2, made, 1)
        conv(f"{name}.skip_layer", read, made, 1)

    def hourglass(name, depth):
        residual(f"{name}.up1", features, features)
        residual(f"{name}.low1", features, features)
        if depth > 1:
            hourglass(f"{name}.low2", depth - 1)
        else:
            residual(f"{name}.low2", features, features)
        residual(f"{name}.low3", features, features)

    conv("pre.0", 3, features // 4, 7)
    norm("pre.0.bn", features // 4)
    residual("pre.1", features // 4, features // 2)
    residual("pre.3", features // 2, features // 2)
    residual("pre.4", features // 2, features)
    for i in range(stacks):
        hourglass(f"hgs.{i}.0", depth)
    for i in range(stacks):
        residual(f"features.{i}.0", features, features)
        conv(f"features.{i}.1", features, features, 1)
        norm(f"features.{i}.1.bn", features)
    for i in range(stacks):
        conv(f"outs.{i}", features, joints, 1)
    for i in range(stacks - 1):
        conv(f"merge_features.{i}.conv", features, features, 1)
    for i in range(stacks - 1):
        conv(f"merge_preds.{i}.conv", joints, features, 1)
    return found


def state_dict(stacks, seed=0, **sizes):
    """Arrays of these names and shapes, as a trained network might have them: no two alike, variances positive."""
    rng = np.random.default_rng(seed)

    def draw(name, shape):
        if name.endswith("num_batches_tracked"):
            return np.array(200_000)
        if len(shape) == 4:
            return rng.normal(0, np.sqrt(1 / np.prod(shape[1:])), shape).astype(np.float32)
        positive = name.endswith("running_var") or (".bn" in name and name.endswith("weight"))
        return (rng.uniform(0.5, 1.5, shape) if positive else rng.normal(0, 0.3, shape)).astype(np.float32)

    return {name: draw(name, shape) for name, shape in shapes(stacks, **sizes).items()}


def heatmaps(torch, state, pictures, stacks, depth=4):
    """What PyTorch computes with a state_dict of tensors: (B, 3, H, W) to a list of (B, K, H/4, W/4), one a stack."""
    functional = torch.nn.functional

    def conv(name, x, stride=1):
        weight = state[f"{name}.conv.weight"]
        return functional.conv2d(x, weight, state[f"{name}.conv.bias"], stride, padding=(weight.shape[-1] - 1) // 2)

    def norm_relu(name, x):
        mean, var, scale, shift = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return functional.relu(functional.batch_norm(x, mean, var, scale, shift, training=False, eps=1e-5))

    def residual(name, x):
        inner = conv(f"{name}.conv1", norm_relu(f"{name}.bn1", x))
        inner = conv(f"{name}.conv2", norm_relu(f"{name}.bn2", inner))
        inner = conv(f"{name}.conv3", norm_relu(f"{name}.bn3", inner))
        return inner + (x if x.shape == inner.shape else conv(f"{name}.skip_layer", x))

    def hourglass(name, x, depth):
        low = residual(f"{name}.low1", functional.max_pool2d(x, 2))
        low = hourglass(f"{name}.low2", low, depth - 1) if depth > 1 else residual(f"{name}.low2", low)
        low = residual(f"{name}.low3", low)
        return residual(f"{name}.up1", x) + functional.interpolate(low, scale_factor=2, mode="nearest")

    x = norm_relu("pre.0.bn", conv("pre.0", pictures, stride=2))
    x = functional.max_pool2d(residual("pre.1", x), 2)
    x = residual("pre.4", residual("pre.3", x))
    found = []
    for i in range(stacks):
        seen = residual(f"features.{i}.0", hourglass(f"hgs.{i}.0", x, depth))
        seen = norm_relu(f"features.{i}.1.bn", conv(f"features.{i}.1", seen))
        found.append(conv(f"outs.{i}", seen))
        if i < stacks - 1:
            x = x + conv(f"merge_preds.{i}.conv", found[-1]) + conv(f"merge_features.{i}.conv", seen)
    return found
