"""The critic of neighbourhoods: what it must not see, what it must, and what it says of how beads should have moved."""

import pytest
import torch
from e3nn import o3
from systems import jittered_lattice, liquid_box

from openmm_cgadv.methods.adversarial.discriminators import GraphDiscriminator
from openmm_cgadv.potentials.splines import spline_weights

BEADS, LAGS, RANGE = 60, 3, 0.5


@pytest.fixture(scope="module", autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def windows(triclinic=True, beads=BEADS, seed=0):
    """Two systems of two types of beads: positions, boxes, types, and the beads judged."""
    box = liquid_box(BEADS, 25.0, triclinic)
    generator = torch.Generator().manual_seed(seed)
    steps = 0.03 * torch.randn(2, LAGS + 1, BEADS, 3, generator=generator)
    start = torch.stack([jittered_lattice(BEADS, box, 0.3, seed + k) for k in range(2)])
    positions = (start[:, None] + steps.cumsum(1))[:, :, :beads]
    judged = torch.stack([torch.randperm(beads, generator=generator)[:7] for _ in range(2)])
    return positions, box.expand(2, 3, 3), torch.arange(beads) % 2, judged


@pytest.fixture(scope="module")
def exact(double_precision):
    """A critic in double precision, with weights that are not those of the start."""
    found = GraphDiscriminator(0.05 * (torch.rand(2, LAGS, 2) + 0.5), 0.2, RANGE)
    found.standardize(*windows())
    torch.nn.init.normal_(found.gate)
    torch.nn.init.normal_(found.attention.bias)
    return found


def logits(module, positions, boxes, types, beads):
    return module(module.tokens(positions, boxes, types, beads), types[beads].flatten())


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_logits_do_not_depend_on_place_or_periodic_image(exact):
    positions, boxes, types, beads = windows()
    expected = logits(exact, positions, boxes, types, beads)
    assert expected.shape == (14, LAGS) and expected.std(0).min() > 1e-3
    close(logits(exact, positions + torch.tensor([3.0, -2.0, 0.7]), boxes, types, beads), expected)
    images = torch.randint(-3, 4, [2, 1, BEADS, 3]).double() @ boxes[0]
    close(logits(exact, positions + images, boxes, types, beads), expected)


def test_logits_do_not_depend_on_rotation_and_reflection(exact):
    positions, boxes, types, beads = windows()
    cluster = (positions[:, :1] - 0.6).norm(dim=-1).amax([0, 1]) < 0.75
    positions, types, beads = (
        positions[:, :, cluster],
        types[cluster],
        torch.arange(6).expand(2, -1),
    )
    large = (20 * torch.eye(3)).expand(2, 3, 3)
    assert len(types) > 10
    expected = logits(exact, positions, large, types, beads)
    for turn in (o3.rand_matrix(), -o3.rand_matrix(), -torch.eye(3)):
        close(logits(exact, positions @ turn.T, large, types, beads), expected)


def test_a_box_turned_onto_itself_is_the_same(exact):
    positions, boxes, types, beads = windows(triclinic=False)
    turn = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    close(
        logits(exact, positions @ turn.T, boxes, types, beads),
        logits(exact, positions, boxes, types, beads),
    )


def test_logits_follow_the_order_of_the_beads(exact):
    positions, boxes, types, beads = windows()
    expected = logits(exact, positions, boxes, types, beads)
    order = torch.randperm(BEADS)
    close(
        logits(exact, positions[:, :, order], boxes, types[order], order.argsort()[beads]), expected
    )
    shuffled = torch.randperm(7)
    found = logits(exact, positions, boxes, types, beads[:, shuffled]).unflatten(0, (2, 7))
    close(found, expected.unflatten(0, (2, 7))[:, shuffled])


def test_types_of_neighbours_are_seen(exact):
    positions, boxes, types, beads = windows()
    other = types.clone()
    other[torch.isin(torch.arange(BEADS), beads, invert=True)] ^= 1
    assert (
        logits(exact, positions, boxes, other, beads)
        - logits(exact, positions, boxes, types, beads)
    ).abs().max() > 1e-3


def test_sums_over_the_edges_are_those_over_all_pairs(exact):
    positions, boxes, types, beads = windows()
    system, lag, bead, box = 1, 2, int(beads[1, 3]), boxes[1]
    now, before, first = positions[system, lag + 1], positions[system, lag], positions[system, 0]
    apart = now - now[bead]
    apart -= torch.round(apart @ torch.linalg.inv(box)) @ box
    r = apart.norm(dim=-1)
    neighbours = ((r > 0) & (r < RANGE)).nonzero()[:, 0]
    assert len(neighbours) > 5
    expected = torch.zeros(2, 8, 18)
    for j in neighbours:
        unit = apart[j] / r[j]
        steps = [x[j] - x[bead] for x in (now - before, now - first)]
        along = [unit @ step for step in steps]
        message = torch.tensor(
            [1.0, *along, *unit, *steps[0], *steps[1], *(along[0] * unit), *(along[1] * unit)]
        )
        k, weights = spline_weights(r[j : j + 1], torch.tensor([0.2]), RANGE, 5)
        expected[types[j], int(k) : int(k) + 4] += weights[0, :, None] * message
    found = exact.messages(positions, boxes, types, beads)
    assert found.shape == (2, LAGS, 7, 10, 18)
    close(found[system, lag, 3].unflatten(0, (2, 5)), expected[:, :5])


def test_neighbours_leave_the_range_smoothly(exact):
    positions, boxes, types, beads = (
        part[:1] if k != 2 else part for k, part in enumerate(windows(beads=2))
    )
    box, beads = 5 * torch.eye(3)[None], torch.zeros(1, 1, dtype=torch.int64)

    def seen(r):
        x = positions.clone()
        x[:, :, 1] = x[:, :, 0] + r * torch.tensor([0.6, 0.0, 0.8])
        return exact.messages(x, box, types, beads)

    assert seen(RANGE + 1e-6).abs().max() == 0
    assert seen(RANGE - 1e-4).abs().max() < 1e-9 < seen(RANGE - 1e-2).abs().max()


def test_gradient_tells_how_beads_should_have_moved_and_not_how_they_should_be_arranged(exact):
    """Where beads start tells motion alone; to be elsewhere in all frames tells the arrangement alone."""
    positions, boxes, types, beads = windows()
    x = positions.clone().requires_grad_()
    weights = torch.randn(14, LAGS)

    def total(x):
        return (weights * logits(exact, x, boxes, types, beads)).sum()

    (gradient,) = torch.autograd.grad(total(x), x)
    neighbours = torch.isin(torch.arange(BEADS), beads[0], invert=True)
    assert (gradient[0, :, neighbours].abs().amax([0, 2]) > 1e-3).sum() > 10
    close(gradient.sum(1), torch.zeros(2, BEADS, 3))
    for _ in range(20):
        way = torch.zeros(x.shape)
        way[:, 0] = torch.randn(2, BEADS, 3)
        slope = (total(positions + 1e-6 * way) - total(positions - 1e-6 * way)) / 2e-6
        assert slope.item() == pytest.approx((gradient * way).sum().item(), rel=1e-6, abs=1e-6)
        way[:, 1:] = way[:, :1]
        slope = (total(positions + 1e-6 * way) - total(positions - 1e-6 * way)) / 2e-6
        assert slope.abs() > 1e-3


def test_a_lag_sees_itself_and_longer_lags_only(exact):
    positions, boxes, types, beads = windows()
    tokens = exact.tokens(positions, boxes, types, beads).requires_grad_()
    for lag in range(LAGS):
        (gradient,) = torch.autograd.grad(
            exact(tokens, types[beads].flatten())[:, lag].sum(), tokens
        )
        assert (gradient.abs().amax([0, 2]) > 0).tolist() == [other >= lag for other in range(LAGS)]


def test_messages_are_standardized_but_those_of_rare_contacts_are_small(exact):
    options = windows()
    for _ in range(2):
        exact.standardize(*options)
        tokens = exact.tokens(*options)
        numbers, arrows = (
            tokens[..., : exact.n_scalars],
            tokens[..., exact.n_scalars :].unflatten(-1, (-1, 3)),
        )
        torch.testing.assert_close(numbers.mean(0), torch.zeros(LAGS, exact.n_scalars))
        for sizes in (numbers.std(0), arrows.square().mean([0, -1]).sqrt()):
            usual = (sizes - 1).abs() < 1e-6
            assert (
                usual.float().mean() > 0.7 and sizes.max() < 1 + 1e-6 and sizes[~usual].max() < 0.99
            )


def test_a_bead_without_neighbours_is_judged(exact):
    positions = torch.randn(1, LAGS + 1, 2, 3)
    positions[:, :, 1] += 10
    found = logits(
        exact, positions, 50 * torch.eye(3)[None], torch.tensor([0, 1]), torch.tensor([[0, 1]])
    )
    assert found.shape == (2, LAGS) and found.isfinite().all()


def test_motion_that_neighbours_share_is_found():
    """Windows that no critic of single beads can tell apart: in one kind of them close pairs move together."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(2)
    length, pairs = 6.0, 40
    types = torch.zeros(2 * pairs, dtype=torch.int64)

    def sample(share, number):
        places = length * torch.rand(number, pairs, 3, generator=generator)
        start = torch.cat([places, places + torch.tensor([0.3, 0.0, 0.0])], 1)
        common = torch.randn(number, LAGS, pairs, 3, generator=generator).repeat(1, 1, 2, 1)
        own = torch.randn(number, LAGS, 2 * pairs, 3, generator=generator)
        steps = 0.02 * (share**0.5 * common + (1 - share) ** 0.5 * own)
        positions = torch.cat([start[:, None], start[:, None] + steps.cumsum(1)], 1)
        return (
            positions,
            length * torch.eye(3).expand(number, 3, 3),
            types,
            torch.arange(2 * pairs).expand(number, -1),
        )

    module = GraphDiscriminator(0.02 * torch.ones(1, LAGS, 2), 0.2, 0.44)
    module.standardize(*sample(0.5, 10))
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(60):
        real, fake = (logits(module, *sample(share, 2)) for share in (0.5, 0.0))
        loss = (
            torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(fake).mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert (logits(module, *sample(0.5, 20)) - logits(module, *sample(0.0, 20))).median() > 0.4
