"""The TFDS builder of `humaneva`: the raw release to crops with 15 joints, without MATLAB."""

from __future__ import annotations

import pathlib

import tensorflow_datasets as tfds

from data_pipelines.humaneva.settings import HumanevaSettings
from data_pipelines.humaneva.source import HumanevaSource
from data_pipelines.pose_builder import PoseBuilder, PoseConfig


class Humaneva(PoseBuilder):
    """HumanEva-I: people before calibrated cameras, 15 joints from motion capture at the videos' times.

    The test split is the validation half of trial 1 of S1 to S3, the others are its training half.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [PoseConfig.of(HumanevaSettings())]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Register at humaneva.is.tue.mpg.de, download the archives of HumanEva-I and Critical_Update_OFS_files.zip into the
    manual folder, and see data_pipelines/humaneva/README.md for the tree that they unpack to.
    """
    pkg_dir_path = pathlib.Path(__file__).parent
    source_class = HumanevaSource
