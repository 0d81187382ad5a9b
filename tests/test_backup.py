import functools
import json
import logging
import os
import socket
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from fileserver import FileServer

from boardlaw import allowance, analysis, backup, download, pavlov
from boardlaw.arena import common
from boardlaw.pavlov import files, runs, stats, storage

b2 = pytest.importorskip('b2sdk.v3')

FIXTURE = next((Path(__file__).parent / 'fixtures/original-format/output/pavlov').iterdir())
RUN = FIXTURE.name
SECRET = 'K000-a-secret-of-somebody'
# Listed in _info.json but not there.
ABSENT = ['archive.tar.gz', 'storage.named.model.pkl']


def small_run():
    """Name -> content of some of the fixture's files, with an `_info.json` of just these."""
    kept = ('_lock', 'logs.*', 'storage.*', 'stats.corr.resid-var.*', 'stats.count.samples.*')
    held = {p.name: p.read_bytes() for pattern in kept for p in FIXTURE.glob(pattern)}
    info = json.loads((FIXTURE / '_info.json').read_text())
    info['_files'] = {n: f for n, f in info['_files'].items() if n in held or n in ABSENT}
    return held | {'_info.json': json.dumps(info).encode()}


FILES = small_run()


def published():
    """The run as the bucket holds it: with environment variables in `_info.json`."""
    info = json.loads(FILES['_info.json']) | {'_env': {'AWS_SECRET': SECRET}}
    files = FILES | {'_info.json': json.dumps(info).encode()}
    return {f'output/pavlov/{RUN}/{name}': content for name, content in files.items()}


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    """An empty output folder, no keys of whoever runs the tests, and no pauses."""
    for name in ('B2_APPLICATION_KEY_ID', 'B2_APPLICATION_KEY', 'B2_ACCOUNT_INFO',
                 'BOARDLAW_B2_URL'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path / 'home/.config'))
    monkeypatch.setenv('BOARDLAW_OUTPUT', str(tmp_path / 'output'))
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    return tmp_path / 'output'


@pytest.fixture
def server(monkeypatch):
    with FileServer(published()) as server:
        monkeypatch.setenv('BOARDLAW_B2_URL', server.url + '/')
        yield server


def folder():
    return pavlov.root() / 'pavlov' / RUN


def visible():
    return sorted(p.name for p in folder().iterdir() if not p.name.startswith('_'))


def assert_readable(n_snapshots=7):
    """pavlov finds the run and reads what has arrived."""
    assert list(runs.pandas().index) == [RUN]
    assert runs.info(RUN)['_env'] == {}
    assert storage.snapshots(RUN)['present'].sum() == n_snapshots
    weight = storage.load_snapshot(RUN)['agent']['network.policy.core.weight']
    assert tuple(weight.shape) == (9, 2)


# One agent

def test_download_agent(server):
    path = backup.download_agent(RUN, 3, progress=False)
    assert path == folder() / 'storage.snapshot.3.pkl'
    assert path.read_bytes() == FILES[path.name]
    assert visible() == ['storage.snapshot.3.pkl']
    assert_readable(n_snapshots=1)
    assert [p.rpartition('/')[2] for p, _ in server.requests] == ['_info.json', path.name]
    backup.download_agent(RUN, 3, progress=False, cap=0)
    assert len(server.requests) == 2, 'nothing is asked for twice'
    assert backup.download_agent(RUN, None, progress=False).name == 'storage.latest.pkl'


@pytest.mark.filterwarnings('ignore::boardlaw.arena.common.Rule2021')
def test_a_downloaded_agent_plays(server):
    backup.download_agent(RUN, 3, progress=False)
    agent, worlds = common.agent(RUN, 3), common.worlds(RUN, n_envs=1)
    game = analysis.record(worlds, [agent, agent], n_trajs=1)
    assert 'won' in repr(game.notebook())
    assert analysis.rollout(worlds, [agent, agent], n_trajs=1).terminal.sum() == 1


