"""A browser for the tests of pages; they are skipped where there is none."""

import os
import shutil

import pytest

_PROGRAMS = [shutil.which(name) for name in ("chromium", "chromedriver")]


@pytest.fixture(scope="session")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if None in _PROGRAMS:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _PROGRAMS[0]
    flags = ["--headless=new", "--disable-dev-shm-usage", "--hide-scrollbars"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # which root cannot have
    for flag in flags:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_PROGRAMS[1]))
    yield driver
    driver.quit()
