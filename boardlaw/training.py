"""A training as a run on disk: how long it lasts, its snapshots and savepoints, statistics, resume.

A run's `storage.latest.pkl` holds everything that the next step depends on. It is replaced at
savepoints, and a run that was killed goes on from there: later statistics are cut off and made
again, so that on a CPU a resumed run ends as one that was never stopped. `storage.snapshot.{n}.pkl`
holds the agent alone, at the n-th of a schedule of compute.

Explained in the chapter book/training.ipynb.
"""
import logging
import math
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
import torch

from .pavlov import CorruptFile, NotFound, files, logs, runs, stats, storage
from .progress import Bar
from .selfplay import BadConfig, Config, Trainer
from .threads import torch_threads

log = logging.getLogger(__name__)

#: Train FLOPs of the first and the last of the paper's 21 snapshots, by board size.
FLOPS = {3: (1e9, 1e12), 4: (1e10, 1e13), 5: (1e11, 3e13), 6: (1e11, 4e14), 7: (1e11, 1e16),
         8: (1e11, 3e16), 9: (1e12, 1e17)}

#: Samples at which the paper's runs stopped, if they had not reached their last snapshot before.
SAMPLES = {4: 2e8, 5: 3e8, 6: 6e8, 7: 1e9, 8: 1.5e9, 9: 2e9}

WRITER = 'training'    # the name under which a run's statistics are written
VERSION = 1            # of the 'training' part of a savepoint
STATS_EVERY = 8        # learner steps from one row of statistics to the next
NOISE_EVERY = 512      # learner steps from one measurement over the whole buffer to the next


class Diverged(RuntimeError):
    """The loss or a gradient is no longer a finite number.

    What to do: train again with a smaller learning rate; the last savepoint is from before.
    """


def schedule(boardsize):
    """Train FLOPs at which the paper took snapshots: `[21]`, evenly spaced in the logarithm.

    Boards smaller than the paper's have the range of 3x3. For larger ones the range of 9x9 ends at
    seven times the compute for each further size, as perfect play does in the paper.
    """
    lo, hi = FLOPS[min(max(boardsize, 3), 9)]
    return np.logspace(np.log10(lo), np.log10(hi*7**max(boardsize - 9, 0)), 21)


def train(boardsize=None, width=None, depth=None, *, n_envs=None, buffer_len=None, batch_size=None,
          lr=None, n_nodes=None, c_puct=None, rule=None, noise_eps=None, dirichlet_alpha=None,
          seed=None, minutes=None, samples=None, flops=None, snapshots=None, description=None,
          resume=None, device='cpu', progress=True, save_seconds=60.):
    """Trains an agent by self-play, or goes on with a training that stopped.

    Args:
        boardsize, width, depth: the board and the network. Needed unless `resume` is given.
        n_envs, buffer_len, batch_size, lr, n_nodes, c_puct, rule, noise_eps, dirichlet_alpha, seed:
            see :class:`boardlaw.selfplay.Config`, which has the defaults. By default `n_envs` is
            512 on a CPU and the paper's 32768 on a GPU.
        minutes, samples, flops: where to stop, whichever comes first: at this many minutes of
            training, samples (positions searched) or FLOPs, counted from the beginning of the run.
            Without any the run stops as the paper's did, after its last snapshot or at
            :data:`SAMPLES`.
        snapshots: train FLOPs, ascending, at which to save the agent; by default :func:`schedule`.
            Those of a run to go on with may be followed by later ones.
        description: of the run, by default 'bee/<boardsize>' as for the paper's.
        resume: a run to go on with, by name or index (-1 is the newest). It keeps its settings, and
            its limits unless new ones are given.
        device: 'cpu' or 'cuda'.
        progress: whether to show a progress bar.
        save_seconds: seconds between savepoints. A run that is killed loses the work since the last
            one.

    Returns:
        The name of the run. Its agent is in `pavlov.storage.load_latest(run)` and the snapshots.

    Raises:
        BadConfig: a setting is out of range, or differs from that of the run to resume.
        Diverged: the loss is no longer finite; the last savepoint is intact.
        RuntimeError: another process is training this run.
        OSError: the disk is full or read-only; the last savepoint is intact.
    """
    given = {k: v for k, v in locals().items() if v is not None and k in _SETTINGS}
    device = _device(device)
    limits = {k: v for k, v in [('minutes', minutes), ('samples', samples), ('flops', flops)]
              if v is not None}
    _check(limits, snapshots, save_seconds)
    if resume is None:
        if missing := {'boardsize', 'width', 'depth'} - given.keys():
            raise BadConfig(f'to train a new agent, give {", ".join(sorted(missing))}; to go on '
                            'with an old one, give resume')
        config = Config(**{'n_envs': 512 if device.type == 'cpu' else 32768} | given)
        extra = {} if snapshots is None else {'snapshots': [float(x) for x in snapshots]}
        run = runs.new_run(description or f'bee/{config.boardsize}',
                           config.params() | {'limits': limits} | extra)
    else:
        run = runs.resolve(resume)
        config = _config(run, given, snapshots)
        changed = {'limits': limits} if limits else {}
        if snapshots is not None:
            changed['snapshots'] = [float(x) for x in snapshots]
        if changed:
            with runs.update(run) as info:
                info['params'] |= changed
    # Torch's parallel regions over the tensors of a small network only wait for each other.
    small = config.batch_size*config.flops_per_sample/config.n_nodes < 2e7
    with _signals() as stopped, torch_threads(1 if small else None), \
            runs.claim(run, 'train'), logs.to_run(run):
        _Run(run, config, device).train(progress, save_seconds, stopped)
    return run


