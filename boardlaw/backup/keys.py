"""A bucket through b2sdk, with keys: finding them, listing, synchronising."""
import io
import os
import time
from pathlib import Path

from tqdm import tqdm

from .errors import BackupError, CapReached, MissingFile, WrongKey

BUCKET = 'boardlaw'
PREFIX = 'output/pavlov'

_UNSYNCED = (r'_info\.json$', r'_lock$', r'.*\.lock$', r'.*\.part(\.json)?$', r'.*\.tmp$')
KEY_HELP = ('set B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY, or run `b2 account authorize`; '
            'without any key the public address is read')


def sdk():
    """b2sdk's newest interface that is installed."""
    try:
        try:
            import b2sdk.v3 as b2
        except ImportError:
            import b2sdk.v2 as b2
    except ImportError as e:
        raise BackupError('a bucket with keys needs b2sdk: pip install b2sdk') from e
    return b2


def authorised():
    """A B2Api for the user's own keys, None if there are none."""
    key_id, key = (os.environ.get(k) for k in ('B2_APPLICATION_KEY_ID', 'B2_APPLICATION_KEY'))
    if bool(key_id) != bool(key):
        raise WrongKey('only one of B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY is set: set both '
                       'or none')
    if key:
        b2 = sdk()
        api = b2.B2Api(b2.InMemoryAccountInfo())
        api.authorize_account(application_key_id=key_id, application_key=key, realm='production')
        return api
    # Looked up here because b2sdk creates the file, and its folder, where there is none.
    config = os.environ.get('XDG_CONFIG_HOME') or '~/.config'
    for file in (os.environ.get('B2_ACCOUNT_INFO'), '~/.b2_account_info',
                 f'{config}/b2/account_info'):
        if file and Path(file).expanduser().is_file():
            b2 = sdk()
            return b2.B2Api(b2.SqliteAccountInfo(str(Path(file).expanduser())))
    return None


def open_bucket(name, api):
    """The bucket as the keys see it. None without keys, or where they see no 2021 bucket: keys
    belong to an account, so those for one's own bucket cannot list another's."""
    api = api or authorised()
    if api is None:
        return None
    exception = sdk().exception
    try:
        return api.get_bucket_by_name(name)
    except (exception.NonExistentBucket, exception.RestrictedBucket):
        if name == BUCKET:
            return None
        raise


def missing_bytes(bucket, run, folder):
    """Size of what a synchronisation will fetch, going by the sizes of the files."""
    remote = {version.file_name.rpartition('/')[2]: version.size
              for version, _ in bucket.ls(f'{PREFIX}/{run}', recursive=True)}
    local = {path.name: path.stat().st_size for path in folder.iterdir()}
    return sum(size for name, size in remote.items()
               if name != '_info.json' and local.get(name) != size)


def sync(bucket, source, target, newer_target, workers, progress, on_bytes=lambda n: None):
    """b2sdk's synchronisation of a local folder and one in the bucket, in either direction."""
    b2 = sdk()

    class Reporter(b2.SyncReport):
        def __init__(self, bar):
            super().__init__(io.StringIO(), True)
            self.bar, self.failures = bar, []

        def end_compare(self, total_transfer_files, total_transfer_bytes):
            super().end_compare(total_transfer_files, total_transfer_bytes)
            self.bar.total = total_transfer_bytes
            self.bar.refresh()

        def update_transfer(self, file_delta, byte_delta):
            super().update_transfer(file_delta, byte_delta)
            self.bar.update(byte_delta)
            on_bytes(byte_delta)

        def error(self, message):
            super().error(message)
            self.failures.append(message)

        def close(self):
            super().close()
            self.bar.close()

    synchronizer = b2.Synchronizer(
        workers,
        policies_manager=b2.ScanPoliciesManager(exclude_file_regexes=_UNSYNCED),
        compare_version_mode=b2.CompareVersionMode.MODTIME,
        newer_file_mode=b2.NewerFileSyncMode[newer_target])
    folders = [b2.parse_folder(folder, bucket.api) for folder in (source, target)]
    title = Path(source).name
    bar = tqdm(desc=title, unit='B', unit_scale=True, disable=not progress)
    with Reporter(bar) as reporter:
        try:
            synchronizer.sync_folders(source_folder=folders[0], dest_folder=folders[1],
                                      now_millis=int(time.time() * 1000), reporter=reporter)
        except b2.exception.IncompleteSync as e:
            raise BackupError(f'{len(reporter.failures)} files of {title!r} failed, the first: '
                              f'{reporter.failures[0]}; call again to go on') from e


def explained(error):
    """What b2sdk raised, as one of the family of `BackupError`."""
    x = sdk().exception
    if isinstance(error, (x.Unauthorized, x.AccountInfoError, x.NotAllowedByAppKeyError,
                          x.AccessDenied, x.RestrictedBucket)):
        return WrongKey(f'Backblaze does not accept the keys for this ({error}): check them, or '
                        f'{KEY_HELP}')
    if isinstance(error, x.CapExceeded) or 'cap_exceeded' in str(error):
        return CapReached(f"the account's cap is reached ({error}): raise it at Backblaze, or call "
                          'again after 00:00 UTC')
    if isinstance(error, (x.FileNotPresent, x.NonExistentBucket)):
        return MissingFile(f'not in Backblaze: {error}; check the names of run and bucket')
    if isinstance(error, (x.B2ConnectionError, x.B2RequestTimeout, x.UnknownHost,
                          x.ConnectionReset)):
        return BackupError(f'Backblaze cannot be reached ({error}): check the network and call '
                           'again to go on')
    if isinstance(error, x.DestFileNewer):
        return BackupError(f'{error}: the bucket holds a newer state, download it first')
    return BackupError(f'{error}; call again to go on')
