"""What the network learns from: targets, losses, and the measurements taken along the way.

Self-play is kept time-major: row t of a `[T, n_envs, ...]` tensor holds step t of every game. A
target is the search's policy at the root and the reward-to-go, the result of the game that the
position belongs to.

Explained in the chapter book/training.ipynb.
"""
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch


@dataclass(frozen=True)
class Batch:
    """Positions to learn from; a :class:`boardlaw.networks.Network` can be called on it.

    Attributes:
        obs: `[batch_size, S, S, 2]` float32 in the mover's frame.
        valid: `[batch_size, n_actions]` bool.
        seats: `[batch_size]` int, the mover.
        policy: `[batch_size, n_actions]` float32, the search's policy; 0 where not valid.
        prior: `[batch_size, n_actions]` float32, the policy of the network that guided the search.
        reward_to_go: `[batch_size, n_seats]` float32.
    """
    obs: torch.Tensor
    valid: torch.Tensor
    seats: torch.Tensor
    policy: torch.Tensor
    prior: torch.Tensor
    reward_to_go: torch.Tensor

    def __getitem__(self, index):
        return Batch(*(getattr(self, field.name)[index] for field in fields(self)))


class Losses(NamedTuple):
    """Scalar tensors, means over a batch.

    Attributes:
        policy: cross entropy in nats.
        value: mean squared error, between 0 and 4.
    """
    policy: torch.Tensor
    value: torch.Tensor


def reward_to_go(rewards, terminal, bootstrap):
    """The sum of each game's rewards from each step on; no argument is changed.

    g[t] = rewards[t] + (0 if terminal[t] else g[t + 1]), with g[T] = bootstrap.

    Args:
        rewards: `[T, n_envs, n_seats]` float32, the rewards of the step taken at t.
        terminal: `[T, n_envs]` bool, whether that step ended the game.
        bootstrap: `[n_envs, n_seats]` float32, an estimate of what follows the last step, for the
            games that it did not end.

    Returns:
        `[T, n_envs, n_seats]` float32.

    >>> rewards = torch.tensor([[[0., 0.]], [[1., -1.]], [[0., 0.]]])     # 3 steps of one game
    >>> terminal = torch.tensor([[False], [True], [False]])
    >>> reward_to_go(rewards, terminal, bootstrap=torch.tensor([[.5, -.5]]))[:, 0].tolist()
    [[1.0, -1.0], [1.0, -1.0], [0.5, -0.5]]
    """
    result = torch.empty_like(rewards)
    goes_on = (~terminal).unsqueeze(-1).to(rewards.dtype)
    following = bootstrap
    for out, reward, alive in zip(*(reversed(x.unbind()) for x in (result, rewards, goes_on))):
        following = torch.addcmul(reward, alive, following, out=out)
    return result


def losses(output, batch):
    """Policy and value loss of a network's output; their sum is what is minimised.

    The policy loss is the cross entropy -sum_a target(a) log pi(a), where an action that is not
    valid or whose target underflowed to 0 has no weight. The value loss is the squared error
    between v and the reward-to-go.
    """
    weighed = (batch.policy > 0) & batch.valid
    policy = -(batch.policy*output.logits.where(weighed, 0)).sum(-1).mean()
    value = (output.v - batch.reward_to_go).square().mean()
    return Losses(policy, value)


def optimise(network, optimiser, batch):
    """One step of the optimiser on one batch.

    Returns:
        The network's Output before the step and its Losses, neither with a gradient. The gradient
        stays on the parameters until the next step.
    """
    optimiser.zero_grad(set_to_none=True)
    output = network(batch)
    loss = losses(output, batch)
    (loss.policy + loss.value).backward()
    optimiser.step()
    return type(output)(*(x.detach() for x in output)), Losses(*(x.detach() for x in loss))


def flat(tensors):
    """All of the tensors' values in one vector."""
    return torch.cat([x.detach().flatten() for x in tensors])


