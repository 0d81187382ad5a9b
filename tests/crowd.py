"""Many processes on one database: writers that create it, fill it and count, readers that look."""
import multiprocessing
import queue
import time

from crashes import PATIENCE, PRELOAD

from boardlaw import sql

context = multiprocessing.get_context('forkserver')


def _guarded(function, url, *args):
    *args, results = args
    try:
        with sql.use(url):
            results.put((function.__name__, args[0], function(url, *args)))
    except Exception as e:
        results.put(('error', args[0], f'{type(e).__name__}: {e}'[:1000]))


def _write(url, k, seconds, ready):
    """Rows come in pairs that belong together; both hold who wrote them, and the how-manieth."""
    sql.create(url)   # all at once
    run = sql.add_run('a run', 'bee/3', 3, 2, 4, 64, {'seed': 1, 'params': {}})
    a, b = (sql.add_agent(sql.add_snap(run, i, i, i)) for i in range(2))
    ready.wait(PATIENCE)
    until, n = time.time() + seconds, 0
    while time.time() < until:
        rows = [{'black_agent': x, 'white_agent': y, 'black_wins': k, 'white_wins': n, 'moves': 1,
                 'times': .5, 'seed': n} for x, y in ((a, b), (b, a))]
        sql.save_trials(rows)
        n += 1
    return a, b, n


def _read(url, k, seconds, ready):
    ready.wait(PATIENCE)
    until, seen = time.time() + seconds, []
    while time.time() < until:
        seen.append(len(sql.trial_query(3)))
        time.sleep(.01)
    assert seen == sorted(seen), 'rows disappeared'
    assert all(n % 2 == 0 for n in seen), 'half a save was seen'
    return len(seen)


def crowd(url, seconds, writers=16, readers=4):
    """Lets processes create, write and read a database at once.

    Returns:
        'rows' that are there, 'lost', 'doubled', 'reads' and 'errors', a list.
    """
    context.set_forkserver_preload(PRELOAD)
    results, ready = context.Queue(), context.Barrier(writers + readers)
    processes = [context.Process(target=_guarded, args=(f, url, k, seconds, ready, results))
                 for f, n in ((_write, writers), (_read, readers)) for k in range(n)]
    for p in processes:
        p.start()
    found, errors = [], []
    for _ in processes:
        try:
            found.append(results.get(timeout=seconds + 2*PATIENCE))
        except queue.Empty:
            errors.append('a process did not end')
    for p in processes:
        p.join(10)
        if p.exitcode != 0:
            errors.append(f'exit code {p.exitcode}')
            p.kill()
    errors += [what for kind, _, what in found if kind == 'error']
    written = {k: what for kind, k, what in found if kind == '_write'}
    with sql.use(url):
        trials = sql.trial_query(3)
        agents = len(sql.agent_query())
    if written and (len({what[:2] for what in written.values()}) != 1 or agents != 2):
        errors.append('an agent was added twice')
    got = trials.groupby(['black_agent', 'black_wins', 'white_wins']).size()
    wanted = {(agent, k, i) for k, (a, b, n) in written.items() for agent in (a, b)
              for i in range(n)}
    return {'rows': len(trials), 'lost': len(wanted - set(got.index)),
            'doubled': int((got > 1).sum()), 'reads': sum(
                what for kind, _, what in found if kind == '_read'), 'errors': errors}
