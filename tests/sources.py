"""The files of the repository, or of an sdist or image that was made of it."""
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What is made in the repository's folder, and in any.
MADE = {'.git', '.venv', '_build', 'output', 'build', 'dist', 'PKG-INFO', 'setup.cfg'}
MADE_ANYWHERE = {'__pycache__', '.pytest_cache', '.ruff_cache', '.hypothesis',
                 '.ipynb_checkpoints', 'node_modules'}


def shipped():
    """Their names, relative to :data:`ROOT`."""
    try:
        listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True,
                                check=True).stdout
        names = [os.fsdecode(name) for name in listed.split(b'\0') if name]
    except (OSError, subprocess.CalledProcessError):
        found = [p.relative_to(ROOT) for p in ROOT.rglob('*')]
        names = [str(p) for p in found if p.parts[0] not in MADE and '.egg-info' not in str(p)
                 and not MADE_ANYWHERE & set(p.parts)]
    return sorted(name for name in names if (ROOT/name).is_file())
