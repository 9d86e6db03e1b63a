"""Monocular 3D human pose by learning where to fuse 2D heatmaps with image features.

The names below are the stable ones. Each is loaded when first used, so importing the package costs next to nothing
and touches no device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fusion_jax.batch import fake_batch
    from fusion_jax.config import Config
    from fusion_jax.errors import UserError
    from fusion_jax.evaluate import evaluate_run
    from fusion_jax.fusion import (
        STRATEGIES,
        LiveLayers,
        alpha_penalty,
        fixed_weights,
        free_weights,
        fusion_weights,
        live_layers,
        mix,
    )
    from fusion_jax.heatmap_steps import heatmap_eval_step, heatmap_predict_step, heatmap_train_step
    from fusion_jax.heatmaps import decode_heatmaps, gaussian_heatmaps
    from fusion_jax.hourglass import Hourglass
    from fusion_jax.losses import fusion_loss, pose_loss
    from fusion_jax.metrics import aligned_distances_mm, auc, mpjpe_mm, pck
    from fusion_jax.mixing import Mixing, declare_mixing, fuse
    from fusion_jax.network import Conv, Dense, FusionNet, Stream
    from fusion_jax.picture_input import read_photo
    from fusion_jax.place import read_camera
    from fusion_jax.pose_record import PersonPose
    from fusion_jax.predict_stream import predict_frames
    from fusion_jax.predictor import Predictor
    from fusion_jax.presets import preset, with_overrides
    from fusion_jax.sharding import data_mesh, jit_eval_step, jit_train_step, pmap_train_step
    from fusion_jax.skeletons import SKELETONS, Skeleton, convert_joints, skeleton
    from fusion_jax.state import TrainState, create_state
    from fusion_jax.steps import eval_step, predict_step, train_step
    from fusion_jax.train import LoopOptions

_HOMES: dict[str, tuple[str, ...]] = {
    "batch": ("fake_batch",),
    "config": ("Config",),
    "errors": ("UserError",),
    "evaluate": ("evaluate_run",),
    "fusion": (
        *(
            "STRATEGIES",
            "LiveLayers",
            "alpha_penalty",
            "fixed_weights",
            "free_weights",
            "fusion_weights",
            "live_layers",
            "mix",
        ),
    ),
    "heatmap_steps": ("heatmap_eval_step", "heatmap_predict_step", "heatmap_train_step"),
    "heatmaps": ("decode_heatmaps", "gaussian_heatmaps"),
    "hourglass": ("Hourglass",),
    "losses": ("fusion_loss", "pose_loss"),
    "metrics": ("aligned_distances_mm", "auc", "mpjpe_mm", "pck"),
    "mixing": ("Mixing", "declare_mixing", "fuse"),
    "network": ("Conv", "Dense", "FusionNet", "Stream"),
    "picture_input": ("read_photo",),
    "place": ("read_camera",),
    "pose_record": ("PersonPose",),
    "predict_stream": ("predict_frames",),
    "predictor": ("Predictor",),
    "presets": ("preset", "with_overrides"),
    "sharding": ("data_mesh", "jit_eval_step", "jit_train_step", "pmap_train_step"),
    "skeletons": ("SKELETONS", "Skeleton", "convert_joints", "skeleton"),
    "state": ("TrainState", "create_state"),
    "steps": ("eval_step", "predict_step", "train_step"),
    "train": ("LoopOptions",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'fusion_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fusion_jax.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