def test_address_comes_from_the_argument_before_the_environment(server, monkeypatch):
    monkeypatch.setenv('BOARDLAW_B2_URL', 'http://127.0.0.1:1')
    backup.download_agent(RUN, 0, base_url=server.url, progress=False)
    monkeypatch.delenv('BOARDLAW_B2_URL')
    assert backup._address('a run', None) == (
        'https://f002.backblazeb2.com/file/boardlaw/output/pavlov/a%20run')


def test_missing_snapshot_names_those_there_are(server):
    with pytest.raises(backup.MissingFile, match=r'numbered \[0, 1, 2, 3, 4, 5, 6\]'):
        backup.download_agent(RUN, 20, progress=False)


def test_missing_run_leaves_nothing(server, output):
    for download_it in (lambda r: backup.download_agent(r, 1, progress=False),
                        lambda r: backup.download_run(r, progress=False)):
        with pytest.raises(backup.MissingFile, match='name of a run is needed in full'):
            download_it('2021-02-20 21-11-32 intent-netz')
    assert not (output / 'pavlov').exists()


@pytest.mark.parametrize('name', ['..', '.', '', '  ', '../x', 'a/b', 'a\\b', '/etc', 'a..b', 'C:x',
                                  'a\0b', 'a\nb', None, 3])
def test_names_that_lead_elsewhere_are_refused(server, name):
    for call in (lambda: backup.download_agent(name, 1), lambda: backup.download_run(name),
                 lambda: backup.sync_up(name, 'bucket')):
        with pytest.raises(backup.BadName, match='plain name'):
            call()
    assert not server.requests


def test_page_in_place_of_a_file(server):
    server.files[f'output/pavlov/{RUN}/storage.snapshot.3.pkl'] = b'<html>Please log in</html>'
    with pytest.raises(backup.BackupError, match='not the file it should be'):
        backup.download_agent(RUN, 3, progress=False)
    assert visible() == []
    server.files[f'output/pavlov/{RUN}/_info.json'] = b'<html>Please log in</html>'
    with pytest.raises(backup.BackupError, match='not the file it should be'):
        backup.download_run(RUN, progress=False)


def test_no_network(monkeypatch):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        monkeypatch.setenv('BOARDLAW_B2_URL', f'http://127.0.0.1:{s.getsockname()[1]}')
        for call in (lambda: backup.download_agent(RUN, 1), lambda: backup.download_run(RUN)):
            with pytest.raises(backup.BackupError, match='check the network and call again'):
                call()


# A whole run over the public address

def download_run(**kwargs):
    with pytest.warns(UserWarning, match='2 of the .* files .* were skipped: archive.tar.gz, '
                                         'storage.named.model.pkl'):
        return backup.download_run(RUN, progress=False, **kwargs)


def test_download_run(server):
    assert download_run() == folder()
    assert visible() == sorted(name for name in FILES if name[0] != '_')
    for name in visible():
        assert (folder() / name).read_bytes() == FILES[name]
    assert SECRET not in (folder() / '_info.json').read_text()
    assert_readable()
    assert len(stats.pandas(RUN, 'corr.resid-var'))
    assert set(ABSENT) <= set(files.pandas(RUN).index)


def test_download_run_again_takes_only_what_is_missing(server):
    download_run()
    (folder() / 'storage.snapshot.2.pkl').unlink()
    server.requests.clear()
    download_run()
    assert sorted(p.rpartition('/')[2] for p, _ in server.requests) == sorted(
        ['_info.json', 'storage.snapshot.2.pkl', *ABSENT])


def test_interrupted_run_goes_on(server, monkeypatch):
    big = f'output/pavlov/{RUN}/logs.0.txt'
    server.files[big] = bytes(700_000)
    monkeypatch.setattr(download.fetch, '__kwdefaults__',
                        download.fetch.__kwdefaults__ | {'retries': 0})
    server.cuts = [None] + [30] * 10
    with pytest.raises(backup.BackupError, match='call again'):
        backup.download_run(RUN, workers=3, progress=False)
    partial = [p for p in folder().iterdir() if p.suffix == '.part']
    assert partial and not (folder() / 'storage.latest.pkl').exists()
    server.cuts = []
    server.requests.clear()
    download_run()
    assert 'bytes=30-' in [r for _, r in server.requests]
    assert (folder() / 'logs.0.txt').read_bytes() == bytes(700_000)
    assert not [name for name in visible() if '.part' in name]
    assert_readable()


