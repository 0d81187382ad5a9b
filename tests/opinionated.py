"""Networks for the tests of the search, on the CPU and on a GPU."""
import torch

from boardlaw.networks import Network


def make_network(boardsize, width=16, depth=2, seed=0, sharp=4.):
    """A network whose opinions are strong enough to shape a tree."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(boardsize, width, depth)
    with torch.no_grad():
        for layer in network.body[1:]:
            layer.α.fill_(.4)
        network.policy.core.weight.mul_(sharp)
        network.value.core.weight.mul_(sharp)
    return network
