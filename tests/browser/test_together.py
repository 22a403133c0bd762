"""People in one notebook: live, run by the server, and nothing lost when windows close."""

import json
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect

from tests.browser.window import Window

SLOW = "import time\nfor i in range(8):\n    print('line', i, flush=True)\n    time.sleep(0.5)"
SAID = "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7"


@pytest.fixture(scope="module")
def site(make_site):
    return make_site()


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


def sources(site, path):
    return ["".join(cell["source"]) for cell in cells_on_disk(site, path)]


def test_two_windows_write_and_run(site, windows, notebook):
    one = windows(notebook)
    two = windows(notebook)
    one.write(0, "print(6 * 7)")
    expect(two.editor(0)).to_have_text("print(6 * 7)")
    two.write(1, "print('from two')")
    expect(one.editor(1)).to_have_text("print('from two')")
    one.run(0)
    for window in (one, two):
        window.expect_output(0, "42")
        window.expect_prompt(0, "1")
    one.picture("ran")
    one.wait_until(lambda: cells_on_disk(site, notebook)[0]["outputs"])
    (execution,) = site.http.get("api/executions", params={"path": notebook}).json()["executions"]
    assert (execution["client"], execution["actor"]) == ("api", "ada")


def test_all_windows_close_in_the_middle_of_a_run(site, windows, notebook):
    window = windows(notebook)
    window.run(0, SLOW)
    window.expect_output(0, "line 1")
    window.expect_prompt(0, "*")
    window.leave()
    window.return_to(notebook)
    window.expect_output(0, SAID)
    window.expect_prompt(0, "1")


def test_input_is_asked_and_answered(site, windows, notebook):
    window = windows(notebook)
    window.run(0, "name = input('Who? ')\nprint('hello', name)")
    box = window.cells.nth(0).locator(".jp-Stdin-input")
    box.fill("Ada")
    box.press("Enter")
    window.expect_output(0, "hello Ada")
    window.expect_saved()


WRITES_OVER = """
import sys, time
from IPython.display import clear_output, display
shown = display("first", display_id=True)
for i in range(5):
    sys.stdout.write(f"\\rstep {i} of 4")
    sys.stdout.flush()
    time.sleep(0.05)
shown.update("second")
"""
CLEARS = """
from IPython.display import clear_output
for i in range(5):
    clear_output(wait=True)
    print("now", i)
"""
WIDGET = """
import ipywidgets
slider = ipywidgets.IntSlider(value=3, max=10)
out = ipywidgets.Label()
slider.observe(lambda change: setattr(out, "value", f"is {change.new}"), "value")
display(slider, out)
"""


def test_outputs_that_change_look_as_usual(site, windows, notebook):
    window, other = windows(notebook), windows(notebook)
    window.run(0, WRITES_OVER)
    expect(window.output(0)).to_have_text(re.compile("'second'\\s*step 4 of 4"))
    expect(window.output(0)).not_to_contain_text("step 3")
    expect(window.output(0)).not_to_contain_text("first")
    window.run(1, CLEARS)
    window.expect_output(1, "now 4")
    expect(window.output(1)).not_to_contain_text("now 3")
    window.expect_prompt(1, "2")
    # Nobody has trusted this notebook: what is run now is trusted all the same, everywhere.
    window.run(2, WIDGET)
    window.output(2).locator(".noUi-handle").press("ArrowRight")
    for shown in (window, other):
        shown.expect_output(2, "is 4")
        expect(shown.output(2).locator(".noUi-handle")).to_have_count(1)
    window.picture("widgets")


TAKES = """
import time
import ipywidgets
from IPython.display import clear_output, display
out = ipywidgets.Output()
display(out)
with out:
    for i in range(30):
        clear_output(wait=True)
        print("tick", i)
        time.sleep(0.1)
print("mine")
"""
INTERACT = """
print("kept")
ipywidgets.interact(lambda x: f"is {x}", x=4);
"""


def test_output_widgets_take_what_is_said_within_them(site, windows, notebook):
    window, other = windows(notebook), windows(notebook)
    taken = [w.output(0).locator(".jp-OutputArea .jp-OutputArea-output") for w in (window, other)]
    window.run(0, TAKES)
    for shown in taken:  # while the cell runs
        expect(shown).to_have_text(re.compile(r"tick [12]?\d\s*"))
    window.expect_prompt(0, "*")
    window.expect_output(0, "mine")
    window.run(1, INTERACT)
    for w, shown in zip((window, other), taken, strict=True):
        expect(shown).to_have_text(re.compile(r"^\s*tick 29\s*$"))
        w.expect_output(1, "is 4")
        w.expect_output(1, "kept")
    window.output(1).locator(".noUi-handle").press("ArrowRight")
    for w in (window, other):
        w.expect_output(1, "is 5")
        expect(w.output(1)).not_to_contain_text("is 4")
    window.picture("taken")
    window.expect_saved()
    assert "tick" not in json.dumps([cell["outputs"] for cell in cells_on_disk(site, notebook)])


