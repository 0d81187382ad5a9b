"""Headless Chromium for the tests that need a browser, if there is one."""
import shutil
from contextlib import contextmanager

import pytest

HOW = 'CONTRIBUTING.md says how to install them'
NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--no-first-run']


@contextmanager
def launch():
    """A browser of playwright's: Chromium from the path, or the one that playwright installed.

    Skips the test that asks for it where one of the two is missing.
    """
    sync_api = pytest.importorskip('playwright.sync_api',
                                   reason=f'browser tests need playwright and Chromium: {HOW}')
    path = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        except sync_api.Error as e:
            pytest.skip(f'browser tests need Chromium: {HOW} ({str(e).splitlines()[0]})')
        yield browser
        browser.close()
