"""Nothing of a person, a machine or an account is in any file that is shipped."""
import getpass
import io
import json
import os
import re
import socket
import zipfile
from pathlib import Path

import pytest
from sources import ROOT, shipped

from boardlaw import pavlov, training

#: What looks like a key, whose-ever it is.
KEYS = {
    'a private key': rb'-----BEGIN [A-Z ]*PRIVATE KEY',
    'a key of AWS': rb'\bAKIA[0-9A-Z]{16}\b',
    'a token of GitHub': rb'\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{30}',
    'a token of a model host': rb'\bhf_[A-Za-z0-9]{30}|\bsk-[A-Za-z0-9-]{32}',
    'a key of Backblaze': rb'\bK00[0-9][A-Za-z0-9+/]{27}\b',
    'a password in an address': rb'://[^\s/:@"\'{}<]+:[^\s/@"\'{}<]+@(?!host|127|/|x\b)',
    "a person's folder": rb'/(?:home|Users)/(?!boardlaw/|me/|jovyan/)[\w.-]+/|(?<![\w.])/root/',
}
#: Variables of the environment whose values are no secret and may occur in any text.
PLAIN = {'1', '0', 'true', 'false', 'cpu', 'en_US.UTF-8', 'C.UTF-8', 'utf-8', 'root', '/'}


def files():
    return [ROOT/name for name in shipped() if ROOT/name != Path(__file__)]


def contents(path):
    """A file's bytes, and those of the parts of a zip file."""
    data = path.read_bytes()
    yield data
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as z:
            yield from map(z.read, z.namelist())


def personal():
    """What is of this machine and this user alone, by name."""
    found = {}
    for name, value in os.environ.items():
        secret = re.search('KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|USER|HOST|HOME', name)
        if secret and len(value) >= 6 and value not in PLAIN and not str(ROOT).startswith(value):
            found[f'the variable {name}'] = value.encode()
    found['the name of this machine'] = socket.gethostname().encode()
    found['the folder of this user'] = str(Path.home()).encode()
    found['the folder of this repository'] = str(ROOT).encode()
    try:
        found['the name of this user'] = getpass.getuser().encode()
    except (OSError, KeyError):   # there is none
        pass
    # Names that say nothing, and the two folders of the Dockerfile.
    common = {b'runner', b'boardlaw', b'localhost', b'/home/boardlaw', b'/home/boardlaw/boardlaw'}
    return {k: v for k, v in found.items() if len(v) >= 6 and v not in common}


def test_no_key_path_or_variable_is_shipped():
    found, own = [], personal()
    all_files = files()
    assert len(all_files) > 100
    for path in all_files:
        for data in contents(path):
            found += [f'{path}: {what}: {m[0][:80]!r}' for what, pattern in KEYS.items()
                      for m in [re.search(pattern, data)] if m]
            found += [f'{path}: {what}' for what, value in own.items() if value in data]
    assert found == []


def test_no_environment_is_in_any_run():
    runs = [p for p in files() if p.name == '_info.json']
    assert runs
    for path in runs:
        info = json.loads(path.read_text(encoding='utf-8'))
        assert info.get('_env', {}) == {}, path


@pytest.mark.parametrize('what, text', [
    ('a private key', '-----BEGIN RSA PRIVATE KEY'), ('a key of AWS', 'AKIA' + 'A1'*8),
    ('a token of GitHub', 'ghp_' + 'aB3d'*9), ('a key of Backblaze', 'K001' + 'aB3'*9),
    ('a password in an address', 'postgres://me:hunter2@db.example.org/x'),
    ("a person's folder", '/home/someone/x'), ("a person's folder", '"/root/x"')])
def test_what_is_looked_for_would_be_found(what, text):
    assert re.search(KEYS[what], text.encode())


def test_a_training_leaves_nothing_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv('B2_APPLICATION_KEY', 'K001verysecretverysecretverys')
    monkeypatch.setenv('SOME_VARIABLE', 'a value that stands nowhere else')
    monkeypatch.setenv('BOARDLAW_DB', 'postgresql+psycopg://me:verysecret@host/x')
    with pavlov.use_root(tmp_path):
        training.train(3, 2, 1, n_envs=16, buffer_len=4, n_nodes=4, samples=200, progress=False)
    files = [p for p in tmp_path.rglob('*') if p.is_file()]
    assert len(files) > 20
    for path in files:
        for data in contents(path):
            for secret in (b'verysecret', b'stands nowhere else', b'SOME_VARIABLE', b'B2_APP',
                           str(Path.home()).encode() + b'/', str(tmp_path).encode()):
                assert secret not in data, (path, secret)
