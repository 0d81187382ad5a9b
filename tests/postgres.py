"""A PostgreSQL server of one's own, on a socket in a temporary folder, for as long as a block."""
import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path


class Absent(Exception):
    """What it takes is not installed; the message says what."""


def _programs():
    if found := shutil.which('initdb'):
        return Path(found).resolve().parent
    folders = sorted(Path('/usr/lib/postgresql').glob('*/bin'))   # where Debian puts them
    if not folders or not (folders[-1] / 'initdb').exists():
        raise Absent('no PostgreSQL server is installed: on Debian, apt install postgresql')
    return folders[-1]


@contextlib.contextmanager
def server():
    """Yields the server's URL, which has a password in it, to see whether it is ever shown."""
    try:
        import psycopg
    except ImportError as e:
        raise Absent('psycopg is not installed: pip install "boardlaw[postgres]"') from e
    programs, as_user = _programs(), {}
    folder = Path(subprocess.check_output(['mktemp', '-d', '-t', 'pgXXXXXX'], text=True).strip())
    if os.getuid() == 0:     # PostgreSQL refuses to run as root
        import pwd
        user = pwd.getpwnam('nobody')
        as_user = {'user': user.pw_uid, 'group': user.pw_gid, 'extra_groups': []}
        os.chown(folder, user.pw_uid, user.pw_gid)
    started = None
    try:
        subprocess.run([programs / 'initdb', '-D', folder / 'data', '-U', 'me', '-A', 'trust', '-N',
                        '-E', 'UTF8'], check=True, cwd=folder, stdout=subprocess.DEVNULL, **as_user)
        started = subprocess.Popen(
            [programs / 'postgres', '-D', folder / 'data', '-k', folder, '-h', '', '-F'],
            cwd=folder, stderr=subprocess.DEVNULL, **as_user)
        for _ in range(300):
            try:
                psycopg.connect(host=str(folder), user='me', dbname='postgres').close()
                break
            except psycopg.OperationalError:
                time.sleep(.1)
        yield f'postgresql+psycopg://me:secret@/postgres?host={folder}'
    finally:
        if started:
            started.send_signal(signal.SIGINT)
            started.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
