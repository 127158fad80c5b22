"""Debian's Chromium, headless, for tests that look at pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

PHONE_WIDTH = 360
"""In CSS pixels: that of the narrower phones."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start it; where there is none the test is skipped, and says that it has to be installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on this machine to look at the page with: install chromium")
    # Chromium refuses to sandbox for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=arguments)
        yield launched
        launched.close()