def gradients(network, batch):
    """The gradient of each loss on a batch, over the parameters that it depends on.

    Returns:
        {'policy': .., 'value': .., 'joint': ..} of vectors; joint is the gradient of the sum of the
        two losses, over all parameters.
    """
    params = dict(network.named_parameters())
    loss = losses(network(batch), batch)
    total = {name: 0 for name in params}
    result = {}
    for kind, other in [('policy', 'value'), ('value', 'policy')]:
        names = [name for name in params if not name.startswith(f'{other}.')]
        found = torch.autograd.grad(getattr(loss, kind), [params[name] for name in names],
                                    retain_graph=kind == 'policy')
        result[kind] = flat(found)
        total |= {name: total[name] + x for name, x in zip(names, found)}
    return result | {'joint': flat(total.values())}


def noise_scales(network, batches):
    """:func:`gradient_noise_scale` of the policy's, the value's and the joint loss.

    Args:
        batches: at least two Batches, all of one size.

    Returns:
        {'policy': .., 'value': .., 'joint': ..}.
    """
    sums, squares, n_batches = {}, {}, 0
    for batch in batches:
        for kind, x in gradients(network, batch).items():
            sums[kind] = sums.get(kind, 0) + x
            squares[kind] = squares.get(kind, 0) + x.square().mean()
        n_batches, batch_size = n_batches + 1, len(batch.seats)
    return {kind: gradient_noise_scale((sums[kind]/n_batches).square().mean(),
                                       squares[kind]/n_batches, len(sums[kind]), batch_size,
                                       n_batches) for kind in sums}


def gradient_noise_scale(mean_sq, sq_mean, n_params, batch_size, batches):
    """The simple noise scale of McCandlish et al. 2018 (arXiv 1812.06162, appendix A.1).

    B_simple = tr(Σ)/|G|^2, the batch size at which the noise in the gradient is as large as the
    gradient: Σ is the covariance of one sample's gradient, G the true gradient. Both are estimated
    without bias from gradients at two batch sizes: the batches', and that of all of them together.

    Args:
        mean_sq: the squared mean over batches of the gradient, averaged over parameters.
        sq_mean: the mean over batches of the squared gradient, averaged over parameters.
        n_params, batch_size, batches: counts; at least two batches.

    Returns:
        A dict of the arguments, under their names (which are those of the evaluation database), and
        of variance (between batches, unbiased), trace = tr(Σ) and signal = |G|^2, all divided by
        n_params. The noise scale is trace/signal; average each over many measurements before
        dividing, as the signal of one may even be negative.
    """
    variance = (sq_mean - mean_sq)*batches/max(batches - 1, 1)
    return {'mean_sq': mean_sq, 'sq_mean': sq_mean, 'n_params': n_params, 'batch_size': batch_size,
            'batches': batches, 'variance': variance, 'trace': batch_size*variance,
            'signal': mean_sq - variance/batches}


def correlation(x, y, weight):
    """Pearson's correlation of the entries of `x` and `y` where `weight` is true; nan of none."""
    weight = weight.to(x.dtype)
    n = weight.sum()
    x, y = x - (weight*x).sum()/n, y - (weight*y).sum()/n
    return (weight*x*y).sum() / ((weight*x*x).sum()*(weight*y*y).sum()).sqrt()


