"""The TFDS builder of Human3.6M."""

from __future__ import annotations

import pathlib

import tensorflow_datasets as tfds

from data_pipelines.human36m.settings import Human36mSettings
from data_pipelines.human36m.source import Human36mSource
from data_pipelines.pose_builder import PoseBuilder, PoseConfig


class Human36m(PoseBuilder):
    """Seven people acting 15 everyday actions twice, in four calibrated 50 Hz videos each, with captured 3D poses."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [PoseConfig.of(Human36mSettings())]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Register at vision.imar.ro/human3.6m, sign the agreement and download Poses_D3_Positions_<subject>.tgz and "
        "Videos_<subject>.tgz of S1, S5, S6, S7, S8, S9 and S11 into the manual folder; the README has the steps."
    )
    pkg_dir_path = pathlib.Path(__file__).parent
    source_class = Human36mSource
