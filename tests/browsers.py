"""A page in a real browser, as it would be on some screen."""

import time


def open_page(browser, url, *, width=1200, dark=False):
    """Open a page and wait until its plots are drawn."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(url)
    end = time.monotonic() + 60
    while not browser.execute_script("return document.documentElement.dataset.drawn"):
        assert time.monotonic() < end, browser.get_log("browser")
        time.sleep(0.05)
