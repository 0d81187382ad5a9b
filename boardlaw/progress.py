"""The progress bar of a training."""
import time

from tqdm import tqdm


class Bar:
    """A context with a bar: rates since its last change, compute so far, loss, time left.

    Args:
        run: what trains, with `run`, its name; `done()`, from 0 to 1; `trainer`, `config`, `loss`.
        shown: whether to show it.
    """

    def __init__(self, run, shown):
        self.run, self.shown = run, shown

    def __enter__(self):
        form = '{desc}{percentage:3.0f}%|{bar:16}| {elapsed}<{remaining}{postfix}'
        self.bar = tqdm(total=1., initial=min(1., self.run.done()), disable=not self.shown,
                        desc=self.run.run, bar_format=form)
        self.at, self.steps = time.monotonic(), self.run.trainer.step
        return self

    def __exit__(self, *exc):
        self.update(last=True)
        self.bar.close()

    def update(self, last=False):
        now, trainer, config = time.monotonic(), self.run.trainer, self.run.config
        if not (self.shown and (last or now - self.at > .5)):
            return
        rate = (trainer.step - self.steps)*config.n_envs/max(now - self.at, 1e-9)
        self.at, self.steps = now, trainer.step
        parts = [f'{trainer.n_flops:.1e} FLOPs',
                 *(f'{k} {x:.3f}' for k, x in self.run.loss.items())]
        if not last:
            sims = rate*(config.n_nodes - 1)
            parts = [f'{_short(rate)} samples/s', f'{_short(sims)} sims/s', *parts]
        if not trainer.buffer.full:
            parts.append('filling the buffer')
        self.bar.n = min(1., self.run.done())
        self.bar.set_postfix_str(', '.join(parts))


def _short(x):
    return f'{x/1e6:.1f}M' if x >= 1e6 else f'{x/1e3:.1f}k' if x >= 1e3 else f'{x:.0f}'