def diagnostics(output, batch, loss):
    """Measurements on one learner step, by channel.

    - `loss.policy`, `loss.value`: the losses.
    - `corr.resid-var`: value loss over the mean squared target: 1 for a network that knows nothing.
    - `kl-div.prior`, `kl-div.behaviour`: KL(pi || prior) and KL(pi || search policy) of the network
      now against the policy that guided the search and the one that it gave, in nats, over actions
      to which the latter gives a positive probability.
    - `rel-entropy.policy`, `rel-entropy.targets`: the entropy of the network's and of the search's
      policy over that of a uniform choice among the valid actions.
    - `policy-conc`: the greatest probability of the search's policy. (How the channel of this name
      was defined in 2021 is not documented.)
    - `{v,p}.{outputs,target}.{mean,std,max}`: of values over all seats and of log-probabilities
      over the actions that have one; max is of the absolute value.

    Returns:
        {channel: (total, count)} of 0-d tensors, to be read as mean(total)/mean(count).
    """
    one = torch.ones((), device=batch.seats.device)
    pi = output.logits.exp()
    logits = output.logits.where(batch.valid, 0)
    uniform = batch.valid.sum(-1).float().log().mean()
    log_target, weighed = _log(batch.policy)

    def divergence(reference):
        log_reference, positive = _log(reference)
        return (pi*(logits - log_reference)*positive).sum(-1).mean()

    result = {
        'loss.policy': (loss.policy, one), 'loss.value': (loss.value, one),
        'corr.resid-var': (loss.value, batch.reward_to_go.square().mean()),
        'kl-div.prior': (divergence(batch.prior), one),
        'kl-div.behaviour': (divergence(batch.policy), one),
        'rel-entropy.policy': (-(pi*logits).sum(-1).mean(), uniform),
        'rel-entropy.targets': (-(batch.policy*log_target).sum(-1).mean(), uniform),
        'policy-conc': (batch.policy.amax(-1).mean(), one)}
    everywhere = torch.ones_like(output.v, dtype=torch.bool)
    for name, x, where in [('v.outputs', output.v, everywhere),
                           ('v.target', batch.reward_to_go, everywhere),
                           ('p.outputs', logits, batch.valid), ('p.target', log_target, weighed)]:
        n = where.sum()
        mean = x.sum()/n   # x is 0 elsewhere
        std = ((x - mean).square()*where).sum().div(n).sqrt()
        result |= {f'{name}.mean': (mean, one), f'{name}.std': (std, one),
                   f'{name}.max': (x.abs().amax(), one)}
    return result


def _log(p):
    """Logarithms of the positive entries, 0 elsewhere, and a mask of the positive ones."""
    positive = p > 0
    return p.where(positive, 1).log(), positive


def step_diagnostics(network, before):
    """Measurements on one step of the optimiser, by channel.

    - `step.{std,max}`: of the change of the parameters.
    - `grad.{std,max,norm}`: of the gradient that the step used.

    Args:
        before: all parameters before the step, as :func:`flat` gives them.

    Returns:
        {channel: (maximum,)}, but `step.std` as (total, count).
    """
    params = list(network.parameters())
    step, gradient = flat(params) - before, flat(x.grad for x in params)
    return {'step.std': (step.std(), torch.ones_like(step[0])), 'step.max': (step.abs().amax(),),
            'grad.std': (gradient.std(),), 'grad.max': (gradient.abs().amax(),),
            'grad.norm': (gradient.norm(),)}


def game_diagnostics(rewards, terminal, v):
    """Measurements on consecutive steps of self-play, by channel.

    - `traj-length`: moves for each game that ended.
    - `wins.seat-{0,1}`: the share of these games that a seat won.
    - `corr.terminal`, `corr.penultimate`: correlation, over the games that ended, between the
      network's values of the last position (before the winning move) or of the one before, and
      the result. Near 1 in a network that sees what is about to happen.

    Args:
        rewards: `[k, n_envs, 2]` float32.
        terminal: `[k, n_envs]` bool.
        v: `[k, n_envs, 2]` float32, the network's values of the positions moved from.

    Returns:
        {channel: (total, count)}; a correlation over no games is nan.
    """
    games, one = terminal.sum(), torch.ones((), device=v.device)
    both = terminal.unsqueeze(-1).expand_as(v)
    # A game of a single move has no position before the last.
    longer = both[1:] & ~both[:-1]
    return {'traj-length': (one*terminal.numel(), games),
            'wins.seat-0': ((rewards[..., 0] > 0).sum(), games),
            'wins.seat-1': ((rewards[..., 1] > 0).sum(), games),
            'corr.terminal': (correlation(v, rewards, both), one),
            'corr.penultimate': (correlation(v[:-1], rewards[1:], longer), one)}