_SETTINGS = {field.name for field in fields(Config)}


class _Run:
    """A run under way: a Trainer, and what of it has been written."""

    def __init__(self, run, config, device):
        self.run, self.config = run, config
        params = runs.info(run)['params']
        self.limits = params['limits']
        self.flops = params.get('snapshots') or schedule(config.boardsize)
        try:
            self.trainer = Trainer(config, device)
        except BadConfig as e:
            raise BadConfig(f'Run "{run}": {e}') from e
        self.n_reported, self.runtime, self.cputime, offsets = 0, 0., 0., {}
        try:
            offsets = self._load(storage.load_latest(run))
            log.info('Resuming at %d samples', self.trainer.n_samples)
        except NotFound:   # it is new, or was killed before its first savepoint
            if storage.LATEST in runs.info(run)['_files']:
                raise
            log.info('Starting')
        stats.truncate(run, offsets, WRITER)
        self.n_snapshots = int(np.searchsorted(self.flops, self.trainer.n_flops, side='right'))
        saved = runs.info(run)['_files']
        while self.n_snapshots and storage.SNAPSHOT.format(n=self.n_snapshots - 1) not in saved:
            self.n_snapshots -= 1   # the last is written after the savepoint of its step
        self.loss = {}

    def train(self, progress, save_seconds, stopped):
        """Steps until a limit is reached, or `stopped` holds something."""
        trainer = self.trainer
        began, began_cpu = time.monotonic() - self.runtime, time.process_time() - self.cputime
        window = max(1, min(STATS_EVERY, self.config.buffer_len))
        bar = Bar(self, progress)
        with stats.to_run(self.run, WRITER, append=True) as writer, bar:
            saved = time.monotonic()
            while self.done() < 1 and not stopped:
                due = (trainer.n_learnt + 1) % window == 0 and trainer.buffer.full
                measured = trainer.advance(measure=due)
                self.runtime = time.monotonic() - began
                self.cputime = time.process_time() - began_cpu
                if self.done() < 1:
                    self.snapshot()
                if due:
                    self.report(measured)
                    if trainer.n_learnt % NOISE_EVERY == 0:
                        self.report_noise()
                bar.update()
                settled = due or trainer.n_learnt == 0
                if settled and time.monotonic() - saved >= save_seconds:
                    self.save(writer)
                    saved = time.monotonic()
            self.report({})
            self.save(writer)
            self.snapshot()   # whoever sees a run's last snapshot finds its savepoint finished too
        log.info('Interrupted' if stopped else 'Finished')

    def done(self):
        """How much of its way the run has gone, 1 at the end."""
        t = self.trainer
        if self.limits:
            gone = {'minutes': self.runtime/60, 'samples': t.n_samples, 'flops': t.n_flops}
            return max(gone[k]/limit for k, limit in self.limits.items())
        by_samples = t.n_samples/SAMPLES.get(self.config.boardsize, math.inf)
        return max(t.n_flops/self.flops[-1], by_samples)

    def snapshot(self):
        """Saves the agent once for each point of the schedule that has been reached."""
        while self.n_snapshots < len(self.flops) \
                and self.trainer.n_flops >= self.flops[self.n_snapshots]:
            storage.save_snapshot(self.run, self.n_snapshots, self.agent())
            log.info('Snapshot %d at %.2e FLOPs', self.n_snapshots, self.trainer.n_flops)
            self.n_snapshots += 1

    def agent(self):
        """The agent, in the layout of 2021."""
        network = {f'network.{k}': x for k, x in self.trainer.network.state_dict().items()}
        search = {'kwargs.n_nodes': self.config.n_nodes, 'kwargs.c_puct': self.config.c_puct}
        return {'agent': network | search, 'n_flops': self.trainer.n_flops,
                'n_samples': self.trainer.n_samples, 'runtime': self.runtime,
                'cputime': self.cputime}

    def save(self, writer):
        """Replaces the savepoint: the agent, and under 'training' all that it takes to go on."""
        state = self.trainer.state_dict()
        state |= {'version': VERSION, 'config': self.config.params(), 'stats': writer.offsets(),
                  'n_reported': self.n_reported}
        state.pop('network')   # it is the agent's
        storage.save_latest(self.run, self.agent() | {'training': state})

    def _load(self, saved):
        """Restores a savepoint and returns where its statistics ended."""
        file = files.path(self.run, storage.LATEST)
        state = saved.get('training')
        if state is None:
            raise BadConfig(f'Run "{self.run}" cannot be resumed: "{file}" holds an agent only, as '
                            'runs of 2021 do')
        try:
            if state['version'] != VERSION:
                raise ValueError(f'version {state["version"]}, this package reads {VERSION}')
            if state['config'] != self.config.params():
                raise ValueError('it was made with other settings than the run\'s')
            network = {k.removeprefix('network.'): x for k, x in saved['agent'].items()
                       if k.startswith('network.')}
            self.trainer.load_state_dict(state | {'network': network})
            self.n_reported = int(state['n_reported'])
            self.runtime, self.cputime = float(saved['runtime']), float(saved['cputime'])
            offsets = {str(file): int(n) for file, n in state['stats'].items()}
            if not (0 <= self.n_reported <= self.trainer.n_learnt and self.runtime >= 0
                    and self.cputime >= 0 and min(offsets.values(), default=0) >= 0):
                raise ValueError('its counts or times are impossible')
            return offsets
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError,
                AttributeError) as e:
            raise CorruptFile(f'"{file}" is not a savepoint of this run: {e}') from e

    def report(self, measured):
        """Writes a row of statistics on the learner steps since the last.

        Beside what :mod:`boardlaw.learning` measures: `count.*`, how many games ended (traj),
        steps of all games (inputs, chunks), samples, simulations (n_nodes - 1 a sample) and learner
        steps there were; and the rates of these, where sample-rate.actor is of positions searched
        and sample-rate.learner of positions learnt from.

        Args:
            measured: what the Trainer measured in the newest step, if it did.
        """
        trainer, steps = self.trainer, self.trainer.n_learnt - self.n_reported
        if steps == 0:
            return
        rows = _numbers(measured | trainer.games(steps))
        self.n_reported = trainer.n_learnt
        self.loss = {k: rows[f'loss.{k}'][0] for k in ('policy', 'value') if measured} or self.loss
        bad = [k for k in ('loss.policy', 'loss.value', 'grad.norm')
               if not all(map(math.isfinite, rows.get(k, ())))]
        if bad:
            raise Diverged(f'{" and ".join(bad)} of run "{self.run}" became infinite or nan at '
                           f'{trainer.n_samples} samples. Train again with a smaller lr than '
                           f'{self.config.lr}; the last savepoint is from before')
        samples = steps*self.config.n_envs
        counts = {'traj': int(rows['traj-length'][1]), 'inputs': steps, 'chunks': steps,
                  'samples': samples, 'sims': samples*(self.config.n_nodes - 1),
                  'learner-steps': steps}
        for name, count in counts.items():
            stats.cumsum(f'count.{name}', count)
        for channel, count in [('sample-rate.actor', samples), ('sim-rate', counts['sims']),
                               ('sample-rate.learner', steps*self.config.batch_size),
                               ('step-rate.chunks', steps), ('step-rate.inputs', steps),
                               ('step-rate.learner', steps)]:
            stats.rate(channel, count)
        for channel, row in rows.items():
            if all(map(math.isfinite, row)):
                (stats.mean if len(row) == 2 else stats.max)(channel, *row)
        if trainer.device.type == 'cuda':
            _report_gpu(trainer.device)

    def report_noise(self):
        """Writes the noise scales of the whole buffer: the parts that the database keeps, too."""
        for kind, found in self.trainer.noise_scales().items():
            row = {name: float(x) for name, x in found.items()}
            stats.mean(f'noise.{kind}', row.pop('trace'), row.pop('signal'))
            for name, x in row.items():
                stats.silent(f'noise.{name}.{kind}', x)


