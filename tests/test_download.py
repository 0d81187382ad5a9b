import hashlib
import multiprocessing
import os
import random
import signal
import socket
import time

import pytest
from fileserver import FileServer

from boardlaw import download

BODY = random.Random(0).randbytes(1_000_000)


@pytest.fixture
def server():
    with FileServer({'a folder/a file': BODY}) as server:
        yield server


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)


def get(server, tmp_path, **kwargs):
    kwargs = {'progress': False} | kwargs
    return download.fetch(f'{server.url}/a%20folder/a%20file', tmp_path / 'sub/file', **kwargs)


def leftovers(tmp_path):
    return sorted(p.name for p in (tmp_path / 'sub').iterdir())


def test_whole_file(server, tmp_path):
    seen = []
    path = get(server, tmp_path, expected_size=len(BODY), on_bytes=seen.append,
               validate=lambda p: p.read_bytes() == BODY)
    assert path == tmp_path / 'sub/file'
    assert path.read_bytes() == BODY and sum(seen) == len(BODY)
    assert leftovers(tmp_path) == ['file']
    get(server, tmp_path)
    assert len(server.requests) == 1, 'a file that is there is not asked for again'


def test_empty_file(server, tmp_path):
    server.files['empty'] = b''
    assert download.fetch(f'{server.url}/empty', tmp_path / 'e', progress=False).read_bytes() == b''


def test_progress_bar(server, tmp_path, capfd):
    get(server, tmp_path, progress=True)
    assert '1.00M/1.00M' in capfd.readouterr().err


def test_resumes_within_a_call(server, tmp_path):
    server.cuts = [400_000, 300_000]
    seen = []
    assert get(server, tmp_path, on_bytes=seen.append).read_bytes() == BODY
    assert [r for _, r in server.requests] == [None, 'bytes=400000-', 'bytes=700000-']
    assert sum(seen) == len(BODY), 'no byte is fetched twice'


def test_resumes_in_a_later_call(server, tmp_path):
    server.cuts = [400_000, 0]
    with pytest.raises(download.Unreachable, match='400,000 bytes are kept'):
        get(server, tmp_path, retries=0)
    assert leftovers(tmp_path) == ['file.part', 'file.part.json']
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests[-1][1] == 'bytes=400000-'
    assert leftovers(tmp_path) == ['file']


def test_stopped_by_the_caller_then_resumed(server, tmp_path):
    def stop(n):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        get(server, tmp_path, on_bytes=stop)
    assert not (tmp_path / 'sub/file').exists()
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests[-1][1].startswith('bytes=')


def test_no_resume_when_not_wanted(server, tmp_path):
    server.cuts = [400_000, 0]
    with pytest.raises(download.Unreachable):
        get(server, tmp_path, retries=0)
    assert get(server, tmp_path, resume=False).read_bytes() == BODY
    assert server.requests[-1][1] is None


def test_server_that_ignores_ranges(server, tmp_path):
    server.ranges, server.cuts = False, [400_000]
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests[-1][1] == 'bytes=400000-'


@pytest.mark.parametrize('etags', [True, False])
def test_file_changed_between_attempts(server, tmp_path, etags):
    server.cuts, server.etags = [400_000, 0], etags
    with pytest.raises(download.Unreachable):
        get(server, tmp_path, retries=0)
    server.files['a folder/a file'] = BODY[::-1] + b'longer'
    assert get(server, tmp_path).read_bytes() == BODY[::-1] + b'longer'


def test_file_became_shorter(server, tmp_path):
    server.cuts, server.etags = [400_000, 0], False
    with pytest.raises(download.Unreachable):
        get(server, tmp_path, retries=0)
    server.files['a folder/a file'] = BODY[:1000]
    assert get(server, tmp_path).read_bytes() == BODY[:1000]


@pytest.mark.parametrize('record', ['', '{', '[1]', '{"size": null}', '{"size": 10}'])
def test_partial_file_with_a_bad_record_is_started_afresh(server, tmp_path, record):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub/file.part').write_bytes(b'x' * 400)
    (tmp_path / 'sub/file.part.json').write_text(record)
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests == [('a folder/a file', None)]


def test_truncated_body_is_never_taken_for_whole(server, tmp_path):
    server.cuts = [100] + [0] * 20
    with pytest.raises(download.Unreachable, match='closed at 100 of 1,000,000 bytes'):
        get(server, tmp_path)
    assert not (tmp_path / 'sub/file').exists()
    assert len(server.requests) == 5, 'the first attempt and four more'


