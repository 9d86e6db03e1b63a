"""Presets, the ranges of every field, overrides; the errors name the field and what to do."""

import dataclasses

import jax
import pytest

from fusion_jax import config as cfg
from fusion_jax import presets
from fusion_jax.augmentation import AUGMENTATIONS, AugmentConfig
from fusion_jax.errors import UserError, check_field, unknown_name
from fusion_jax.network import fusion_layers
from fusion_jax.skeletons import skeleton
from fusion_jax.state import input_shapes, make_network

NAN = float("nan")


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_presets_describe_networks_that_build(name):
    config = presets.preset(name)
    assert config.preset == name and hash(config) == hash(presets.preset(name)) and config == presets.preset(name)
    if config.task == "heatmaps":
        assert config.inputs.heatmap_size * 4 == config.inputs.image_size and config.hourglass == config.network
        return
    assert len(fusion_layers(config.fusion.streams)) == len(config.fusion.streams[0].layers)
    shapes = {k: jax.ShapeDtypeStruct(v, "float32") for k, v in input_shapes(config.inputs, 2).items()}
    network = make_network(config.network, config.inputs)
    pose, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x), shapes)
    assert pose.shape == (2, skeleton(config.inputs.skeleton).num_joints, 3)


def test_paper_preset_trains_as_the_release_does():
    paper = presets.preset("paper")
    assert [len(presets.preset(name).network.streams[0].layers) for name in ("paper", "paper-wide")] == [7, 8]
    assert (paper.batch_size, paper.optim.learning_rate, paper.optim.alpha_penalty_weight) == (128, 1e-3, 5000)
    assert paper.optim.fusion_learning_rate == 1e-3  # one optimiser for all of theta, alpha, beta
    assert (paper.optim.schedule, paper.optim.warmup_steps, paper.optim.clip_norm) == ("constant", 0, 0)
    assert (paper.network.alpha_init, paper.network.beta) == (0.1, None)
    assert (paper.inputs.image_size, paper.inputs.skeleton) == (112, "human36m17")
    assert paper.augment.crop_probability == 0.7 and paper.augment.shared_crop and not paper.augment.flip_probability
    assert paper.augment.crop_fraction * 128 == 112


@pytest.mark.parametrize(
    "record, field, value",
    [
        (cfg.OptimConfig, "learning_rate", 0.0),
        (cfg.OptimConfig, "learning_rate", NAN),
        (cfg.OptimConfig, "fusion_learning_rate", -1.0),
        (cfg.OptimConfig, "warmup_steps", -1),
        (cfg.OptimConfig, "clip_norm", -1.0),
        (cfg.OptimConfig, "alpha_penalty_weight", NAN),
        (cfg.OptimConfig, "schedule", "linear"),
        (cfg.OptimConfig, "skip_dead", 0.5),
        (cfg.OptimConfig, "skip_every", 0),
        (cfg.InputConfig, "image_size", 0),
        (cfg.InputConfig, "heatmap_size", -3),
        (cfg.InputConfig, "heatmap_sigma_px", 0.0),
        (AugmentConfig, "crop_probability", 1.1),
        (AugmentConfig, "flip_probability", -0.1),
        (AugmentConfig, "crop_fraction", 0.0),
        (AugmentConfig, "scale_range", 1.0),
        (AugmentConfig, "colour", 1.0),
        (AugmentConfig, "rotation_deg", 181.0),
    ],
)
def test_values_out_of_range_are_named(record, field, value):
    with pytest.raises(UserError, match=rf"{field} is .*expected"):
        record(**{field: value})


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"alpha_init": 0.0}, "alpha_init"),
        ({"strategy": "late"}, "unknown strategy 'late'"),
        ({"compute_dtype": "float16"}, "compute_dtype"),
    ],
)
def test_network_values_out_of_range(fields, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(presets.preset("tiny").network, **fields)


@pytest.mark.parametrize("fields", [{"steps": 0}, {"batch_size": 0}, {"seed": -1}])
def test_run_values_out_of_range(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        dataclasses.replace(presets.preset("tiny"), **fields)


@pytest.mark.parametrize("field", ["skeleton", "heatmap_skeleton"])
def test_unknown_skeleton(field):
    with pytest.raises(UserError, match="unknown skeleton 'mpii'.*mpii16"):
        cfg.InputConfig(**{field: "mpii"})


def test_unknown_preset_is_answered_with_the_closest():
    with pytest.raises(UserError, match="Did you mean 'paper-wide'"):
        presets.preset("paper_wide")


# --- overrides ------------------------------------------------------------------------------------------------------


def test_override_field_names_are_unique():
    """with_overrides finds the record of a field by its name alone."""
    names = [f.name for record in (cfg.Config, cfg.NetworkConfig, cfg.OptimConfig) for f in dataclasses.fields(record)]
    assert len(names) == len(set(names))


def test_overrides_reach_their_records():
    got = presets.with_overrides("tiny", strategy="fixed", beta=2.0, learning_rate=0.5, steps=7, augment="light")
    base = presets.preset("tiny")
    assert (got.network.strategy, got.network.beta, got.optim.learning_rate, got.steps) == ("fixed", 2.0, 0.5, 7)
    assert got.augment == AUGMENTATIONS["light"]
    undone = dataclasses.replace(got, network=base.network, optim=base.optim, steps=base.steps, augment=base.augment)
    assert undone == base


def test_streams_by_name():
    own = presets.preset("tiny").fusion.streams
    for given in ("parts, image,heatmap", ("parts", "image", "heatmap")):
        got = presets.with_overrides("tiny", streams=given, strategy="free").fusion
        assert [stream.name for stream in got.streams] == ["parts", "image", "heatmap"] and got.strategy == "free"
        assert got.streams[1:] == own and got.streams[0].layers == own[0].layers
    assert presets.with_overrides("tiny", streams="image,heatmap") == presets.preset("tiny")
    assert [stream.name for stream in presets.with_overrides("paper", streams="silhouette").fusion.streams] == [
        "silhouette"
    ]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("tiny", {"streams": "image,part"}, "unknown stream 'part'. Did you mean 'parts'"),
        ("tiny", {"streams": ""}, "unknown stream ''. Known: heatmap, image, parts, silhouette"),
        ("tiny", {"streams": "image,parts,image"}, "streams image,parts,image name image twice"),
        ("tiny", {"streams": "image,parts", "strategy": "heatmap"}, "strategy 'heatmap' needs a stream of that name"),
        ("hourglass-2", {"streams": "image"}, "for task heatmaps, whose networks have no 'streams'"),
    ],
)
def test_streams_that_cannot_be(name, fields, message):
    with pytest.raises(UserError, match=message):
        presets.with_overrides(name, **fields)


