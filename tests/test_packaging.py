"""What is installed and what is released: whole, and at home in any folder."""
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from sources import ROOT, shipped

#: Neither a shell's, nor a URL's, nor an ASCII name.
ODD = 'größe & "plan" %20 ☃'


def run(code, *args, cwd, **env):
    done = subprocess.run([sys.executable, '-c', code, *map(str, args)], cwd=cwd, text=True,
                          capture_output=True, env=os.environ | env, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """(source, names, sdist, wheel): a copy of the repository, its files, the unpacked sdist that
    it makes, and the wheel that this makes."""
    folder = tmp_path_factory.mktemp('packaging')/ODD
    source, names = folder/'source', shipped()
    for name in names:
        (source/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT/name, source/name)
    build = ('import sys; from setuptools import build_meta; '
             'getattr(build_meta, sys.argv[1])(sys.argv[2])')
    run(build, 'build_sdist', folder, cwd=source)
    sdist, = folder.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:   # made above; not every Python has filters
        archive.extractall(folder/'unpacked', **(
            {'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
    unpacked, = (folder/'unpacked').iterdir()
    run(build, 'build_wheel', folder, cwd=unpacked)
    wheel, = folder.glob('*.whl')
    return source, names, unpacked, wheel


def test_the_sdist_holds_every_file(built):
    source, names, unpacked, _ = built
    for name in names:
        assert (unpacked/name).read_bytes() == (source/name).read_bytes(), name


def test_the_wheel_holds_the_package_and_nothing_else(built):
    source, names, _, wheel = built
    with zipfile.ZipFile(wheel) as wheel:
        held = {name for name in wheel.namelist() if '.dist-info/' not in name}
        assert held == {name for name in names if name.startswith('boardlaw/')}
        assert all(wheel.read(name) == (source/name).read_bytes() for name in held)
        commands, = (name for name in wheel.namelist() if name.endswith('entry_points.txt'))
        assert b'boardlaw = boardlaw.main:main' in wheel.read(commands)


def test_what_is_installed_works_where_nothing_can_be_written(built, tmp_path):
    """Below a folder of an odd name, from another folder, without git, compiler or sources."""
    site, work = tmp_path/ODD, tmp_path/f'{ODD} work'
    with zipfile.ZipFile(built[-1]) as wheel:
        wheel.extractall(site)
    work.mkdir()
    installed = [site, *site.rglob('*')]
    for path in installed:
        path.chmod(0o555 if path.is_dir() else 0o444)
    code = """if True:
        import sys
        sys.path.insert(0, sys.argv[1])
        sys.dont_write_bytecode = True
        import boardlaw
        assert boardlaw.__file__.startswith(sys.argv[1]), boardlaw.__file__
        from boardlaw import pavlov, sql
        from boardlaw.paper import data
        run = pavlov.runs.new_run('packaging')
        pavlov.storage.save_latest(run, {'agent': {}})
        with sql.use(sql.create(pavlov.root()/'own.sqlite')):
            print(len(sql.agent_query()), end=' ')
        print(len(data.published()) > 1000, len(data.replica()) > 100)
    """
    try:
        said = run(code, site, cwd=work, PATH=str(work), PYTHONPATH='', BOARDLAW_OUTPUT='')
        assert said.split() == ['0', 'True', 'True']
        assert [path.name for path in work.iterdir()] == ['output']
        # Root may write there all the same, but only compiled kernels want to.
        new = {path for path in site.rglob('*') if '__pycache__' not in path.parts}
        assert new == set(installed) - {site}
    finally:
        for path in installed:
            if path.is_dir():
                path.chmod(0o755)
