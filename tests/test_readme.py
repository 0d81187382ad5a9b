"""The README's example runs as it stands, only shorter."""
import os
import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).resolve().parents[1] / 'README.md').read_text('utf-8')


def test_the_example_runs_from_another_folder(tmp_path):
    example, = re.findall(r'```python\n(.*?)```', README, re.S)
    assert len(example.splitlines()) <= 12
    short = example.replace('minutes=1', 'samples=4096')
    assert short != example
    env = os.environ | {'BOARDLAW_OUTPUT': str(tmp_path / 'output'), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([sys.executable, '-c', short], cwd=tmp_path, env=env, text=True,
                          capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    winrate, law = done.stdout.splitlines()
    assert 0 <= float(winrate) <= 1
    assert law == 'Ten times the compute buys 506 Elo.'     # 505.6 in the refit of Table III
    assert [path.name for path in (tmp_path / 'output').iterdir()] == ['pavlov']


def test_the_files_that_it_links_to_exist():
    for link in re.findall(r'\]\(([^)]+)\)', README):
        assert link.startswith('https://') or (Path(__file__).parents[1] / link).exists(), link