def test_wrong_expected_size(server, tmp_path):
    with pytest.raises(download.DownloadError, match='1,000,000 bytes where 5 were expected'):
        get(server, tmp_path, expected_size=5)
    assert not (tmp_path / 'sub/file').exists()


def test_file_of_another_size_is_replaced(server, tmp_path):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub/file').write_bytes(b'half')
    assert get(server, tmp_path, expected_size=len(BODY)).read_bytes() == BODY


def test_checksum(server, tmp_path):
    server.headers = {'X-Bz-Content-Sha1': hashlib.sha1(BODY).hexdigest()}
    get(server, tmp_path).unlink()
    server.headers = {'X-Bz-Content-Sha1': 'none',
                      'X-Bz-Info-large_file_sha1': hashlib.sha1(b'other').hexdigest()}
    with pytest.raises(download.DownloadError, match='checksum'):
        get(server, tmp_path)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize('validate', [lambda p: False, lambda p: 1 / 0])
def test_validation_failure_discards(server, tmp_path, validate):
    with pytest.raises(download.DownloadError, match='is not the file it should be'):
        get(server, tmp_path, validate=validate)
    assert leftovers(tmp_path) == []


def test_missing(server, tmp_path):
    with pytest.raises(download.NotFound, match='/nothing here does not exist'):
        download.fetch(f'{server.url}/nothing%20here', tmp_path / 'file', progress=False)
    assert len(server.requests) == 1, 'a missing file is not tried again'
    assert not list(tmp_path.iterdir())


def test_refused(server, tmp_path):
    server.refusal = 403, 'download_cap_exceeded'
    with pytest.raises(download.Refused, match='HTTP 403: the reason') as e:
        get(server, tmp_path)
    assert e.value.code == 'download_cap_exceeded'


def test_server_error_is_tried_again(server, tmp_path, monkeypatch):
    server.refusal = 503, 'busy'

    def recover(seconds):
        server.refusal = None
    monkeypatch.setattr(time, 'sleep', recover)
    assert get(server, tmp_path).read_bytes() == BODY


def test_nobody_listening(tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        url = f'http://user:secret@127.0.0.1:{s.getsockname()[1]}/file?token=secret'
        with pytest.raises(download.Unreachable, match='check the network') as e:
            download.fetch(url, tmp_path / 'file', progress=False)
    assert 'secret' not in str(e.value)


@pytest.mark.parametrize('url', ['file:///etc/passwd', 'ftp://host/file', 'file'])
def test_other_schemes_are_refused(tmp_path, url):
    with pytest.raises(download.DownloadError, match='not an http or https address'):
        download.fetch(url, tmp_path / 'file')


def test_disk_error_is_clear(server, tmp_path):
    (tmp_path / 'sub').write_text('a file where the folder should be')
    with pytest.raises(download.DownloadError, match='cannot write'):
        get(server, tmp_path)


def _get_in_child(url, path, n_seen):
    def on_bytes(n):
        with n_seen.get_lock():
            n_seen.value += n
        if path.endswith('killed'):
            os.kill(os.getpid(), signal.SIGKILL)
    download.fetch(url, path, progress=False, on_bytes=on_bytes)


@pytest.mark.skipif(download.fcntl is None, reason='needs advisory file locks')
def test_two_processes_share_one_download(server, tmp_path):
    context = multiprocessing.get_context('spawn')
    n_seen = context.Value('q', 0)
    children = [context.Process(target=_get_in_child, args=(
        f'{server.url}/a%20folder/a%20file', str(tmp_path / 'file'), n_seen))
        for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert (tmp_path / 'file').read_bytes() == BODY and n_seen.value == len(BODY)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['file']


def test_killed_process_leaves_no_lock(server, tmp_path):
    context = multiprocessing.get_context('spawn')
    url, path = f'{server.url}/a%20folder/a%20file', str(tmp_path / 'killed')
    n_seen = context.Value('q', 0)
    child = context.Process(target=_get_in_child, args=(url, path, n_seen))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL and not os.path.exists(path)
    assert download.fetch(url, path, progress=False).read_bytes() == BODY
    assert server.requests[-1][1] == f'bytes={n_seen.value}-'