def test_server_without_ranges(server):
    server.ranges, server.cuts = False, [None, 1000, 1000, 1000]
    download_run()
    assert_readable()


@pytest.mark.parametrize('name', ['../../evil', '/evil', 'sub/evil', '..\\evil'])
def test_hostile_list_of_files(server, name):
    info = json.loads(server.files[f'output/pavlov/{RUN}/_info.json'])
    info['_files'][name] = {}
    server.files[f'output/pavlov/{RUN}/_info.json'] = json.dumps(info).encode()
    with pytest.raises(backup.BadName):
        backup.download_run(RUN, progress=False)
    assert len(server.requests) == 1


def test_list_of_files_cannot_bring_the_environment_back(server):
    info = json.loads(server.files[f'output/pavlov/{RUN}/_info.json'])
    info['_files']['_info.json'] = {}
    server.files[f'output/pavlov/{RUN}/_info.json'] = json.dumps(info).encode()
    download_run()
    assert SECRET not in (folder() / '_info.json').read_text()


def test_a_local_file_stays_listed(server):
    download_run()
    with open(folder() / '_info.json', 'r+') as f:
        info = json.load(f)
        info['_files']['stats.mine.0.npr'] = {'_pattern': 'stats.mine.{n}.npr'}
        f.seek(0)
        json.dump(info, f)
    with pytest.warns(UserWarning, match='3 of the'):
        backup.download_run(RUN, progress=False)
    assert 'stats.mine.0.npr' in runs.info(RUN)['_files']


@pytest.mark.parametrize('refusal, error, says', [
    ((403, 'download_cap_exceeded'), backup.CapReached, 'after 00:00 UTC'),
    ((403, 'access_denied'), backup.WrongKey, 'not public'),
    ((401, 'unauthorized'), backup.WrongKey, 'B2_APPLICATION_KEY'),
    ((418, 'teapot'), backup.BackupError, 'HTTP 418')])
def test_refusals(server, refusal, error, says):
    server.refusal = refusal
    with pytest.raises(error, match=says):
        backup.download_run(RUN, progress=False)


# The daily cap

@pytest.fixture
def fine_count(monkeypatch):
    monkeypatch.setattr(allowance.Allowance, 'FLUSH', 1)


@pytest.mark.filterwarnings('ignore:.*that a day may bring')
def test_cap_stops_and_the_next_day_goes_on(server, fine_count, monkeypatch):
    with pytest.raises(backup.CapReached, match='after 00:00 UTC'):
        backup.download_run(RUN, progress=False, cap=40_000, workers=2)
    assert 40_000 <= backup.downloaded_today() < sum(map(len, FILES.values()))
    arrived = set(visible())
    with pytest.raises(backup.CapReached):
        backup.download_agent(RUN, 6, progress=False, cap=40_000)
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    monkeypatch.setattr(allowance, '_now', lambda: tomorrow)
    assert backup.downloaded_today() == 0
    server.requests.clear()
    download_run()
    assert not arrived & {p.rpartition('/')[2] for p, _ in server.requests}
    assert_readable()
    assert len(list(pavlov.root().glob('.downloaded-*'))) == 1, 'old counts are removed'


def test_every_byte_is_counted_once(server):
    download_run()
    sent = sum(len(server.files[p]) for p, _ in server.requests if p in server.files)
    assert backup.downloaded_today() == sent


def test_warning_near_the_cap(server, fine_count):
    backup.download_agent(RUN, 1, progress=False)
    after = backup.downloaded_today() + len(FILES['storage.snapshot.2.pkl'])
    with pytest.warns(UserWarning, match='GB that a day may bring'):
        backup.download_agent(RUN, 2, progress=False, cap=int(after / .9))


def test_no_cap(server, fine_count):
    backup.download_agent(RUN, 1, progress=False, cap=None)
    assert backup.downloaded_today() > 0


# Buckets with keys, in b2sdk's simulator

