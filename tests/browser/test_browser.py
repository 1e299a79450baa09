"""Notebooks in JupyterLab, in a browser: cells run, sliders move, pictures change. `make test-browser` runs this.

Screenshots are left in runs/browser, to be looked at.
"""

import base64
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "runs" / "browser"
TOKEN = "for-this-test-only"
MINUTE = 60  # seconds
EVERYTHING_IN_THE_PAGE = '{"windowingMode": "none"}'  # by default, JupyterLab leaves out cells that are out of sight


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab on copies of the notebooks, with no settings of the user's; its address."""
    home = tmp_path_factory.mktemp("jupyter")
    shutil.copytree(ROOT / "notebooks", home / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    tracker = home / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text(EVERYTHING_IN_THE_PAGE)
    own = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "JUPYTER_CONFIG_DIR": "config"}
    environment = {name: str(home / folder) for name, folder in own.items()} | {"MINILUMIERE_SMOKE": "1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", f"--port={port}", "--ServerApp.port_retries=0"]
    options += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home / 'notebooks'}"]
    log = home / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], stdout=output, stderr=output, env=os.environ | environment
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, f"JupyterLab ended:\n{log.read_text()}"
                time.sleep(0.5)
        else:
            pytest.fail(f"JupyterLab does not answer:\n{log.read_text()}")
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def browser():
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if binary is None:
        pytest.fail("this test needs Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # Root has no sandbox, and containers have little shared memory.
    for option in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1400,1200"):
        options.add_argument(option)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(10 * MINUTE)
    yield driver
    driver.quit()


def wait(browser, condition, what: str, seconds: float = 2 * MINUTE):
    """Wait until `condition()` is true, and return what it returns; what is not in the page yet counts as false."""
    return WebDriverWait(browser, seconds, 0.2, ignored_exceptions=(WebDriverException,)).until(lambda _: condition(), what)


def run_notebook(browser, server: str, name: str) -> list[dict]:
    """Open a notebook and run all of its cells; its code cells, as they are in the page's model."""
    browser.get(f"{server}/lab/tree/{name}?token={TOKEN}&reset")
    ready = """
        const panel = window.jupyterapp?.shell.currentWidget;
        return panel?.context?.isReady && panel.context.path === arguments[0]
            && panel.sessionContext.session?.kernel?.connectionStatus === 'connected'"""
    wait(browser, lambda: browser.execute_script(ready, name), f"{name} is open and has a kernel")
    run = """
        const done = arguments[0];
        window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => done(''), error => done(String(error)));"""
    assert browser.execute_async_script(run) == ""
    cells = browser.execute_script(
        "return window.jupyterapp.shell.currentWidget.content.model.toJSON().cells.filter(cell => cell.cell_type === 'code')"
    )
    errors = [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert not errors, errors
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    return cells


def screenshot(browser, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(SCREENSHOTS / f"{name}.png"))


def test_quickstart_shows_its_clip(browser, server):
    run_notebook(browser, server, "00_quickstart.ipynb")
    clip = wait(browser, lambda: browser.find_element(By.CSS_SELECTOR, ".jp-OutputArea-output img"), "there is a picture")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", clip)
    screenshot(browser, "00_quickstart")
    data = base64.b64decode(clip.get_attribute("src").split(",", 1)[1])
    assert b"acTL" in data  # the chunk that makes a PNG an animation
    assert browser.execute_script("return arguments[0].naturalWidth", clip) == 256  # 64 pixels, four times as large


def test_sliders_of_the_feature_explorer_change_the_picture(browser, server):
    run_notebook(browser, server, "10_feature_maps.ipynb")

    def image():
        return browser.find_element(By.CSS_SELECTOR, "img.widget-image")

    def picture() -> str:
        """The bytes that the page shows."""
        read = """
            const done = arguments[1];
            fetch(arguments[0]).then(answer => answer.blob()).then(blob => {
                const reader = new FileReader();
                reader.onload = () => done(reader.result);
                reader.readAsDataURL(blob);
            }).catch(() => done(''));"""
        return browser.execute_async_script(read, image().get_attribute("src"))

    def control(name: str, selector: str):
        label = f"//*[contains(@class, 'widget-label') and normalize-space()='{name}']/.."
        return browser.find_element(By.XPATH, label).find_element(By.CSS_SELECTOR, selector)

    def changes(what: str, act) -> str:
        before = picture()
        act()
        wait(browser, lambda: picture() not in ("", before), f"the picture changes with {what}")
        return picture()

    wait(browser, lambda: image().is_displayed() and picture(), "the explorer is there")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", image())
    screenshot(browser, "10_before")
    seen = [picture()]
    for slider in ("frame t", "channel", "row y", "log-SNR"):
        seen.append(changes(slider, lambda slider=slider: control(slider, ".noUi-handle").send_keys(Keys.ARROW_RIGHT)))
    assert float(control("frame t", ".noUi-handle").get_attribute("aria-valuemax")) == 15

    layer = Select(control("layer", "select"))
    seen.append(changes("layer", lambda: layer.select_by_visible_text("middle.0.time-attention")))
    wait(
        browser,
        lambda: float(control("frame t", ".noUi-handle").get_attribute("aria-valuemax")) == 3,
        "the frame slider takes the range of the layer",
    )
    seen.append(changes("head", lambda: Select(control("head", "select")).select_by_visible_text("1")))
    screenshot(browser, "10_after")
    assert len(set(seen)) == len(seen) == 7  # a picture for every setting
