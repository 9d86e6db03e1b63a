"""The TFDS builder of `mpii`."""

from __future__ import annotations

import pathlib

import tensorflow_datasets as tfds

from data_pipelines.mpii.settings import MpiiSettings
from data_pipelines.mpii.source import MpiiSource
from data_pipelines.pose_builder import PoseBuilder, PoseConfig


class Mpii(PoseBuilder):
    """MPII Human Pose: people in pictures of everyday activities with 16 joints in 2D (Andriluka et al., CVPR 2014)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [PoseConfig.of(MpiiSettings())]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put mpii_human_pose_v1.tar.gz and mpii_human_pose_v1_u12_2.zip here; see README.md."
    pkg_dir_path = pathlib.Path(__file__).parent
    source_class = MpiiSource