@pytest.fixture(params=['v3', 'v2'])
def account(request, monkeypatch):
    """A simulated account with the bucket 'mine'; both interfaces of b2sdk that we support."""
    import b2sdk.v2
    import b2sdk.v3
    module = getattr(b2sdk, request.param)
    monkeypatch.setattr(backup.keys, 'sdk', lambda: module)
    simulator = module.RawSimulator()
    config = module.B2HttpApiConfig(_raw_api_class=lambda *args, **kwargs: simulator)
    monkeypatch.setattr(module, 'B2Api', functools.partial(module.B2Api, api_config=config))
    key_id, key = simulator.create_account()
    monkeypatch.setenv('B2_APPLICATION_KEY_ID', key_id)
    monkeypatch.setenv('B2_APPLICATION_KEY', key)
    api = module.B2Api(module.InMemoryAccountInfo())
    api.authorize_account(application_key_id=key_id, application_key=key, realm='production')
    api.create_bucket('mine', 'allPrivate')
    return api


def fill(bucket):
    for name, content in published().items():
        bucket.upload_bytes(content, name)


def versions(bucket):
    return {f.file_name.rpartition('/')[2]: f.id_ for f, _ in bucket.ls('', recursive=True)}


def local_run():
    folder().mkdir(parents=True)
    for name, content in FILES.items():
        (folder() / name).write_bytes(content)


def test_up_list_and_down(account, monkeypatch, tmp_path):
    local_run()
    (folder() / 'storage.latest.pkl.part').write_bytes(b'half')
    (folder() / '.storage.latest.pkl.1-1.tmp').write_bytes(b'half')
    (folder() / '_main.lock').touch()
    backup.sync_up(RUN, 'mine', progress=False)
    assert backup.list_runs('mine') == [RUN]
    assert set(versions(account.get_bucket_by_name('mine'))) == {
        name for name in FILES if name != '_lock'}

    monkeypatch.setenv('BOARDLAW_OUTPUT', str(tmp_path / 'elsewhere'))
    assert backup.download_run(RUN, bucket='mine', progress=False) == folder()
    for name in visible():
        assert (folder() / name).read_bytes() == FILES[name]
    assert_readable()


def test_sync_up_again_sends_only_what_changed(account):
    local_run()
    backup.sync_up(RUN, 'mine', progress=False)
    before = versions(account.get_bucket_by_name('mine'))
    latest = folder() / 'storage.latest.pkl'
    latest.write_bytes(bytes(len(latest.read_bytes())))  # of the same size
    backup.sync_up(RUN, 'mine', progress=False)
    after = versions(account.get_bucket_by_name('mine'))
    assert {n for n in after if after[n] != before[n]} == {'storage.latest.pkl', '_info.json'}


def test_sync_up_drops_the_environment(account):
    local_run()
    (folder() / '_info.json').write_bytes(published()[f'output/pavlov/{RUN}/_info.json'])
    backup.sync_up(RUN, 'mine', progress=False)
    saved = account.get_bucket_by_name('mine').download_file_by_name(
        f'output/pavlov/{RUN}/_info.json')
    saved.save_to(folder() / 'copy')
    assert json.loads((folder() / 'copy').read_bytes())['_env'] == {}


def test_sync_up_does_not_overwrite_a_newer_state(account):
    local_run()
    account.get_bucket_by_name('mine').upload_bytes(
        b'newer', f'output/pavlov/{RUN}/logs.0.txt',
        file_info={'src_last_modified_millis': str(int(time.time() * 1000) + 10**7)})
    with pytest.raises(backup.BackupError, match='newer'):
        backup.sync_up(RUN, 'mine', progress=False)


def test_sync_up_of_nothing(account):
    with pytest.raises(backup.MissingFile, match='nothing to upload'):
        backup.sync_up(RUN, 'mine', progress=False)
    local_run()
    with pytest.raises(backup.MissingFile, match='yours'):
        backup.sync_up(RUN, 'yours', progress=False)
    (folder() / '_info.json').write_text('{')
    with pytest.raises(backup.BackupError, match='_info.json cannot be read'):
        backup.sync_up(RUN, 'mine', progress=False)