def test_none_and_no_overrides_leave_the_preset():
    assert presets.with_overrides("paper", beta=None, steps=None, augment=None) == presets.preset("paper")
    assert presets.with_overrides("tiny", beta=0.0).network.beta == 0.0  # zero is a value


@pytest.mark.parametrize("fields", [{"heatmap_size": 64}, {"skeleton": "lsp14", "heatmap_skeleton": "mpii16"}])
def test_a_2d_networks_settings_follow_from_others_only_where_they_are_not_given(fields):
    got = presets.with_overrides("hourglass-tiny", image_size=128, skeleton="lsp14").inputs
    assert (got.heatmap_size, got.heatmap_skeleton) == (32, "lsp14")
    with pytest.raises(UserError, match="heatmap_size is 64, expected 32|skeleton is 'lsp14', expected 'mpii16'"):
        presets.with_overrides("hourglass-tiny", image_size=128, **fields)


@pytest.mark.parametrize("depth, side, allowed", [(4, 64, False), (4, 128, True), (3, 64, True)])
def test_batch_norm_needs_more_than_one_value(depth, side, allowed):
    """A batch of one whose lowest maps are 1 px has the variance 0, whatever it shows."""
    base = presets.with_overrides("hourglass-tiny", image_size=side)
    network = dataclasses.replace(base.hourglass, depth=depth)
    assert dataclasses.replace(base, network=network, batch_size=2).batch_size == 2
    if allowed:
        assert dataclasses.replace(base, network=network, batch_size=1).batch_size == 1
    else:
        with pytest.raises(UserError, match="batch_size is 1, expected 2 or more: the lowest maps are 1 px"):
            dataclasses.replace(base, network=network, batch_size=1)


def test_live_data_is_not_augmented():
    assert presets.with_overrides("tiny", dataset="synthetic_humans/live").augment == AUGMENTATIONS["none"]
    assert (
        presets.with_overrides("tiny", dataset="synthetic_humans/live", augment="none").augment == AUGMENTATIONS["none"]
    )
    with pytest.raises(UserError, match="'full'.*--augment"):
        presets.with_overrides("tiny", dataset="synthetic_humans/live", augment="full")


def test_the_preset_for_live_people_varies_prepared_ones():
    assert (
        presets.with_overrides("lsp") == presets.preset("lsp")
        and presets.preset("lsp").augment == AUGMENTATIONS["none"]
    )
    assert presets.with_overrides("lsp", dataset="synthetic_humans").augment == AUGMENTATIONS["light"]
    assert presets.with_overrides("lsp", dataset="synthetic_humans", augment="none").augment == AUGMENTATIONS["none"]


def test_bad_overrides():
    with pytest.raises(UserError, match="unknown augmentation 'ful'. Did you mean 'full'"):
        presets.with_overrides("tiny", augment="ful")
    with pytest.raises(UserError, match="learning_rate"):
        presets.with_overrides("tiny", learning_rate=-1.0)
    with pytest.raises(UserError, match="learning_rat"):
        presets.with_overrides("tiny", learning_rat=0.1)


def test_no_augmentation_changes_nothing():
    none = AUGMENTATIONS["none"]
    assert (none.crop_probability, none.crop_fraction, none.shared_crop) == (0, 1, False)
    assert (none.flip_probability, none.scale_range, none.rotation_deg, none.colour) == (0, 0, 0, 0)
    assert AUGMENTATIONS["full"] == AugmentConfig()
    assert AUGMENTATIONS["light"].rotation_deg == 0


# --- errors ---------------------------------------------------------------------------------------------------------


def test_error_texts():
    error = unknown_name("colour", "bleu", {"red", "blue", "green"})
    assert str(error) == "unknown colour 'bleu'. Did you mean 'blue'? Known: blue, green, red."
    assert str(unknown_name("colour", "xyz", ["red"])) == "unknown colour 'xyz'. Known: red."
    assert isinstance(error, ValueError)
    check_field(True, "steps", 3, "anything")
    with pytest.raises(UserError, match="^config: steps is 0, expected >= 1$"):
        check_field(False, "steps", 0, ">= 1")