def _numbers(measured):
    """The same dict with floats for 0-d tensors, fetched from the device all at once."""
    tensors = [x.double() for row in measured.values() for x in row]
    values = iter(torch.stack(tensors).tolist())
    return {channel: [next(values) for _ in row] for channel, row in measured.items()}


def _report_gpu(device):
    stats.max_percent('gpu-memory', torch.cuda.max_memory_reserved(device)
                      / torch.cuda.get_device_properties(device).total_memory)
    try:
        readings = {'gpu-util': torch.cuda.utilization(device),
                    'gpu-power': torch.cuda.power_draw(device)/1000,
                    'gpu-temp': torch.cuda.temperature(device)}
    except (ModuleNotFoundError, RuntimeError):   # it takes the optional package nvidia-ml-py
        return
    for channel, x in readings.items():
        stats.mean(channel, x, 1)


def _device(name):
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise BadConfig(f'device {name!r}: choose "cpu" or "cuda"') from e
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise BadConfig(f'device {name!r}: torch finds no GPU here; choose "cpu"')
    return device


def _check(limits, snapshots, save_seconds):
    for name, x in limits.items():
        if not (isinstance(x, (int, float)) and 0 < x < math.inf):
            raise BadConfig(f'{name} {x!r}: choose a positive number')
    if snapshots is not None:
        steps = np.asarray(snapshots, float)
        if not (steps.ndim == 1 and len(steps) and (np.diff(steps) > 0).all() and steps[0] > 0
                and np.isfinite(steps).all()):
            raise BadConfig('snapshots must be positive numbers of FLOPs in ascending order')
    if not save_seconds >= 0:
        raise BadConfig(f'save_seconds {save_seconds!r}: choose a number of seconds')


