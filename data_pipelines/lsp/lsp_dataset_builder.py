"""The TFDS builder of `lsp`."""

from __future__ import annotations

import pathlib

import tensorflow_datasets as tfds

from data_pipelines.lsp.settings import LspSettings
from data_pipelines.lsp.source import LspSource
from data_pipelines.pose_builder import PoseBuilder, PoseConfig


class Lsp(PoseBuilder):
    """Leeds Sports Pose: photos of people at sport with 14 joints in 2D; or its extended set."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [PoseConfig.of(LspSettings())]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put lsp_dataset.zip (or what it unpacks to) into the manual folder; see README.md."
    pkg_dir_path = pathlib.Path(__file__).parent
    source_class = LspSource
