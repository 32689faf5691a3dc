"""A Chromium for tests of pages."""

import importlib.util
import shutil

from absl.testing import absltest

_ARGUMENTS = ("--no-sandbox", "--disable-quic", "--no-first-run",
              "--disable-background-networking", "--disable-component-update",
              "--disable-sync", "--disable-gpu")  # fmt: skip


def launch(case: type[absltest.TestCase]):
    """Returns playwright's browser, closed after the class; or skips it.

    It makes no requests of its own.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if importlib.util.find_spec("playwright") is None or path is None:
        raise absltest.SkipTest("playwright or chromium is not installed.")
    from playwright import sync_api

    play = case.enter_context(sync_api.sync_playwright())
    browser = play.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
    case.addClassCleanup(browser.close)
    return browser
