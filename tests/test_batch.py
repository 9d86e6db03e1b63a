"""What is wrong with a batch is said by name before anything is computed."""

import numpy as np
import pytest
import small

from fusion_jax.batch import check_batch, fake_batch
from fusion_jax.errors import UserError

CONFIG = small.config()


def changed(**entries):
    batch = fake_batch(CONFIG, 4) | entries
    return {name: value for name, value in batch.items() if value is not None}


@pytest.mark.parametrize(
    "batch",
    [
        changed(),
        changed(image=np.zeros((4, 9, 9, 3), np.float32)),
        changed(joints2d=None, valid2d=None, heatmap=np.zeros((4, 8, 8, 16), np.float32)),
        changed(flow=np.zeros((4, 3))),
        changed(parts=np.zeros((4, 16, 16), np.uint8)),
    ],
)
def test_good_batches_pass(batch):
    check_batch(batch, CONFIG.inputs, training=True)


def test_prediction_needs_no_truth():
    check_batch(changed(pose_mm=None, valid=None), CONFIG.inputs)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"pose_mm": None}, "no 'pose_mm', only"),
        ({"valid2d": None}, "no 'valid2d'"),
        ({"pose_mm": np.zeros((4, 16, 3))}, r"'pose_mm'\] is \(4, 16, 3\), expected \(B, 17, 3\)"),
        ({"pose_mm": np.zeros((4, 1, 3))}, "expected"),
        ({"pose_mm": np.zeros((1, 17, 3))}, "differ in B"),
        ({"joints2d": np.zeros((4, 17, 3))}, r"'joints2d'\] is \(4, 17, 3\)"),
        ({"image": np.zeros((4, 16, 16, 1), np.uint8)}, r"expected \(B, H, W, 3\)"),
        ({"image": np.zeros((4, 16, 16, 3), np.int32)}, "is int32, expected uint8"),
        ({"heatmap": np.zeros((4, 16, 16, 17))}, r"expected \(B, h, w, 16\)"),
        ({"parts": np.zeros((4, 16, 16, 1), np.uint8)}, r"expected \(B, H, W\)"),
        ({"parts": np.zeros((4, 16, 16), np.float32)}, "'parts'.* is float32, expected uint8"),
    ],
)
def test_bad_batches_are_refused_by_name(entries, message):
    with pytest.raises(UserError, match=message):
        check_batch(changed(**entries), CONFIG.inputs, training=True)
