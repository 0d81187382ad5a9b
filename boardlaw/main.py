"""The command line: `python -m boardlaw <command>`.

A command is an entry in :data:`COMMANDS`; the modules that do the work are imported when their
command is run, so that `--help` is quick.
"""
import argparse
import sys


def add_train(commands):
    parser = commands.add_parser(
        'train', help='train an agent by self-play, or go on with a training that stopped',
        description='Trains an agent by self-play. What it writes goes to the folder of a run, '
        'under ./output or $BOARDLAW_OUTPUT. Ctrl-C ends it at the next savepoint; '
        '`--resume -1` goes on with the newest run.',
        epilog='Example: python -m boardlaw train --boardsize 3 --width 2 --depth 4 --minutes 2')
    what = parser.add_argument_group('what to train')
    what.add_argument('--boardsize', type=int, metavar='S', help='cells along an edge of the board')
    what.add_argument('--width', type=int, help='neurons in a layer')
    what.add_argument('--depth', type=int, help='residual layers')
    what.add_argument('--resume', metavar='RUN', help='go on with this run: its name or a part of '
                      'it, or an index (-1 is the newest)')
    what.add_argument('--description', help="of the run (default: bee/S, as the paper's)")
    until = parser.add_argument_group(
        'until when', "The first limit that is reached counts, from the run's beginning. Without "
        "any the run ends as the paper's did, after its last snapshot.")
    until.add_argument('--minutes', type=float, help='of training')
    until.add_argument('--samples', type=float, help='positions searched')
    until.add_argument('--flops', type=float, help="of training compute, in the paper's unit: "
                       'multiply-adds of forward passes in the search')
    how = parser.add_argument_group('how')
    how.add_argument('--n-envs', type=int, help='games side by side (default: 512; 32768 on a '
                     'GPU)')
    how.add_argument('--buffer-len', type=int, help='steps of each game to learn from (default: '
                     '64)')
    how.add_argument('--batch-size', type=int, help='positions of a learner step (default: n-envs)')
    how.add_argument('--lr', type=float, help='learning rate (default: 1e-3)')
    how.add_argument('--n-nodes', type=int, help='nodes of a search (default: 64)')
    how.add_argument('--c-puct', type=float, help="weight of the prior (default: the rule's)")
    how.add_argument('--rule', choices=['corrected', '2021'], help='how the weight of the prior '
                     'depends on the visits (default: corrected)')
    how.add_argument('--noise-eps', type=float, help="share of noise in the root's prior (default: "
                     '1/4)')
    how.add_argument('--dirichlet-alpha', type=float, help='its concentration (default: 10/S^2)')
    how.add_argument('--seed', type=int, help='of all random numbers (default: 0)')
    how.add_argument('--device', default='cpu', help='cpu or cuda (default: cpu)')
    how.add_argument('--save-seconds', type=float, default=60., help='time between savepoints '
                     '(default: 60)')
    how.add_argument('--quiet', dest='progress', action='store_false', help='no progress bar')
    parser.set_defaults(run=train)


def train(resume, **options):
    from . import training
    if resume is not None and resume.lstrip('-').isdecimal():
        resume = int(resume)
    run = training.train(resume=resume, **options)
    print(run)


def add_gtp(commands):
    parser = commands.add_parser(
        'gtp', help='play as a GTP engine, in HexGui for one',
        description='Speaks GTP, the Go Text Protocol, on standard input and output, so that '
        'HexGui and other programs can play our agents. Cell a1 is at the top left, black joins '
        'top to bottom.',
        epilog='Example: python -m boardlaw gtp --player solver --boardsize 5')
    parser.add_argument('--player', default='solver', help="'solver' (exact, up to 6x6), 'random', "
                        'or a run: its name or a part of it, or an index (-1 is the newest; '
                        'default: solver)')
    parser.add_argument('--boardsize', type=int, metavar='S', help="cells along an edge at the "
                        "start (default: the run's, else 3)")
    parser.add_argument('--snapshot', type=int, help="of the run (default: its latest state)")
    parser.add_argument('--n-nodes', type=int, help="nodes of a search (default: the run's)")
    parser.add_argument('--argmax', action='store_true', help='always play the move that the '
                        'search likes best; otherwise moves are sampled')
    parser.add_argument('--seed', type=int, default=0, help='of all random numbers (default: 0)')
    parser.set_defaults(run=gtp)


def gtp(player, **options):
    from .arena import gtp_server
    if player.lstrip('-').isdecimal():
        player = int(player)
    gtp_server.main(player, **options)


