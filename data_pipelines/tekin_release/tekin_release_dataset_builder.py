"""The TFDS builder of `tekin_release`."""

from __future__ import annotations

import pathlib

import tensorflow_datasets as tfds

from data_pipelines.pose_builder import PoseBuilder, PoseConfig
from data_pipelines.tekin_release.settings import TekinReleaseSettings
from data_pipelines.tekin_release.source import TekinReleaseSource


class TekinRelease(PoseBuilder):
    """The released WalkDog part of Human3.6M: pictures, poses and heatmaps as the paper's authors prepared them."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [PoseConfig.of(TekinReleaseSettings())]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put h36m_data_imgs_A_14_train.h5, h36m_data_imgs_A_14_val.h5, h36m_data_hg_preds_A_14_train.h5 and "
        "h36m_data_hg_preds_A_14_val.h5 here; see README.md."
    )
    pkg_dir_path = pathlib.Path(__file__).parent
    source_class = TekinReleaseSource
