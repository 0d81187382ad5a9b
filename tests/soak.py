"""What `make soak` runs: the tests of trust at length, an hour or so on two cores.

    python tests/soak.py                              # all of it
    python tests/soak.py --only kills --kills 20      # a part of it, shorter

Kills and resumes, full and read-only disks, damaged files by kind, crowds on a database, memory of
long self-play. The report, a JSON file, is written as it goes; started again, it goes on with what
is not in it yet. The exit status is 1 if anything was not as it should be.
"""
import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import crashes
import crowd
import fuzz
import memory
import postgres

from boardlaw.pavlov import disk

PARTS = ['kills', 'disks', 'damage', 'crowds', 'memory']
SHARES = {'training': .3, 'arena': .25, 'download': .25, 'sweep': .2}   # of the kills


class Report:
    """What was found so far, by part and name, on disk after each change."""

    def __init__(self, path):
        self.path = path
        self.found = json.loads(path.read_text()) if path.exists() else {}

    def put(self, part, name, result, done=False):
        self.found.setdefault(part, {})[name] = {**result, 'done': done}
        text = json.dumps(self.found, indent=2, default=str)
        disk.write_atomic(self.path, lambda f: f.write(text.encode()))

    def get(self, part, name):
        return self.found.get(part, {}).get(name, {})


def wrong(result):
    """What in a result should not be there."""
    return (list(result.get('differences', [])) + list(result.get('failures', {}).items())
            + list(result.get('errors', []) if isinstance(result.get('errors'), list) else [])
            + [k for k in ('lost', 'doubled') if result.get(k)])


def kills(options, report):
    for name, share in SHARES.items():
        def work(folder, progress, name=name, share=share):
            before = report.get('kills', name)
            so_far = before.get('kills', 0)
            found = crashes.torture(name, max(1, round(options.kills*share)) - so_far, folder,
                                    f'{options.seed} {so_far}',
                                    lambda new: progress(added(before, new)))
            return added(before, found)
        yield name, work


def added(before, new):
    """Counts of an interrupted part and of its continuation together."""
    old = {k: v for k, v in before.items() if k != 'done'}
    return {k: old[k] + v if k in old else v for k, v in new.items()}


def disks(options, report):
    for name in crashes.WORKS:
        yield name, lambda folder, progress, name=name: crashes.starve(
            name, options.limits, folder, options.seed)


def damage(options, report):
    for name in fuzz.KINDS:
        yield name, lambda folder, progress, name=name: fuzz.fuzz(
            name, options.cases, options.seed, progress)


def crowds(options, report):
    yield 'sqlite', lambda folder, progress: crowd.crowd(str(folder / 'crowd.sqlite'),
                                                         options.seconds)

    def on_postgres(folder, progress):
        try:
            with postgres.server() as url:
                return crowd.crowd(url, options.seconds)
        except postgres.Absent as e:
            return {'skipped': str(e)}
    yield 'postgres', on_postgres


def memory_of(options, report):
    yield 'self-play', lambda folder, progress: memory.flat(options.minutes, progress=progress)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.
                                     RawDescriptionHelpFormatter)
    parser.add_argument('--report', type=Path, default=Path('_build/soak/report.json'))
    parser.add_argument('--only', choices=PARTS, nargs='*', default=PARTS)
    parser.add_argument('--kills', type=int, default=200, help='in all (default: %(default)s)')
    parser.add_argument('--limits', type=int, default=20, help='of a disk, each (%(default)s)')
    parser.add_argument('--cases', type=int, default=1000, help='of each kind of file')
    parser.add_argument('--seconds', type=float, default=60, help='of each crowd')
    parser.add_argument('--minutes', type=float, default=60, help='of self-play')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    options.report.parent.mkdir(parents=True, exist_ok=True)
    report, bad = Report(options.report), 0
    parts = dict(zip(PARTS, [kills, disks, damage, crowds, memory_of]))
    for part in options.only:
        for name, work in parts[part](options, report):
            result = report.get(part, name)
            if not result.get('done'):
                began = time.time()
                with tempfile.TemporaryDirectory() as folder:
                    Path(folder).chmod(0o755)   # another user is to find the way into it
                    result = work(Path(folder) / 'work', lambda found, part=part, name=name:
                                  report.put(part, name, found))
                result['seconds'] = round(time.time() - began + result.get('seconds', 0))
                report.put(part, name, result, done=True)
            problems = wrong(result)
            bad += len(problems)
            shown = {k: v for k, v in result.items() if not isinstance(v, (list, dict))}
            print(f'{part}, {name}: {shown}', *(f'    {p}' for p in problems[:10]), sep='\n',
                  flush=True)
    print(f'{bad} problems; the report is {options.report}')
    sys.exit(bad > 0)


if __name__ == '__main__':
    main()