def add_sweep(commands):
    parser = commands.add_parser(
        'sweep', help="train and rate the paper's grid of agents, as far as the time goes",
        description="Trains the paper's networks for some boards, those that say most about the "
        'frontier first, and lets them play until their Elo is known to 25 either way. Ctrl-C ends '
        'it; started again, it goes on where it stopped. Two sweeps on one folder share the work.',
        epilog='Example: python -m boardlaw sweep --boards 3,4,5 --minutes 120')
    _add_jobs(parser)
    parser.add_argument('--minutes', type=float, help='for all of it (default: until all is done)')
    parser.add_argument('--test-boards', type=_numbers, default=(), metavar='S,S', help='boards '
                        'whose agents are rated with trees of 1, 2, 4 .. 512 nodes as well')
    parser.add_argument('--database', metavar='URL', help='path or URL of the evaluation database '
                        '(default: replica.sqlite in the folder of runs)')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: cpu)')
    where = parser.add_mutually_exclusive_group()
    where.add_argument('--workers', type=int, help='processes (default: one a core)')
    where.add_argument('--ray', metavar='ADDRESS', help="a Ray cluster: 'auto', ray://HOST:10001, "
                       "or 'local'")
    parser.add_argument('--gpus', type=float, default=0., help='with --ray: share of a GPU that a '
                        'run takes (default: 0)')
    parser.set_defaults(run=sweep)


def _add_jobs(parser):
    """What to train, for :func:`_jobs`."""
    parser.add_argument('--boards', required=True, type=_numbers, metavar='S,S', help='board sizes')
    parser.add_argument('--study', choices=['grid', 'long', 'lambda'], default='grid',
                        help="the paper's networks; the cheapest perfect one of each board, three "
                        'times as long; or both rules for lambda, side by side (default: grid)')
    parser.add_argument('--seeds', type=int, help='runs of each kind (default: 1; of lambda 3)')
    parser.add_argument('--first-seed', type=int, default=0, help='of these runs; the others have '
                        'the next ones (default: 0)')
    parser.add_argument('--runs', type=int, dest='n_runs', help='of each board at most so many, '
                        'the first of the plan')
    parser.add_argument('--networks', type=_shapes, dest='shapes', metavar='WxD,WxD', help='width '
                        "and depth of the networks to train, in place of the paper's grid, or of "
                        'the one network of the study lambda')
    parser.add_argument('--largest', type=int, metavar='N', help='leave networks with more '
                        'parameters than this out of the grid')
    parser.add_argument('--samples', type=float, metavar='N', help='samples of a run (default: as '
                        'suits its board); runs that ended with fewer go on')


def _jobs(boards, study, seeds, first_seed, n_runs, shapes, largest, samples, **others):
    """The jobs that the options of :func:`_add_jobs` ask for, and the other options."""
    from . import sweep as sweeps
    if study != 'grid' and largest or study == 'long' and shapes:
        raise ValueError('--networks and --largest choose from the grid: the study '
                         f'{study!r} takes the cheapest perfect network')
    if study == 'lambda' and shapes and len(shapes) > 1:
        raise ValueError('--networks: the study of lambda takes one network')
    seeds = range(first_seed, first_seed + (seeds or (3 if study == 'lambda' else 1)))
    if study == 'grid':
        jobs = sweeps.plan(boards, seeds, None, n_runs, largest, samples, shapes)
    elif study == 'long':
        jobs = sweeps.long_runs(boards, seeds, None, samples)[:n_runs]
    else:
        [shape] = shapes or [None]
        jobs = sweeps.lambda_study(boards, seeds, None, samples, shape)[:n_runs]
    return jobs, others


def _numbers(text):
    return [int(part) for part in text.split(',')]


def _shapes(text):
    try:
        return [(int(width), int(depth)) for width, depth in
                (part.split('x') for part in text.split(','))]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r}: give width x depth, such as 128x4,64x2') from None


def sweep(workers, ray, gpus, **options):
    from . import sweep as sweeps
    _end_on_sigterm()
    jobs, options = _jobs(**options)
    pool = sweeps.Local(workers) if ray is None else sweeps.Ray(ray, gpus)
    sweeps.sweep(jobs, pool=pool, **options)


