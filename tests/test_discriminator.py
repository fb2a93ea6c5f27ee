"""What the critics must not see, and what they must."""

import pytest
import torch
from e3nn import o3
from systems import jittered_lattice, liquid_box, random_spec

from openmm_cgadv.fit.basis import basis
from openmm_cgadv.methods.adversarial.discriminators import (
    DynamicsDiscriminator,
    GramDiscriminator,
    StructureDiscriminator,
)
from openmm_cgadv.methods.adversarial.discriminators.channels import EquivariantLinear, Linear
from openmm_cgadv.methods.adversarial.discriminators.dynamics import IncrementProducts


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def windows(n=20, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 8, 3, generator=generator).cumsum(1)


def transformations():
    rotation = o3.rand_matrix()
    return {"rotation": rotation, "reflection": -rotation, "identity": torch.eye(3)}


def kinds(frames):
    return torch.arange(len(frames)) % 2


def logits(critic, frames):
    return critic(critic.tokens(frames, kinds(frames)), kinds(frames))


def dynamics(**options):
    critic = DynamicsDiscriminator(torch.rand(2, 7, 2) + 0.5, **options)
    torch.nn.init.normal_(critic.gate)
    if critic.attention is not None:
        torch.nn.init.normal_(critic.attention.bias)
    return critic


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("name", ["rotation", "reflection", "identity"])
def test_logits_of_motion_do_not_depend_on_frame_of_reference(name, attention):
    critic, frames = dynamics(attention=attention), windows()
    moved = frames @ transformations()[name].T + torch.tensor([3.0, -2.0, 0.7])
    torch.testing.assert_close(logits(critic, moved), logits(critic, frames), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["rotation", "reflection", "identity"])
def test_products_of_steps_do_not_depend_on_frame_of_reference(name):
    critic, frames = GramDiscriminator(torch.rand(2, 7, 2) + 0.5), windows()
    moved = frames @ transformations()[name].T + torch.tensor([3.0, -2.0, 0.7])
    torch.testing.assert_close(
        critic.tokens(moved, kinds(moved)), critic.tokens(frames, kinds(frames))
    )
    assert logits(critic, frames).shape == (20,)


def test_products_of_steps_are_standardized_for_all_types_together():
    critic, frames = GramDiscriminator(torch.rand(2, 7, 2) + 0.5), windows(400)
    for _ in range(2):
        critic.standardize(frames, kinds(frames))
        tokens = critic.tokens(frames, kinds(frames))
        torch.testing.assert_close(tokens.mean(0), torch.zeros(35))
        torch.testing.assert_close(tokens.std(0), torch.ones(35))


def test_logits_of_motion_follow_the_order_of_the_beads():
    critic, frames = dynamics(), windows()
    order = torch.randperm(len(frames))
    permuted = critic(critic.tokens(frames[order], kinds(frames)[order]), kinds(frames)[order])
    torch.testing.assert_close(permuted, logits(critic, frames)[order])


def test_a_lag_sees_itself_and_longer_lags_only():
    critic, tokens = dynamics(), torch.randn(6, 7, 2, 3).requires_grad_()
    for lag in range(7):
        (gradient,) = torch.autograd.grad(critic(tokens, kinds(tokens))[:, lag].sum(), tokens)
        seen = gradient.abs().amax([0, 2, 3]) > 0
        assert seen.tolist() == [other >= lag for other in range(7)]


def test_attention_carries_information_between_lags():
    critic, tokens = dynamics(attention=False), torch.randn(6, 7, 2, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(tokens, kinds(tokens))[:, 0].sum(), tokens)
    assert gradient[:, 1:].abs().max() == 0


def test_logits_of_structure_do_not_depend_on_image_frame_of_reference_or_order():
    spec = random_spec(2, 0.55)
    box, types = liquid_box(60, 33.0), torch.arange(60) % 2
    x = jittered_lattice(60, box, 0.3, 0)
    critic = StructureDiscriminator(spec.n_parameters)
    torch.nn.init.normal_(critic.linear.weight)

    def logits(x, box, types):
        return critic(basis(x[None], box[None], types, spec))

    expected = logits(x, box, types)
    assert expected.shape == (1,) and expected.abs() > 0.1
    images = torch.randint(-3, 4, x.shape).double() @ box
    torch.testing.assert_close(logits(x + images + 0.3, box, types), expected, rtol=1e-6, atol=1e-7)
    order = torch.randperm(len(x))
    torch.testing.assert_close(logits(x[order], box, types[order]), expected, rtol=1e-6, atol=1e-7)
    # A cubic box may be mirrored and its axes swapped; a free rotation is checked on a cluster in a large box.
    torch.testing.assert_close(logits(-x[:, [2, 0, 1]], box, types), expected, rtol=1e-6, atol=1e-7)
    large, cluster = 10 * torch.eye(3), x[(x - 0.6).norm(dim=1) < 0.5]
    some = types[: len(cluster)]
    turned = cluster @ o3.rand_matrix().T
    torch.testing.assert_close(
        logits(turned, large, some), logits(cluster, large, some), rtol=1e-6, atol=1e-7
    )


def test_logits_of_structure_are_linear():
    critic, inputs = StructureDiscriminator(5), torch.randn(20, 5)
    assert torch.equal(critic(inputs), torch.zeros(20))
    torch.nn.init.normal_(critic.linear.weight)
    torch.testing.assert_close(critic(inputs), inputs @ critic.slope)


def test_a_critic_learns_to_tell_two_diffusions_apart():
    """Brownian windows whose long lags alone differ are told apart by the long lags' logits."""
    torch.set_default_dtype(torch.float32)
    critic = DynamicsDiscriminator(torch.ones(2, 7, 2))
    optimizer = torch.optim.Adam(critic.parameters(), 3e-3)
    speed = torch.ones(8)
    speed[6:] = 1.6

    def sample(slow):
        return (torch.randn(256, 8, 3) * (1.0 if slow else speed[:, None])).cumsum(1)

    for _ in range(150):
        loss = torch.nn.functional.softplus(-logits(critic, sample(True))).mean()
        loss = loss + torch.nn.functional.softplus(logits(critic, sample(False))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        gap = (logits(critic, sample(True)) - logits(critic, sample(False))).mean(0)
    assert gap[6] > 0.3 and gap[5] > 0.3, gap


def test_products_of_increments_of_chance_have_mean_zero_and_variance_one():
    generator = torch.Generator().manual_seed(2)
    found = IncrementProducts(5)(torch.randn([20_000, 5, 3], generator=generator) / 3**0.5)
    assert found.shape == (20_000, 15)
    # Of 20 000 values the mean is known to 0.007, the variance of a square to 0.03.
    assert found.mean(0).abs().max() < 0.04 and (found.var(0) - 1).abs().max() < 0.2


def test_linear_maps_with_channels_first_are_those_of_their_libraries():
    ours = EquivariantLinear("5x0e + 3x1o", "2x0e + 4x1o")
    scalars, vectors = torch.randn(5, 7, 6), torch.randn(3, 3, 7, 6)
    joined = torch.cat([scalars, vectors.flatten(0, 1)]).permute(1, 2, 0)
    expected = o3.Linear.forward(ours, joined).permute(2, 0, 1)
    found = ours(scalars, vectors)
    assert found[1].shape == (4, 3, 7, 6)
    torch.testing.assert_close(torch.cat([found[0], found[1].flatten(0, 1)]), expected)
    plain = Linear(5, 4)
    torch.testing.assert_close(
        plain(scalars).movedim(0, -1),
        torch.nn.functional.linear(scalars.movedim(0, -1), plain.weight, plain.bias),
    )
