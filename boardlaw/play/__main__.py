"""Ships the agents of runs: `python -m boardlaw.play RUN [RUN ...]`."""
import argparse

from . import export_run

parser = argparse.ArgumentParser(
    prog='python -m boardlaw.play', description='Puts the latest agents of runs into '
    'boardlaw/data/agents, in place of the earlier ones of their boards.')
parser.add_argument('runs', nargs='+', metavar='RUN', help='a run\'s name or a part of it')
for run in parser.parse_args().runs:
    print(export_run(run))