def _end_on_sigterm():
    """A kill ends the workers too, as Ctrl-C does."""
    import signal
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def add_visit(commands):
    parser = commands.add_parser(
        'visit', help='go on with a sweep on a machine that is at hand for minutes',
        description='Goes on with a sweep from the state in a folder, trains and rates for some '
        'minutes, and writes the next state, with which any machine goes on. A state is a few '
        'files of up to 15 MiB.',
        epilog='Example: python -m boardlaw visit --boards 6,7,8 --runs 6 --device cuda --minutes '
        '8 --state output/state')
    _add_jobs(parser)
    parser.add_argument('--state', required=True, dest='source', metavar='FOLDER',
                        help='where the state is; without one there, the sweep begins')
    parser.add_argument('--to', metavar='FOLDER', help="the next state's (default: the same)")
    parser.add_argument('--minutes', type=float, default=8., help='for all of it (default: 8)')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: cpu)')
    parser.add_argument('--workers', type=int, help='processes (default: one a core; 4 on a GPU)')
    parser.set_defaults(run=visit)


def visit(**options):
    from .sweep import packs
    _end_on_sigterm()
    if options['study'] == 'grid':
        options['largest'] = min(options['largest'] or packs.LARGEST, packs.LARGEST)
    jobs, options = _jobs(**options)
    packs.visit(jobs, **options)


def add_unpack(commands):
    parser = commands.add_parser(
        'unpack', help='take home what visits have done: the runs and games of a state',
        description='Unpacks the state in a folder into ./output or $BOARDLAW_OUTPUT: runs that '
        'are not there or not as far, and games that its database lacks.')
    parser.add_argument('folder', help='where the state is')
    parser.set_defaults(run=unpack)


def unpack(folder):
    import json

    from .sweep import packs
    for done in packs.load(folder):
        print(json.dumps(done))


def add_predict(commands):
    parser = commands.add_parser(
        'predict', help='foretell what larger boards will cost, or see whether that came true',
        description='Fits the law to rated agents and writes down which training compute larger '
        'boards will take, with 90 % intervals: commit the file, train on those boards, then check '
        'it.',
        epilog='Example: python -m boardlaw predict --boards 10,11 --to predictions; later: '
        'python -m boardlaw predict --check predictions/FILE --database output/replica.sqlite')
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--boards', type=_numbers, metavar='S,S', help='the larger boards')
    what.add_argument('--check', metavar='FILE', help='a prediction, to be set beside the agents')
    parser.add_argument('--below', action='store_true', help='check it on boards whose trainings '
                        'go on: count Elo from random play, where the law has that')
    parser.add_argument('--seen', type=_numbers, metavar='S,S', help='boards to predict from '
                        '(default: all that have agents)')
    parser.add_argument('--to', default='predictions', metavar='FOLDER', help='where the '
                        'prediction is written (default: predictions)')
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--database', default='replica', metavar='URL', help='path or URL of the '
                        "evaluation database (default: the package's replica)")
    source.add_argument('--published', action='store_true', help="the paper's curves instead")
    parser.set_defaults(run=predict)


def predict(boards, check, below, seen, to, database, published):
    from . import paper
    from .paper import prediction
    if below and check is None:
        raise ValueError('--below is for a prediction to --check')
    agents = (paper.published() if published else
              paper.replica(target=database, unfinished=below))
    if check is not None:
        table = prediction.outcome(prediction.load(check), agents, below)
    else:
        agents = agents[agents.boardsize.isin(seen)] if seen else agents
        made = prediction.predict(agents, boards)
        table = made.table
    flops = [c for c in ('train_flops', 'low', 'high', 'found') if c in table]
    print(table.assign(**{c: table[c].map('{:.2e}'.format) for c in flops}).to_string(index=False))
    if check is None:
        print(prediction.save(made, to))


#: What makes each command's parser: called with the subparsers, sets `run` to a function of the
#: parsed options.
COMMANDS = [add_train, add_gtp, add_sweep, add_visit, add_unpack, add_predict]


def parser():
    """The command line's parser."""
    parser = argparse.ArgumentParser(prog='boardlaw', description='Scaling laws of board games: '
                                     'train, rate and analyse AlphaZero agents for Hex.')
    parser.add_argument('--debug', action='store_true', help='show where an error came from')
    commands = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')
    for add in COMMANDS:
        add(commands)
    return parser


def main(arguments=None):
    """Runs a command; errors of the user's making end in one line and the exit status 1."""
    options = vars(parser().parse_args(arguments))
    run, debug = options.pop('run'), options.pop('debug')
    try:
        run(**options)
    except (ValueError, LookupError, RuntimeError, OSError) as e:
        if debug:
            raise
        sys.exit(f'boardlaw: {e}')
    except KeyboardInterrupt:
        sys.exit(130)
