"""Adam that whitens: plain where it is told to be, soon there where one direction is loud and another faint, resumable."""

import pytest
import torch

from openmm_cgadv.methods.adversarial.whitened_adam import WhitenedAdam

TURN = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
STEEP, FAINT = 1.0, 0.03
CURVATURE = TURN @ torch.diag(torch.tensor([STEEP, FAINT], dtype=torch.float64)) @ TURN.T
NOISE = TURN @ torch.diag(torch.tensor([STEEP, FAINT], dtype=torch.float64)) * 0.5


def descend(whitened: bool, steps: int, seed: int) -> torch.Tensor:
    """Mean place [2], along the steep and the faint direction, in the second half of a descent from (1, 1) along
    gradients of which every part is as much signal as noise."""
    random = torch.Generator().manual_seed(seed)
    x = torch.nn.Parameter(TURN @ torch.ones(2, dtype=torch.float64))
    optimizer = WhitenedAdam([{"params": [x], "lr": 0.02, "whitened": whitened}], betas=(0.5, 0.95))
    places = []
    for _ in range(steps):
        x.grad = CURVATURE @ x.detach() + NOISE @ torch.randn(
            2, generator=random, dtype=torch.float64
        )
        optimizer.step()
        places.append(TURN.T @ x.detach())
    return torch.stack(places[steps // 2 :]).mean(0)


@pytest.mark.parametrize("seed", range(3))
def test_a_faint_direction_arrives_beside_a_loud_one(seed):
    plain, whitened = descend(False, 400, seed).abs(), descend(True, 400, seed).abs()
    assert plain[0] < 0.15 and plain[1] > 0.4
    assert whitened[0] < 0.15 and whitened[1] < 0.3


def test_without_whitening_it_is_adam():
    start = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    pair = (
        WhitenedAdam([{"params": [ours]}], betas=(0.5, 0.95)),
        torch.optim.Adam([theirs], 1e-3, betas=(0.5, 0.95)),
    )
    for _ in range(50):
        for x, optimizer in zip((ours, theirs), pair):
            x.grad = (x.detach() ** 3 - 0.1).clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_a_descent_goes_on_from_its_state():
    def grown(optimizer, parameters, steps):
        for _ in range(steps):
            for k, x in enumerate(parameters):
                x.grad = torch.sin(x.detach() * (k + 1)) + x.detach().sum()
            optimizer.step()

    def fresh():
        parameters = [torch.nn.Parameter(torch.ones(n, dtype=torch.float64)) for n in (2, 3, 1)]
        groups = [
            {"params": parameters[:2], "lr": 0.02, "whitened": True},
            {"params": parameters[2:], "lr": 0.01},
        ]
        return WhitenedAdam(groups), parameters

    whole, expected = fresh()
    grown(whole, expected, 10)
    first, parameters = fresh()
    grown(first, parameters, 4)
    second, goes_on = fresh()
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        for x, y in zip(goes_on, parameters):
            x.copy_(y)
    grown(second, goes_on, 6)
    assert all(torch.equal(x, y) for x, y in zip(goes_on, expected))
