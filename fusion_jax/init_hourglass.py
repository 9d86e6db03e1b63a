"""A 2D network's weights in another 2D network: what fits is copied, heatmaps are matched by joint name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from fusion_jax.config import Config
from fusion_jax.errors import UserError
from fusion_jax.skeletons import skeleton

Flat = dict[tuple[str, ...], np.ndarray]


def transfer_hourglass(
    old: Mapping, old_constants: Mapping, old_config: Config, new: Mapping, new_constants: Mapping, config: Config
) -> tuple[Any, Any, list[str]]:
    """(parameters, constants, words on them): a new 2D network with all that an old one can give.

    What has the same name and shape is copied, batch statistics too. Where the joints differ, the layers that write and
    read heatmaps take over the joints of the same name. Only a kernel's weights make a layer count as taken over.

    Args:
      old, new: parameter trees.
      old_constants, new_constants: with `batch_stats`.
      old_config, config: of the two runs.

    Raises:
      UserError: not one layer fits.
    """
    known = {name: n for n, name in enumerate(skeleton(old_config.inputs.heatmap_skeleton).joints)}
    joints = [known.get(name) for name in skeleton(config.inputs.heatmap_skeleton).joints]
    same_layout = joints == list(range(len(known)))
    results: list[Any] = []
    copied: list[str] = []
    fresh: list[str] = []
    for source, target in ((_flat(old), _flat(new)), (_flat(old_constants), _flat(new_constants))):
        result = dict(target)
        for path, value in target.items():
            found, layer = source.get(path), path[0] if path[0] != "batch_stats" else path[1]
            if found is not None and not same_layout:
                axis = -1 if layer.startswith("out_") else -2 if layer.startswith("merge_preds_") else None
                if axis is not None and not (axis == -2 and path[-1] == "bias"):
                    found = _with_joints(found, value, joints, axis)
            if found is not None and found.shape == value.shape:
                result[path] = found
                copied += [layer] if path[-1] == "kernel" else []
            else:
                fresh.append(layer)
        results.append(unflatten_dict(result))
    if not copied:
        raise UserError(f"init_from: no layer of {old_config.preset} fits {config.preset}; they differ in width")
    lines = [f"took over {', '.join(dict.fromkeys(copied))}"]
    lines += [f"left new: {', '.join(dict.fromkeys(fresh))}"] if fresh else []
    missing = [name for name in skeleton(config.inputs.heatmap_skeleton).joints if name not in known]
    lines += [f"new joints: {', '.join(missing)}"] if missing else []
    return results[0], results[1], lines


def _with_joints(old: np.ndarray, new: np.ndarray, joints: list[int | None], axis: int) -> np.ndarray | None:
    """`new` with the old array's entries along `axis` for the joints that it has; None where not one fits."""
    rows, result = np.moveaxis(old, axis, 0), np.moveaxis(new, axis, 0).copy()
    known = [(place, joint) for place, joint in enumerate(joints) if joint is not None]
    if not known or rows.shape[1:] != result.shape[1:]:
        return None
    for place, joint in known:
        result[place] = rows[joint]
    return np.moveaxis(result, 0, axis)


def _flat(tree: Mapping) -> Flat:
    return {path: np.asarray(value) for path, value in flatten_dict(dict(tree)).items()}