def test_download_keeps_what_is_newer_here_and_takes_what_is_newer_there(account):
    fill(account.get_bucket_by_name('mine'))
    backup.download_run(RUN, bucket='mine', progress=False)
    (folder() / 'logs.0.txt').write_text('my own notes')
    later = time.time() + 10_000
    os.utime(folder() / 'logs.0.txt', (later, later))
    account.get_bucket_by_name('mine').upload_bytes(
        b'longer', f'output/pavlov/{RUN}/logs.1.txt',
        file_info={'src_last_modified_millis': str(int(later * 1000))})
    backup.download_run(RUN, bucket='mine', progress=False)
    assert (folder() / 'logs.0.txt').read_text() == 'my own notes'
    assert (folder() / 'logs.1.txt').read_text() == 'longer'
    assert_readable()


def test_missing_run_in_a_bucket_with_keys(account, output):
    with pytest.raises(backup.MissingFile, match='check the names'):
        backup.download_run(RUN, bucket='mine', progress=False)
    assert not (output / 'pavlov').exists()


def test_cap_with_keys(account):
    fill(account.get_bucket_by_name('mine'))
    with pytest.raises(backup.CapReached, match='GB more are needed'):
        backup.download_run(RUN, bucket='mine', progress=False, cap=50_000)
    assert visible() == []
    backup.download_run(RUN, bucket='mine', progress=False, cap=None)
    assert_readable()
    assert backup.downloaded_today() >= sum(map(len, FILES.values()))
    with pytest.warns(UserWarning, match='that a day may bring'):  # enough, as nothing is missing
        backup.download_run(RUN, bucket='mine', progress=False,
                            cap=backup.downloaded_today() + 10_000)


def test_progress_with_keys(account, capfd):
    fill(account.get_bucket_by_name('mine'))
    backup.download_run(RUN, bucket='mine')
    assert RUN in capfd.readouterr().err


def test_broken_info_in_a_bucket(account):
    account.get_bucket_by_name('mine').upload_bytes(b'{', f'output/pavlov/{RUN}/_info.json')
    with pytest.raises(backup.BackupError, match='cannot be read'):
        backup.download_run(RUN, bucket='mine', progress=False)


@pytest.mark.parametrize('name', ['../../evil', './evil', 'C:/evil'])
def test_hostile_names_in_a_bucket(account, output, name):
    bucket = account.get_bucket_by_name('mine')
    fill(bucket)
    bucket.upload_bytes(b'evil', f'output/pavlov/{RUN}/{name}')
    try:
        backup.download_run(RUN, bucket='mine', progress=False)
    except backup.BackupError as e:
        assert 'evil' in str(e)
    outside = [p for p in output.parent.rglob('*evil*') if not p.is_relative_to(folder())]
    assert not outside


def test_deeply_nested_info(account):
    account.get_bucket_by_name('mine').upload_bytes(
        b'['*100_000, f'output/pavlov/{RUN}/_info.json')
    with pytest.raises(backup.BackupError, match='cannot be read'):
        backup.download_run(RUN, bucket='mine', progress=False)


def test_folder_that_cannot_be_made(server, output):
    output.parent.mkdir(exist_ok=True)
    output.write_text('a file where the folder should be')
    with pytest.raises(backup.BackupError, match='BOARDLAW_OUTPUT'):
        backup.download_run(RUN, progress=False)


def test_own_keys_do_not_hide_the_public_bucket(account, monkeypatch):
    with FileServer(published()) as server:
        monkeypatch.setattr(backup, 'BASE_URL', server.url)
        download_run()
        assert server.requests
    with pytest.raises(backup.WrongKey, match='listing'):
        backup.list_runs()


def test_keys_restricted_to_another_bucket(account, monkeypatch):
    fill(account.get_bucket_by_name('mine'))
    other = account.create_bucket('other', 'allPrivate')
    ids = {'bucket_id': other.id_} if backup.keys.sdk().__name__.endswith('v2') else {
        'bucket_ids': [other.id_]}
    key = account.create_key(['listBuckets', 'listFiles', 'readFiles'], 'k', **ids)
    monkeypatch.setenv('B2_APPLICATION_KEY_ID', key.id_)
    monkeypatch.setenv('B2_APPLICATION_KEY', key.application_key)
    with pytest.raises(backup.WrongKey, match='does not accept the keys'):
        backup.download_run(RUN, bucket='mine', progress=False)
    local_run()
    with pytest.raises(backup.BackupError):
        backup.sync_up(RUN, 'other', progress=False)