CALLS = """def add(a, b):
    total = a + b
    return total

print("sum", add(1, 2))"""


def test_the_debugger_stops_shows_and_goes_on(site, windows, notebook):
    window = windows(notebook)
    page = window.page
    window.write(0, CALLS)
    page.locator(".jp-DebuggerBugButton").click()
    gutter = window.cells.nth(0).locator(".cm-gutter.cm-breakpoint-gutter")
    gutter.wait_for()
    line = window.cells.nth(0).locator(".cm-line").nth(1).bounding_box()
    column = gutter.bounding_box()
    page.mouse.click(column["x"] + column["width"] / 2, line["y"] + line["height"] / 2)
    expect(page.locator(".jp-DebuggerBreakpoint")).to_have_count(1)
    window.run(0)
    frames = page.locator(".jp-DebuggerCallstackFrame")
    expect(frames).to_have_count(2)
    here = page.locator(".jp-DebuggerEditor-highlight")
    expect(here).to_have_text("    total = a + b")
    variables = page.locator(".jp-DebuggerVariables-body jp-tree-item")
    expect(variables).to_have_text(["a1", "b2"])
    # What the debugger asks the kernel meanwhile does not make it idle.
    expect(page.locator(".jp-StatusBar-Widget", has_text="| Busy")).to_have_count(1)
    window.expect_prompt(0, "*")
    window.picture("stopped")
    page.locator('[data-command="debugger:next"]:visible').last.click()
    expect(here).to_have_text("    return total")
    expect(variables).to_have_text(["a1", "b2", "total3"])
    expect(page.locator(".jp-StatusBar-Widget", has_text="| Busy")).to_have_count(1)
    page.locator('[data-command="debugger:continue"]:visible').last.click()
    window.expect_output(0, "sum 3")
    window.expect_prompt(0, "1")
    expect(frames).to_have_count(0)
    page.locator(".jp-DebuggerBugButton").click()
    window.ready()


def test_queued_cells_wait_their_turn(site, windows, notebook):
    window = windows(notebook)
    window.write(0, "import time; time.sleep(3); print('a')")
    window.write(1, "print('b')")
    window.write(2, "1/0")
    window.menu("Run", "Run All Cells")
    for index in range(3):
        window.expect_prompt(index, "*")
    window.picture("queued")
    window.expect_output(0, "a")
    window.expect_output(1, "b")
    window.expect_output(2, "ZeroDivisionError")
    for index in range(3):
        window.expect_prompt(index, str(index + 1))
    answer = site.http.get("api/executions", params={"path": notebook}).json()
    statuses = [execution["status"] for execution in answer["executions"]]
    assert statuses == ["error", "ok", "ok"]


def test_five_windows_type_at_once(site, windows, notebook):
    opened = [windows(notebook) for _ in range(5)]
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    for window in opened:
        window.editor(0).click()
    # One key in each window in turn: all of them are typing at the same time.
    for letter in range(7):
        for window, word in zip(opened, words, strict=True):
            if letter < len(word):
                window.page.keyboard.type(word[letter])
    texts = [window.editor(0) for window in opened]

    def agree():
        found = {text.inner_text() for text in texts}
        return len(found) == 1 and sorted(found.pop()) == sorted("".join(words))

    opened[0].wait_until(agree)
    opened[0].run(2, SLOW)
    for window in opened:
        window.expect_output(2, SAID)
    opened[0].picture("five")
    opened[0].wait_until(lambda: sources(site, notebook)[0] == texts[0].inner_text())
    assert len(cells_on_disk(site, notebook)) == 3


def test_undo_takes_back_ones_own(site, windows, notebook):
    one, two = windows(notebook), windows(notebook)
    one.editor(0).click()
    one.page.keyboard.type("mine ")
    expect(two.editor(0)).to_have_text("mine ")
    two.editor(0).click()
    two.page.keyboard.press("End")
    two.page.keyboard.type("yours")
    expect(one.editor(0)).to_have_text("mine yours")
    one.page.keyboard.press("Control+z")
    for window in (one, two):
        expect(window.editor(0)).to_have_text("yours")


