"""What a network's weights are: the layouts, units, sizes and conventions without which their numbers mean nothing.

A card is stored within every checkpoint, so it travels with the weights wherever they are copied.
"""

from __future__ import annotations

from typing import Any

from fusion_jax.config import Config
from fusion_jax.errors import UserError
from fusion_jax.records import differences
from fusion_jax.skeletons import skeleton

Card = dict[str, Any]

_CROP = "square, the person in the middle, all of the body with a margin of 5 to 15 % of its longer side"
_PICTURE = "RGB, values in [0, 1], no mean taken off; (0, 0) is the centre of the top left pixel"
_WORDS = ("crop", "picture", "values", "frame")  # fields for readers, which a later version may word otherwise


def card(config: Config) -> Card:
    """What the weights of a run of `config` read and write, as JSON data: names and numbers, and words for readers.

    Of a fusion network also which heatmaps it was trained with: `source` and, of predicted ones, the `weights` that
    predict them.
    """
    inputs = config.inputs
    heatmaps = {
        "skeleton": inputs.heatmap_skeleton,
        "joints": list(skeleton(inputs.heatmap_skeleton).joints),
        "size_px": inputs.heatmap_size,
        "sigma_px": inputs.heatmap_sigma_px,
        "values": "Gaussian with peak 1 at the joint, 0 where there is none",
    }
    common = {"task": config.task, "input_px": inputs.image_size, "crop": _CROP, "picture": _PICTURE}
    if config.task == "heatmaps":
        return common | {"output": "heatmaps", "heatmaps": heatmaps}
    heatmaps["source"] = config.heatmaps.source
    if config.heatmaps.net is not None:
        heatmaps["weights"] = config.heatmaps.net.weights
    layout = skeleton(inputs.skeleton)
    pose = {
        "skeleton": layout.name,
        "joints": list(layout.joints),
        "root": list(layout.root),
        "unit": "mm",
        "frame": "camera: x right, y down, z away from the camera; relative to the root",
    }
    return common | {"output": "pose", "pose": pose, "heatmaps": heatmaps}


def check_card(found: Any, config: Config, where: str) -> None:
    """Compares the card in a checkpoint with what the run's config and this version of the program make of it.

    Names and numbers are compared, sentences are not.

    Raises:
      UserError: they differ, naming every field with both values.
    """
    known = isinstance(found, dict)
    lines = differences(_wordless(found), _wordless(card(config))) if known else ["card: missing"]
    if lines:
        raise UserError(
            f"{where} holds weights of another kind than its config says: {'; '.join(lines)} (checkpoint -> config); "
            "use the config.json that was written with these weights"
        )


def _wordless(found: Card) -> Card:
    return {k: _wordless(v) if isinstance(v, dict) else v for k, v in found.items() if k not in _WORDS}


def check_heatmaps_fit(pose: Config, heatmaps: Config, where: str) -> None:
    """Whether a 2D network predicts the heatmaps that a fusion network was made to read.

    Joints are matched by name and order, and the blobs have to cover the same share of the picture.

    Raises:
      UserError: naming what differs with both values.
    """
    ours, theirs = pose.inputs, heatmaps.inputs
    lines, advice = [], []
    if ours.heatmap_skeleton != theirs.heatmap_skeleton:
        lines.append(f"joints: {ours.heatmap_skeleton} -> {theirs.heatmap_skeleton}")
        advice.append(f"the joints of {ours.heatmap_skeleton}")
    shares = [100 * i.heatmap_sigma_px / i.heatmap_size for i in (ours, theirs)]
    if abs(shares[0] - shares[1]) > 0.01 * shares[0]:
        lines.append(
            f"sigma: {ours.heatmap_sigma_px:g} of {ours.heatmap_size} px ({shares[0]:.2f} % of the picture) -> "
            f"{theirs.heatmap_sigma_px:g} of {theirs.heatmap_size} px ({shares[1]:.2f} %)"
        )
        advice.append(f"--heatmap-sigma {shares[0] / 100 * theirs.heatmap_size:g}")
    if lines:
        raise UserError(
            f"the 2D network of {where} predicts other heatmaps than the fusion network reads: {'; '.join(lines)} "
            f"(fusion network -> 2D network); take a 2D network trained with {' and '.join(advice)}, or train the "
            f"fusion network on this one's heatmaps: --heatmaps predicted --heatmap-workdir {where}"
        )
