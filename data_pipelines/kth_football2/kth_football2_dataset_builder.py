"""The TFDS builder of `kth_football2`."""

from __future__ import annotations

import pathlib

import tensorflow_datasets as tfds

from data_pipelines.kth_football2.settings import KthFootball2Settings
from data_pipelines.kth_football2.source import KthFootball2Source
from data_pipelines.pose_builder import PoseBuilder, PoseConfig


class KthFootball2(PoseBuilder):
    """KTH Multiview Football II: a player from three affine cameras with 14 joints in 3D."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [PoseConfig.of(KthFootball2Settings())]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put player2sequence1.zip into the manual folder; see README.md."
    pkg_dir_path = pathlib.Path(__file__).parent
    source_class = KthFootball2Source