def test_a_window_without_network_catches_up(site, enter, windows, notebook):
    away, here = windows(notebook, context=enter(site)), windows(notebook)
    away.expect_problems("ERR_INTERNET_DISCONNECTED", "WebSocket", "[Nn]etwork|fetch|NetworkError")
    away.context.set_offline(True)
    away.editor(0).click()
    away.page.keyboard.type("typed away")
    here.run(1, "print('typed here')")
    here.expect_output(1, "typed here")
    away.page.wait_for_timeout(3000)
    away.context.set_offline(False)
    away.expect_output(1, "typed here")
    expect(here.editor(0)).to_have_text("typed away")
    assert away.cells.count() == here.cells.count() == 3


def test_the_server_restarts_under_open_windows(site, windows, notebook):
    one, two = windows(notebook), windows(notebook)
    one.run(0, "print('before')")
    two.expect_output(0, "before")
    sessions = site.http.get("api/sessions").json()
    (kernel,) = {found["kernel"]["id"] for found in sessions if found["path"] == notebook}
    for window in (one, two):
        # While it is away, and then once of the kernel, which ended with it.
        window.expect_problems("ERR_CONNECTION", "WebSocket", "NetworkError|Failed to fetch")
        window.expect_problems(f"404.*{kernel}", f"{kernel}.*404", "Connection lost, reconnecting")
        window.close_when_said("Server Connection Error")
    site.restart()
    one.write(1, "print('after')")
    expect(two.editor(1)).to_have_text("print('after')")
    two.editor(0).click()
    two.page.keyboard.press("End")
    two.page.keyboard.type(" # kept")
    expect(one.editor(0)).to_have_text("print('before') # kept")
    one.wait_until(
        lambda: sources(site, notebook) == ["print('before') # kept", "print('after')", ""]
    )
    assert one.cells.count() == two.cells.count() == 3
    two.expect_output(0, "before")
    one.notebook.get_by_text("No Kernel").click()
    one.expect_dialog().locator(".jp-mod-accept").click()
    one.ready()
    one.picture("new-kernel")
    one.run(1)
    for window in (one, two):
        window.expect_output(1, "after")
        window.expect_prompt(1, "1")


def test_a_viewer_follows_and_changes_nothing(site, enter, windows, notebook):
    owner = windows(notebook)
    people = site.http
    assert people.post("api/users", json={"name": "eve"}).status_code == 201
    token = people.post("api/tokens", json={"user": "eve"}).json()["token"]
    grant = {"user": "eve", "path": notebook, "role": "viewer"}
    assert people.post("api/permissions", json=grant).status_code == 201
    viewer = Window(enter(site, token), site, name="viewer")
    viewer.page.goto(f"{site.url}lab/tree/{notebook}")
    viewer.cells.first.wait_for()
    expect(viewer.notebook.locator(".jp-NotebookPanel-toolbar")).to_contain_text("is read-only")
    owner.run(0, "print(6 * 7)")
    viewer.expect_output(0, "42")
    viewer.editor(1).click()
    viewer.page.keyboard.type("not mine to write")
    viewer.page.keyboard.press("Control+Enter")
    viewer.page.keyboard.press("Control+s")
    expect(viewer.page.locator(".Toastify__toast", has_text="is read-only")).to_be_visible()
    expect(viewer.editor(1)).to_have_text("")
    viewer.picture("viewer")
    owner.write(2, "written")
    expect(viewer.editor(2)).to_have_text("written")
    expect(owner.editor(1)).to_have_text("")
    owner.wait_until(lambda: sources(site, notebook)[1:] == ["", "written"])
    viewer.close()
    answer = site.http.get("api/executions", params={"path": notebook}).json()
    assert [execution["actor"] for execution in answer["executions"]] == ["ada"]
    # The kernel's websocket is refused again and again: that is no error of the server's.
    assert "Traceback" not in site.server.log


def test_what_was_changed_on_both_sides_is_told(site, windows, notebook):
    window = windows(notebook)
    former = json.loads((site.root_dir / notebook).read_text())
    window.write(0, "typed")
    window.write(1, "typed, too")
    window.wait_until(lambda: sources(site, notebook)[:2] == ["typed", "typed, too"])
    former["cells"][0]["source"] = "by a program"
    (site.root_dir / notebook).write_text(json.dumps(former))
    expect(window.cells).to_have_count(4)
    toast = window.page.locator(".Toastify__toast", has_text="cell 2 is what the file had")
    expect(toast).to_be_visible()
    window.picture("both-sides")
    wanted = ["typed", "by a program", "typed, too", ""]
    window.wait_until(lambda: sources(site, notebook) == wanted)