def test_wrong_key(account, monkeypatch, caplog):
    monkeypatch.setenv('B2_APPLICATION_KEY', SECRET)
    with caplog.at_level(logging.DEBUG), pytest.raises(backup.WrongKey, match='check them') as e:
        backup.download_run(RUN, bucket='mine', progress=False)
    assert SECRET not in str(e.value) + caplog.text


@pytest.mark.parametrize('name, args, error, says', [
    ('B2ConnectionError', ['no route'], backup.BackupError, 'check the network'),
    ('TransactionCapExceeded', [], backup.CapReached, 'raise it at Backblaze'),
    ('AccessDenied', [], backup.WrongKey, 'check them'),
    ('TooManyRequests', [], backup.BackupError, 'call again')])
def test_what_backblaze_says(account, monkeypatch, name, args, error, says):
    def fail(name):
        raise cause
    cause = getattr(backup.keys.sdk().exception, name)(*args)
    monkeypatch.setattr(account, 'get_bucket_by_name', fail)
    with pytest.raises(error, match=says) as e:
        backup.list_runs('mine', api=account)
    assert type(e.value) is error and e.value.__cause__ is cause


def test_half_a_key(account, monkeypatch):
    monkeypatch.delenv('B2_APPLICATION_KEY_ID')
    with pytest.raises(backup.WrongKey, match='set both or none'):
        backup.list_runs('mine')


def test_no_keys(account, monkeypatch, tmp_path):
    for name in ('B2_APPLICATION_KEY_ID', 'B2_APPLICATION_KEY'):
        monkeypatch.delenv(name)
    local_run()
    for call in (lambda: backup.list_runs('mine'), lambda: backup.sync_up(RUN, 'mine'),
                 lambda: backup.download_run(RUN, bucket='mine')):
        with pytest.raises(backup.WrongKey, match='B2_APPLICATION_KEY_ID'):
            call()
    assert not (tmp_path / 'home').exists(), 'looking for an account file makes none'


def test_account_file(account, monkeypatch, tmp_path):
    key_id, key = (monkeypatch.delenv(name) or value for name, value in [
        ('B2_APPLICATION_KEY_ID', account.account_info.get_application_key_id()),
        ('B2_APPLICATION_KEY', account.account_info.get_application_key())])
    (tmp_path / 'home').mkdir()
    module = backup.keys.sdk()
    api = module.B2Api(module.SqliteAccountInfo(str(tmp_path / 'home/.b2_account_info')))
    api.authorize_account(application_key_id=key_id, application_key=key, realm='production')
    fill(account.get_bucket_by_name('mine'))
    assert backup.list_runs('mine') == [RUN]


def test_account_file_that_was_never_authorised(account, monkeypatch, tmp_path):
    monkeypatch.delenv('B2_APPLICATION_KEY_ID')
    monkeypatch.delenv('B2_APPLICATION_KEY')
    monkeypatch.setenv('B2_ACCOUNT_INFO', str(tmp_path / 'info'))
    backup.keys.sdk().SqliteAccountInfo()
    with pytest.raises(backup.WrongKey, match='b2 account authorize'):
        backup.list_runs('mine')


def test_keys_are_never_logged(account, caplog, capfd):
    key = account.account_info.get_application_key()
    local_run()
    with caplog.at_level(logging.DEBUG):
        backup.sync_up(RUN, 'mine')
        backup.download_run(RUN, bucket='mine')
    out, err = capfd.readouterr()
    assert len(key) > 5 and key not in caplog.text + out + err


def test_works_without_b2sdk_until_keys_are_used(server, monkeypatch):
    for name in ('b2sdk', 'b2sdk.v2', 'b2sdk.v3'):
        monkeypatch.setitem(sys.modules, name, None)
    download_run()
    monkeypatch.setenv('B2_APPLICATION_KEY_ID', 'id')
    monkeypatch.setenv('B2_APPLICATION_KEY', 'key')
    with pytest.raises(backup.BackupError, match='pip install b2sdk'):
        backup.list_runs('mine')
