"""The renderer: projections, silhouettes, ray meetings, light, visibility, batching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joint_parts import on_their_parts

from data_pipelines.synthetic_humans.actions import perform
from data_pipelines.synthetic_humans.body import forward, stand
from data_pipelines.synthetic_humans.cones import Body, Cone, meet
from data_pipelines.synthetic_humans.flesh import capsules, cone_labels, head
from data_pipelines.synthetic_humans.people import SKELETON, sample_person
from data_pipelines.synthetic_humans.render import joint_visibility, pixel_rays, render, render_batch, render_with_parts
from data_pipelines.synthetic_humans.scenes import camera_ring, make_scene, make_scenes
from fusion_jax.body_parts import FLIP, PARTS
from fusion_jax.geometry import world_to_image

SIZE = 64
JIT_RENDER = jax.jit(render, static_argnames="size")
LABELS = jax.jit(lambda scene: render_with_parts(scene, SIZE)[1])  # of the picture nothing is worked out
PERSON = sample_person(0, 3)
J = {name: i for i, name in enumerate(SKELETON.joints)}


def scene_of(action="gesturing", seed=0, person=PERSON, size=SIZE):
    rng = np.random.default_rng(seed)
    joints = perform(action, person, rng, 1, 50.0).joints_mm[0]
    scene, view = make_scene(person, joints, camera_ring(rng)[0], size, rng)
    return scene, view, joints


def lone_ball(scene, center, radius, albedo=0.0):
    """The scene with nothing of the body but one ball (and all other cones inside it)."""
    count = scene.body.start.shape[0]
    point = np.tile(np.asarray(center, np.float32), (count, 1))
    body = Body(
        point,
        point + np.float32([0, 0, 1]),
        np.full((count, 2), radius, np.float32),
        np.full((count, 2, 3), albedo, np.float32),
        scene.body.cut,
    )
    return scene._replace(body=body)


def bright(scene):
    """Even light without a lamp on a white room: what is not white is body."""
    light = scene.light._replace(
        color=np.zeros(3, np.float32), sky=np.ones(3, np.float32), ground=np.ones(3, np.float32)
    )
    white = {name: np.ones_like(getattr(scene.backdrop, name)) for name in ("colors", "panel_color", "box_color")}
    return scene._replace(light=light, backdrop=scene.backdrop._replace(**white))


def coverage(scene, size=SIZE):
    """The share of each pixel that black flesh covers: display values are square roots."""
    body = scene.body._replace(color=np.zeros_like(scene.body.color))
    return 1 - np.asarray(JIT_RENDER(bright(scene)._replace(body=body), size)).mean(-1) ** 2


@pytest.mark.parametrize("joint", ["pelvis", "head_top", "left_wrist", "right_ankle"])
def test_a_ball_at_a_joint_is_where_the_joint_projects(joint):
    for seed in range(3):
        scene, view, joints = scene_of(seed=seed)
        share = coverage(lone_ball(scene, joints[J[joint]], 90.0))
        v, u = np.mgrid[:SIZE, :SIZE]
        centroid = np.array([(u * share).sum(), (v * share).sum()]) / share.sum()
        np.testing.assert_allclose(centroid, view.joints2d[J[joint]], atol=0.25)
        # A far ball's picture is a disc of radius f r / z.
        z = scene.rot_world_to_cam[2] @ (joints[J[joint]] - scene.cam_center_mm)
        radius = 90 * np.sqrt(np.linalg.det(scene.intrinsics[:2, :2])) / z
        np.testing.assert_allclose(share.sum(), np.pi * radius**2, rtol=0.05)


@settings(deadline=None, max_examples=10)
@given(skew=st.floats(-20, 20), roll=st.floats(-15, 15), seed=st.integers(0, 100))
def test_any_affine_intrinsics_are_respected(skew, roll, seed):
    scene, view, joints = scene_of(seed=seed % 5)
    k = scene.intrinsics.copy()
    k[0, 1], k[1, 0] = skew, roll
    scene = lone_ball(scene._replace(intrinsics=k), joints[0], 90.0)
    share = coverage(scene)
    v, u = np.mgrid[:SIZE, :SIZE]
    centroid = np.array([(u * share).sum(), (v * share).sum()]) / share.sum()
    np.testing.assert_allclose(centroid, world_to_image(joints[:1], view.camera._replace(intrinsics=k))[0], atol=0.3)


@pytest.mark.parametrize("action", ["walking", "sitting", "bending"])
def test_joints_lie_inside_the_silhouette(action):
    for seed in range(2):
        scene, view, _ = scene_of(action, seed)
        share = coverage(scene)
        pixels = np.rint(view.joints2d).astype(int)
        inside = [share[max(0, v - 1) : v + 2, max(0, u - 1) : u + 2].max() > 0.5 for u, v in pixels]
        assert all(inside)
        assert share[0].max() < 1e-3 and share[-1].max() < 1e-3 and share[:, 0].max() < 1e-3  # margin all round
        assert 0.02 < share.mean() < 0.5


@pytest.mark.parametrize(("action", "seed"), [("gesturing", 0), ("bending", 1), ("kneeling", 2)])
def test_head_size_is_that_of_the_drawn_heads_box(action, seed):
    """Seen alone, through a glass that enlarges it."""
    scene, view, joints = scene_of(action, seed)
    zoom = 0.5 * SIZE / view.head_size_px
    middle = view.joints2d[[J["head_top"], J["nose"]]].mean(0)
    glass = np.array([[zoom, 0, SIZE / 2 - zoom * middle[0]], [0, zoom, SIZE / 2 - zoom * middle[1]], [0, 0, 1]])
    alone = head(joints[None], PERSON)
    rows = np.arange(len(scene.body.start)) % alone.start.shape[1]  # each cone several times: the compiled shape
    body = Body(*(field[0, rows] for field in alone))
    share = coverage(scene._replace(body=body, intrinsics=(glass @ scene.intrinsics).astype(np.float32)))
    assert max(share[0].max(), share[-1].max(), share[:, 0].max(), share[:, -1].max()) < 0.5, "all of it is seen"
    width, height = (share.max(axis) > 0.5 for axis in (0, 1))
    drawn = 0.6 * np.hypot(width.sum(), height.sum())
    np.testing.assert_allclose(drawn, zoom * view.head_size_px, atol=1)
    assert 0.05 * SIZE < view.head_size_px < 0.3 * SIZE


def test_the_head_is_part_of_the_body():
    joints = perform("boxing", PERSON, np.random.default_rng(0), 2, 5.0).joints_mm
    part, whole = head(joints, PERSON), capsules(joints, PERSON)
    for frame in range(2):
        for cone in range(part.start.shape[1]):
            same = [
                (x[frame, cone] == y[frame]).reshape(len(y[frame]), -1).all(1) for x, y in zip(part, whole, strict=True)
            ]
            assert np.logical_and.reduce(same).sum() == 1


def test_rays_go_through_pixels():
    scene, view, joints = scene_of()
    directions, _ = pixel_rays(scene, SIZE)
    points = np.asarray(scene.cam_center_mm[:, None] + 3000 * directions).T
    v, u = np.mgrid[:SIZE, :SIZE]
    np.testing.assert_allclose(world_to_image(points, view.camera), np.stack([u.ravel(), v.ravel()], -1), atol=0.02)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_meeting_equals_a_march_over_many_balls(seed):
    rng = np.random.default_rng(seed)
    start, axis = rng.normal(0, 60, 3) + [0, 0, 2000], rng.normal(0, 150, 3)
    radius, grow = rng.uniform(30, 90), rng.uniform(-25, 25)
    direction = np.array([*rng.normal(0, 0.03, 2), 1.0])
    direction /= np.linalg.norm(direction)
    s = np.linspace(0, 1, 20001)[:, None]
    balls = start + s * axis
    along = balls @ direction
    q = (radius + s[:, 0] * grow) ** 2 - ((balls - along[:, None] * direction) ** 2).sum(-1)
    got = meet(Cone(*(jnp.asarray(x, jnp.float32) for x in (start, axis, radius, grow))), jnp.asarray(direction))
    if q.max() > 20:
        entry = (along - np.sqrt(np.maximum(q, 0)))[q >= 0].min()
        assert got.inside_mm > 0
        np.testing.assert_allclose(got.distance, entry, atol=1.5)
    elif q.max() < -20:
        assert got.inside_mm < 0


def test_pictures_are_finite_in_range_and_batches_equal_single_ones():
    rng = np.random.default_rng(0)
    joints = perform("boxing", PERSON, rng, 3, 5.0).joints_mm
    scenes, _ = make_scenes(PERSON, joints, camera_ring(rng)[1], 32, rng)
    pictures = np.asarray(render_batch(scenes, 32))
    assert pictures.shape == (3, 32, 32, 3)
    assert np.isfinite(pictures).all() and pictures.min() >= 0 and pictures.max() <= 1
    single = JIT_RENDER(jax.tree.map(lambda x: x[1], scenes), 32)
    assert np.abs(pictures[1] - np.asarray(single)).mean() < 1e-3  # a pixel may fall on the other side of an edge


def test_the_body_throws_a_shadow_on_the_side_away_from_the_lamp():
    scene, _, joints = scene_of("waving")
    floor = joints[:, :2].mean(0)
    room = bright(scene).backdrop
    # Straight down from above, lamp from +x: the floor beyond -x of a ball 500 mm up is darker.
    rot = np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]], np.float32)
    k = np.array([[64, 0, 31.5], [0, 64, 31.5], [0, 0, 1]], np.float32)
    light = scene.light._replace(
        direction=np.float32([np.sqrt(0.5), 0, np.sqrt(0.5)]), color=np.full(3, 0.8, np.float32),
        sky=np.full(3, 0.1, np.float32), ground=np.full(3, 0.1, np.float32), softness_mm=np.float32(5.0),
    )  # fmt: skip
    room = room._replace(
        box_center=room.box_center + np.float32([0, 0, -9000]),
        panel_center=room.panel_center - np.float32([0, 0, 9000]),
    )
    scene = scene._replace(
        rot_world_to_cam=rot,
        cam_center_mm=np.float32([*floor, 2400]),
        intrinsics=k,
        light=light,
        backdrop=room,
    )
    picture = np.asarray(JIT_RENDER(lone_ball(scene, [*floor, 500], 120.0, 1.0), SIZE)).mean(-1)
    # The shadow's middle is 500 mm to -x on the floor, 2400 mm below: 64 * 500 / 2400 = 13.3 px.
    assert picture[32, 31 - 13] < 0.5 < 0.7 < picture[32, 31 + 13]


def test_visible_joints_from_front_and_back():
    seen = []
    joints = stand(forward({"turn": np.zeros(1)}, PERSON.bone_lengths_mm), PERSON)[0]  # faces +x
    camera = camera_ring(np.random.default_rng(0))[0]
    for side in (1, -1):
        # x right, y down, z forward of a camera that looks back along x.
        rot = np.array([[0, side, 0], [0, 0, -1], [-side, 0, 0]], float)
        view = camera._replace(rot_world_to_cam=rot, cam_center_mm=np.array([side * 4500.0, 0, 1000]))
        scene, _ = make_scene(PERSON, joints, view, SIZE, np.random.default_rng(1))
        seen.append(np.asarray(joint_visibility(scene, jnp.asarray(joints, jnp.float32))))
    front, back = seen
    assert front[J["nose"]] and not back[J["nose"]]
    for name in ("left_knee", "right_elbow", "left_wrist", "pelvis", "right_hip"):
        assert front[J[name]] and back[J[name]], name


def test_the_far_arm_is_hidden_from_the_side():
    joints = stand(forward({"turn": np.zeros(1)}, PERSON.bone_lengths_mm), PERSON)[0]
    camera = camera_ring(np.random.default_rng(0))[0]
    rot = np.array([[-1, 0, 0], [0, 0, -1], [0, -1, 0]], float)  # at +y, the person's left, looking along -y
    view = camera._replace(rot_world_to_cam=rot, cam_center_mm=np.array([0, 4500.0, 1000]))
    scene, _ = make_scene(PERSON, joints, view, SIZE, np.random.default_rng(1))
    seen = np.asarray(joint_visibility(scene, jnp.asarray(joints, jnp.float32)))
    assert seen[J["left_shoulder"]] and seen[J["left_elbow"]] and seen[J["left_wrist"]]
    assert not (seen[J["right_shoulder"]] or seen[J["right_elbow"]] or seen[J["right_hip"]])


@pytest.mark.parametrize(("action", "seed"), [("gesturing", 0), ("kneeling", 1), ("walking", 2)])
def test_parts_together_are_the_silhouette(action, seed):
    scene, _, _ = scene_of(action, seed)
    share, labels = coverage(scene), np.asarray(LABELS(scene))
    assert labels.dtype == np.uint8 and labels.max() <= len(PARTS)
    sure = np.abs(share - 0.5) > 0.02
    np.testing.assert_array_equal((labels > 0)[sure], (share > 0.5)[sure])
    assert sure.mean() > 0.99 and len(np.unique(labels)) > 10


def test_a_pixel_has_the_part_that_covers_most_of_it():
    """Seen as how white the pixel is where that part alone is white."""
    scene, _, _ = scene_of("kneeling", 1)
    labels, dark = np.asarray(LABELS(scene)), bright(scene)
    black = {name: np.zeros_like(getattr(dark.backdrop, name)) for name in ("colors", "panel_color", "box_color")}
    dark = dark._replace(backdrop=dark.backdrop._replace(**black))
    for part in np.unique(labels)[1:]:
        white = np.zeros_like(scene.body.color)
        white[np.array(cone_labels()) == part] = 1
        body = scene.body._replace(color=white)
        share = np.asarray(JIT_RENDER(dark._replace(body=body), SIZE)).mean(-1) ** 2
        sure = np.abs(share - 0.5) > 0.02
        np.testing.assert_array_equal((labels == part)[sure], (share > 0.5)[sure])


def test_visible_joints_lie_on_parts_of_theirs():
    right = []
    for seed, action in enumerate(("gesturing", "walking", "jumping", "throwing", "bending", "sitting")):
        scene, view, joints = scene_of(action, seed)
        visible = np.asarray(joint_visibility(scene, jnp.asarray(joints, jnp.float32)))
        right += on_their_parts(np.asarray(LABELS(scene)), view.joints2d, visible)
    assert len(right) > 60 and np.mean(right) > 0.95


def test_a_mirrored_person_has_mirrored_parts():
    """Somebody who stands upright before a camera that turns to the other side of the plane of symmetry."""
    joints = stand(forward({"turn": np.zeros(1)}, PERSON.bone_lengths_mm), PERSON)[0]  # faces +x, left is +y
    camera, maps = camera_ring(np.random.default_rng(0))[0], []
    k = np.array([[1100.0, 0, 499.5], [0, 1100, 499.5], [0, 0, 1]])
    for side in (1, -1):
        look = np.array([-np.sqrt(0.5), -side * np.sqrt(0.5), 0])
        rot = np.stack([np.cross(look, [0, 0, 1.0]), [0, 0, -1.0], look])
        view = camera._replace(rot_world_to_cam=rot, cam_center_mm=-4500 * look + [0, 0, 900], intrinsics=k)
        scene, seen = make_scene(PERSON, joints, view, SIZE, np.random.default_rng(1))
        # The crops are off the middle, each to the same side: the mirrored one has to be mirrored.
        inner = seen.camera.intrinsics.copy()
        inner[0, 2] = (SIZE - 1) / 2
        maps.append(np.asarray(LABELS(scene._replace(intrinsics=inner.astype(np.float32)))))
    one, other = maps
    assert (one != np.array(FLIP)[other[:, ::-1]]).mean() < 0.002 < 0.05 < (one != other[:, ::-1]).mean()


def test_one_program_serves_all_scenes():
    traces = []

    @jax.jit
    def draw(scene):
        traces.append(1)
        return render(scene, 16)

    for seed, action in enumerate(("walking", "sitting", "jumping")):
        draw(scene_of(action, seed, sample_person(1, seed), 16)[0])
    assert len(traces) == 1