def _config(run, given, snapshots):
    """The Config of a run to resume."""
    info = runs.info(run)
    params, kept = info.get('params'), info['_files']
    if not isinstance(params, dict) or not isinstance(params.get('limits'), dict):
        raise BadConfig(f'Run "{run}" cannot be resumed: it was not trained by this package')
    try:
        config = Config.from_params(params)
        if unknown := params['limits'].keys() - {'minutes', 'samples', 'flops'}:
            raise ValueError(f'limits of {sorted(unknown)}')
        _check(params['limits'], params.get('snapshots'), 0)
    except (TypeError, ValueError) as e:
        raise CorruptFile(f'"{runs.path(run) / runs.INFO}" does not hold the settings of a '
                          f'training: {e}'[:1000]) from e
    differ = [f'{k}={getattr(config, k)!r}, not {v!r}' for k, v in given.items()
              if getattr(config, k) != v]
    own = list(params.get('snapshots') or schedule(config.boardsize))
    if storage.SNAPSHOT.format(n=len(own) - 1) in kept and storage.LATEST not in kept:
        raise BadConfig(f'Run "{run}" was kept without its savepoint, so it cannot go on: train '
                        'anew with its settings (runs.info(run)["params"])')
    if snapshots is not None and [float(x) for x in snapshots][:len(own)] != own:
        differ.append('snapshots that do not begin with its own')
    if differ:
        raise BadConfig(f'Run "{run}" goes on with the settings that it began with: '
                        + '; '.join(differ))
    return config


@contextmanager
def _signals():
    """Lets the block end in its own time on the first SIGINT or SIGTERM, which then takes effect.

    Yields a list that is empty until then. A second signal takes effect at once. Outside of the
    main thread, where Python allows no handlers, this does nothing.
    """
    stopped, before = [], {}

    def restore():
        while before:
            signal.signal(*before.popitem())

    def handle(number, frame):
        stopped.append(number)
        restore()

    if threading.current_thread() is threading.main_thread():
        before |= {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        restore()
    if stopped:
        signal.raise_signal(stopped[0])
