"""JupyterLab as a person finds it at the printed address, without collaboration.

Cells run over the kernel's websocket here, as in JupyterLab with its own server.
"""

import json
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect

SLOW = "import time\nfor i in range(8):\n    print('line', i, flush=True)\n    time.sleep(0.5)"


@pytest.fixture(scope="module")
def site(make_site):
    return make_site(DATASTORE_COLLABORATION="false")


@pytest.fixture
def notebook(site, request) -> str:
    """The path of a notebook with three empty cells."""
    path = f"{request.node.name}.ipynb"
    made = new_notebook(cells=[new_code_cell("") for _ in range(3)])
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(made, site.root_dir / path)
    return path


def cells_on_disk(site, path):
    return json.loads((site.root_dir / path).read_text())["cells"]


def test_from_the_launcher_to_a_saved_notebook(site, windows):
    window = windows()
    page = window.page
    expect(page.locator(".jp-Launcher")).to_be_visible()
    page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click()
    window.ready()
    window.run(0, "6 * 7")
    window.expect_output(0, "42")
    window.expect_prompt(0, "1")
    window.picture("run")
    page.keyboard.press("Control+s")
    # The first save of a new notebook asks for its name.
    dialog = window.expect_dialog()
    dialog.get_by_placeholder("File name").fill("first.ipynb")
    dialog.locator(".jp-mod-accept").click()
    window.wait_until((site.root_dir / "first.ipynb").exists)
    window.wait_until(lambda: cells_on_disk(site, "first.ipynb")[0]["outputs"])
    expect(page.locator(".jp-DirListing-item", has_text="first.ipynb")).to_be_visible()
    # Rename it from the file browser.
    page.locator(".jp-DirListing-item", has_text="first.ipynb").click(button="right")
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Rename")).click()
    page.keyboard.press("Control+a")
    page.keyboard.type("second.ipynb")
    page.keyboard.press("Enter")
    window.wait_until((site.root_dir / "second.ipynb").exists)
    expect(page.locator(".lm-TabBar-tabLabel", has_text="second.ipynb")).to_be_visible()
    window.run(0, "6 * 8")
    window.expect_output(0, "48")


def test_terminal(site, windows):
    window = windows()
    window.page.locator('.jp-LauncherCard[data-category="Other"]', has_text="Terminal").click()
    terminal = window.page.locator(".jp-Terminal .xterm-screen")
    terminal.click()
    window.page.keyboard.type("echo $((6*7)) > from-terminal.txt\n")
    window.wait_until((site.root_dir / "from-terminal.txt").exists)
    window.wait_until(lambda: (site.root_dir / "from-terminal.txt").read_text() == "42\n")
    window.picture("terminal")


def test_export_to_html(site, windows, notebook):
    window = windows(notebook)
    window.run(0, "print('to be exported')")
    window.expect_output(0, "to be exported")
    window.page.keyboard.press("Control+s")
    window.wait_until(lambda: cells_on_disk(site, notebook)[0]["outputs"])
    answers = []
    window.context.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108 (Playwright marks the handler)
    window.menu("File", "Save and Export Notebook As", "HTML")
    window.expect_dialog().locator(".jp-mod-accept").click()
    # It opens in a window of its own, which is a download and closes at once.
    exported = f"{site.url}nbconvert/html/{notebook}?"
    (answer,) = window.wait_until(lambda: [a for a in answers if a.url.startswith(exported)])
    assert answer.status == 200
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "to be exported" in site.http.get(answer.url).text


def test_settings_and_workspace_are_kept(site, windows):
    window = windows()
    window.menu("Settings", "Theme", "JupyterLab Dark")
    expect(window.page.locator("body")).to_have_attribute("data-jp-theme-light", "false")
    window.page.locator('.jp-LauncherCard[data-category="Other"]', has_text="Text File").click()
    editor = window.page.locator(".jp-FileEditor .cm-content")
    editor.click()
    window.page.keyboard.type("some text")
    window.page.keyboard.press("Control+s")
    window.expect_dialog().locator(".jp-mod-accept").click()
    window.wait_until(
        lambda: any(f.read_text() == "some text" for f in site.root_dir.glob("untitled*.txt"))
    )
    name = f"w-{window.name}"[:60]

    def saved():
        answer = site.http.get(f"lab/api/workspaces/{name}").json()
        return "untitled" in json.dumps(answer["data"])

    window.wait_until(saved)
    window.leave()
    window.return_to("")
    expect(window.page.locator("body")).to_have_attribute("data-jp-theme-light", "false")
    expect(window.page.locator(".jp-FileEditor .cm-content")).to_contain_text("some text")
    window.picture("restored")
    theme = site.http.get("lab/api/settings/@jupyterlab/apputils-extension:themes").json()
    assert theme["settings"]["theme"] == "JupyterLab Dark"
    assert theme["created"] <= theme["last_modified"]
    window.menu("Settings", "Theme", "JupyterLab Light")
    expect(window.page.locator("body")).to_have_attribute("data-jp-theme-light", "true")


def test_a_window_that_vanishes_loses_no_output(site, windows, notebook):
    """The front end's own executor: the server goes on writing the cell that it had started."""
    window = windows(notebook)
    window.run(0, SLOW)
    window.page.keyboard.press("Control+s")
    window.expect_output(0, "line 1")
    window.expect_prompt(0, "*")
    window.leave()

    def written():
        (output, *_) = cells_on_disk(site, notebook)[0]["outputs"] or [{"text": ""}]
        return "line 7" in "".join(output["text"])

    window.wait_until(written)
    window.return_to(notebook)
    window.expect_output(0, "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7")
    window.expect_prompt(0, "1")


def test_notebook_seven(site, windows, notebook):
    window = windows()
    # It says these on its own server too.
    window.expect_problems(
        "is duplicated",
        "Skipping {command",
        "failed to load for",
        "reading 'schema'",
        "Not same Y.Doc",
    )
    window.page.goto(f"{site.url}tree")
    expect(window.page.locator(".jp-DirListing-item", has_text=notebook)).to_be_visible()
    with window.page.expect_websocket(lambda socket: "/channels" in socket.url) as kernel:
        window.page.goto(f"{site.url}notebooks/{notebook}")
    kernel.value.wait_for_event("framereceived")
    window.cells.first.wait_for()
    window.write(0, "print(6 * 7)")

    def ran():  # what is run before the page has seen its kernel does nothing
        window.page.keyboard.press("Control+Enter")
        window.page.wait_for_timeout(1000)
        return "42" in window.output(0).inner_text()

    window.wait_until(ran)
    window.picture("notebook")
