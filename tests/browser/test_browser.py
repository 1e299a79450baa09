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


TABS = {  # of the feature explorer: sliders to move, then dropdowns and what is chosen
    "one clip": (("frame t", "channel", "row y", "log-SNR"), {"layer": "middle.0.time-attention", "head": "1"}),
    "two captions": (("frame t", "channel", "row y", "log-SNR"), {"layer": "down.1.space-time"}),
    "sampling": (("step", "frame t", "row y"), {"layer": "middle.2.time-attention", "caption": "a red 3 moving left"}),
    "patching": (("frame t",), {"layer": "up.1.space-time", "from": "the other's words"}),
    "correspondence": (("frame t", "point", "log-SNR"), {"layer": "middle.2.time-attention"}),
    "words": (("row y", "log-SNR"), {"layer": "down.1.image-attention", "head": "1"}),
}


def test_every_tab_of_the_feature_explorer_is_used_and_its_controls_change_the_picture(browser, server):
    run_notebook(browser, server, "10_feature_maps.ipynb")

    def visible(selector: str) -> list:
        return [found for found in browser.find_elements(By.CSS_SELECTOR, selector) if found.is_displayed()]

    def picture() -> str:
        """The bytes that the open tab shows."""
        read = """
            const done = arguments[1];
            fetch(arguments[0]).then(answer => answer.blob()).then(blob => {
                const reader = new FileReader();
                reader.onload = () => done(reader.result);
                reader.readAsDataURL(blob);
            }).catch(() => done(''));"""
        return browser.execute_async_script(read, visible("img.widget-image")[0].get_attribute("src"))

    def control(name: str, selector: str):
        label = f"//*[contains(@class, 'widget-label') and normalize-space()='{name}']/.."
        lines = [line for line in browser.find_elements(By.XPATH, label) if line.is_displayed()]
        return lines[0].find_element(By.CSS_SELECTOR, selector)

    def changes(what: str, act) -> str:
        before = picture()
        act()
        wait(browser, lambda: picture() not in ("", before), f"the picture changes with {what}")
        return picture()

    wait(browser, lambda: visible("img.widget-image") and picture(), "the explorer is there")
    for title, (sliders, choices) in TABS.items():
        tab = next(tab for tab in visible(".lm-TabBar-tab") if tab.text == title)
        browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", tab)
        tab.click()
        wait(browser, lambda: len(visible("img.widget-image")) == 1 and picture(), f"the tab {title} has a picture", 5 * MINUTE)
        name = title.replace(" ", "_")
        screenshot(browser, f"10_{name}_before")
        seen = [picture()]
        for slider in sliders:
            act = lambda slider=slider: control(slider, ".noUi-handle").send_keys(Keys.ARROW_RIGHT)  # noqa: E731
            seen.append(changes(slider, act))
        if title == "one clip":
            assert float(control("frame t", ".noUi-handle").get_attribute("aria-valuemax")) == 15
        for dropdown, choice in choices.items():
            act = lambda dropdown=dropdown, choice=choice: Select(control(dropdown, "select")).select_by_visible_text(choice)  # noqa: E731
            seen.append(changes(dropdown, act))
        if title == "one clip":
            wait(
                browser,
                lambda: float(control("frame t", ".noUi-handle").get_attribute("aria-valuemax")) == 3,
                "the frame slider takes the range of the layer",
            )
        screenshot(browser, f"10_{name}_after")
        assert len(set(seen)) == len(seen) == 1 + len(sliders) + len(choices), title  # a picture for every setting
