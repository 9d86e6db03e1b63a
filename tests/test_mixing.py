"""Fusion over any stacks of layers: the recursion by hand, own linen modules, dead layers left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fusion_jax import fusion
from fusion_jax.errors import UserError
from fusion_jax.mixing import Mixing, declare_mixing, fuse

EVERYTHING = fusion.LiveLayers(2, 1)


def times(*factors):
    return [lambda x, f=f: f * x for f in factors]


def test_the_recursion_by_hand():
    """Two streams of one feature, L = 2, layers that multiply; w = (1/4, 1/2)."""
    seen = {}
    got = fuse(
        [jnp.array([1.0]), jnp.array([10.0])],
        [times(2, 3), times(1, -1)],
        times(4, 1, 10),
        Mixing(np.array([0.25, 0.5]), EVERYTHING),
        seen.__setitem__,
    )
    # Z_1 = 4 (1, 10); M_1 = 3/4 (2, 10) + 1/4 Z_1; Z_2 = M_1; M_2 = 1/2 (6, -10) + 1/2 Z_2; out = 10 M_2
    np.testing.assert_allclose(seen["mixed_1"], [2.5, 17.5])
    np.testing.assert_allclose(got, [42.5, 37.5])
    assert list(seen) == ["data_1", "fused_1", "mixed_1", "data_2", "fused_2", "mixed_2"]


@pytest.mark.parametrize("beta", [0, 1, 2])
def test_layers_that_are_dead_are_never_called(beta):
    weights = fusion.fixed_weights(beta, 2)
    called = []

    def layer(name, factor):
        return lambda x: called.append(name) or factor * x

    data = [[layer("a1", 2.0), layer("a2", 3.0)], [layer("b1", 5.0), layer("b2", 7.0)]]
    fused = [layer("f1", 11.0), layer("f2", 13.0), layer("f3", 17.0)]
    inputs = [jnp.ones((2, 1)), jnp.ones((2, 3))]
    got = fuse(inputs, data, fused, Mixing(weights, fusion.live_layers(weights)))
    expected = {0: ["f1", "f2", "f3"], 1: ["a1", "b1", "f2", "f3"], 2: ["a1", "b1", "a2", "b2", "f3"]}
    assert called == expected[beta]
    np.testing.assert_allclose(got, fuse(inputs, data, fused, Mixing(weights, EVERYTHING)))


class Sensors(nn.Module):
    strategy: str = "learned"
    beta: float | None = None

    @nn.compact
    def __call__(self, sound, light):
        mixing = declare_mixing(self, 2, self.strategy, beta=self.beta)
        data = [[nn.Dense(3), nn.relu], [nn.Dense(2), nn.relu]]
        return fuse([sound, light], data, [nn.Dense(5), nn.relu, nn.Dense(1)], mixing)


def test_own_modules_get_alpha_and_beta_and_gradients():
    inputs = jnp.ones((4, 7)), jnp.ones((4, 2))
    net = Sensors()
    params = net.init(jax.random.key(0), *inputs)["params"]
    assert params["alpha"] == np.float32(0.1) and params["beta"] == 1.5 and len(params) == 6
    grads = jax.grad(lambda p: net.apply({"params": p}, *inputs).sum())(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))
    early = Sensors("fixed", 0).init(jax.random.key(0), *inputs)["params"]
    assert len(early) == 2 and "alpha" not in early  # two dense layers of the fusion stream
    assert Sensors("free").init(jax.random.key(0), *inputs)["params"]["mix_logits"].shape == (2,)


def test_what_does_not_go_together_is_named():
    x, ok = jnp.ones((1, 2)), Mixing(np.array([0.5]), fusion.LiveLayers(1, 1))
    for inputs, data, fused in (([x], [], times(1, 1)), ([x], [times(1)], times(1)), ([x, x], [times(1)] * 2, [])):
        with pytest.raises(UserError, match="expected as many streams as inputs"):
            fuse(inputs, data, fused, ok)
    with pytest.raises(UserError, match=r"weights of shape \(2,\), expected \(1,\)"):
        fuse([x], [times(1)], times(1, 1), Mixing(np.array([0.5, 0.5]), EVERYTHING))
    with pytest.raises(UserError, match="nothing is read between them"):
        fuse([x], [times(1)], times(1, 1), Mixing(np.array([0.5]), fusion.LiveLayers(0, 2)))
    with pytest.raises(UserError, match="fusion stream must be as wide"):
        fuse([x], [times(1)], [lambda x: x[:, :1], *times(1)], ok)
    with pytest.raises(UserError, match="'image' does not mix streams"):
        declare_mixing(Sensors(), 2, "image")
