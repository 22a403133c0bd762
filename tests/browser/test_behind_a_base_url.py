"""What people do with files and documents beside writing and running, behind a base URL."""

import base64
import json
import re
from pathlib import Path

import httpx
import nbformat
import psycopg
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import expect

from tests.browser.window import Window
from tests.servers import TOKEN

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6o"
    "AAAAAElFTkSuQmCC"
)
PASTE = """encoded => {
    const bytes = Uint8Array.from(atob(encoded), letter => letter.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], 'pasted.png', { type: 'image/png' }));
    const paste = { clipboardData: data, bubbles: true, cancelable: true };
    document.activeElement.dispatchEvent(new ClipboardEvent('paste', paste));
}"""


@pytest.fixture(scope="module")
def site(make_site):
    # What a login shell does first is the machine's.
    return make_site(DATASTORE_BASE_URL="/x/y/", DATASTORE_TERMINAL_COMMAND="/bin/sh")


@pytest.fixture
def notebook(site, request) -> str:
    """The path of a notebook with a title and two empty code cells."""
    attempt = getattr(request.node, "execution_count", 1)  # one that is tried again begins anew
    path = f"{request.node.name}-{attempt}.ipynb"
    made = new_notebook(
        cells=[new_markdown_cell("# title"), new_code_cell(""), new_code_cell("")],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(made, site.root_dir / path)
    return path


def cells_on_disk(site, path):
    return json.loads((site.root_dir / path).read_text())["cells"]


def sources(site, path):
    return ["".join(cell["source"]) for cell in cells_on_disk(site, path)]


def item(window, name):
    return window.page.locator(".jp-DirListing-item", has_text=name)


def drag(window, name, folder):
    start, end = item(window, name).bounding_box(), item(window, folder).bounding_box()
    mouse = window.page.mouse
    mouse.move(start["x"] + 40, start["y"] + 8)
    mouse.down()
    mouse.move(start["x"] + 45, start["y"] + 20, steps=4)
    mouse.move(end["x"] + 40, end["y"] + 8, steps=8)
    mouse.up()


def person(site, enter, name, path, **grants):
    """Make a user with a role on a file; return a window of theirs on it, and their client."""
    people = site.http
    assert people.post("api/users", json={"name": name}).status_code in (201, 409)
    token = people.post("api/tokens", json={"user": name}).json()["token"]
    grant = {"user": name, "path": path, "role": "editor", **grants}
    assert people.post("api/permissions", json=grant).status_code == 201
    window = Window(enter(site, token), site, name=name)
    window.expect_problems("Disabling terminals plugin")
    window.page.goto(f"{site.url}lab/tree/{path}")
    window.cells.first.wait_for()
    return window, httpx.Client(
        base_url=site.url, headers={"Authorization": f"token {token}"}, timeout=60
    )


def test_files_are_moved_viewed_and_attached(site, windows, notebook):
    root = site.root_dir
    (root / "folder").mkdir()
    (root / "note.txt").write_text("note")
    (root / "picture.png").write_bytes(base64.b64decode(PNG))
    (root / "table.csv").write_text("a,b\n1,2\n")
    window = windows(notebook)
    # Chromium asks for the picture before JupyterLab has put the attachment there; elsewhere too.
    window.expect_problems("ERR_UNKNOWN_URL_SCHEME")
    drag(window, "note.txt", "folder")
    window.wait_until((root / "folder/note.txt").exists)
    assert not (root / "note.txt").exists()
    expect(item(window, "note.txt")).to_have_count(0)
    drag(window, notebook, "folder")  # while it is open
    moved = f"folder/{notebook}"
    window.wait_until((root / moved).exists)
    window.write(1, "x = 'typed after'")
    window.wait_until(lambda: "x = 'typed after'" in sources(site, moved))
    assert not (root / notebook).exists()
    window.cells.nth(0).locator(".jp-MarkdownOutput").dblclick()
    window.editor(0).click()
    window.page.keyboard.press("Control+End")
    window.page.evaluate(PASTE, PNG)
    expect(window.editor(0)).to_contain_text("attachment:")
    window.page.keyboard.press("Control+Enter")
    shown = window.cells.nth(0).locator(".jp-MarkdownOutput img")
    expect(shown).to_have_attribute("src", re.compile("^data:image/png;base64,"))
    window.wait_until(lambda: "attachments" in cells_on_disk(site, moved)[0])
    window.picture("attached")
    item(window, "picture.png").dblclick()
    expect(window.page.locator(".jp-ImageViewer img")).to_be_visible()
    item(window, "table.csv").dblclick()
    expect(window.page.locator(".jp-CSVViewer canvas").first).to_be_visible()
    window.picture("viewers")


def test_a_password_is_nobodys_but_the_kernels(site, windows, notebook):
    window, other = windows(notebook), windows(notebook)
    window.run(1, "import getpass\nprint('got', len(getpass.getpass('Secret: ')))")
    box = window.cells.nth(1).locator(".jp-Stdin-input")
    expect(box).to_have_attribute("type", "password")
    other.expect_prompt(1, "*")
    box.type("hunter2-hunter2")
    expect(other.page.locator("body")).not_to_contain_text("hunter2")
    box.press("Enter")
    for shown in (window, other):
        shown.expect_output(1, "got 15")
        expect(shown.page.locator("body")).not_to_contain_text("hunter2")
    window.wait_until(lambda: cells_on_disk(site, notebook)[1]["outputs"])
    assert "hunter2" not in (site.root_dir / notebook).read_text()
    assert "hunter2" not in site.server.log
    with psycopg.connect(site.database_url) as connection:
        tables = connection.execute(
            "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables"
            " WHERE table_type = 'BASE TABLE' AND table_schema NOT IN"
            " ('pg_catalog', 'information_schema')"
        ).fetchall()
        found = 0
        for (table,) in tables:
            query = (
                f"SELECT count(*), count(*) FILTER (WHERE t::text ~ 'hunter2|68756e74657232')"
                f" FROM {table} t"
            )
            count, secret = connection.execute(query).fetchone()
            assert not secret, table
            found += count
        assert found > 100


def test_exports_history_and_settings(site, windows, notebook):
    window = windows(notebook)
    page = window.page
    asked = []
    window.context.on("request", lambda request: asked.append(request.url))
    window.menu("File", "New", "Terminal")
    page.locator(".jp-Terminal .xterm-screen").click()
    page.keyboard.type("echo $((6*7)) > from-terminal.txt\n")
    window.wait_until((site.root_dir / "from-terminal.txt").exists)
    page.locator("#jp-main-dock-panel .lm-TabBar-tabLabel", has_text=notebook).click()
    window.write(1, "'first'")
    window.wait_until(lambda: "'first'" in sources(site, notebook))
    page.wait_for_timeout(5500)  # a pause, after which what is typed is another step
    window.write(1, "'second'")
    window.wait_until(lambda: "'second'" in sources(site, notebook))
    window.menu("File", "Save and Export Notebook As", "HTML")
    window.expect_dialog().locator(".jp-mod-accept").click()
    exported = f"{site.url}nbconvert/html/{notebook}?"
    window.wait_until(lambda: [url for url in asked if url.startswith(exported)])
    # The timeline: back by one step, and that taken over.
    page.locator('#jp-slider-status-bar [title="Document Timeline"]').click()
    page.locator("#jp-slider-status-bar input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    expect(window.editor(1)).to_have_text("'first'")
    window.picture("timeline")
    page.locator(".jp-restoreBtn").click()
    window.wait_until(lambda: "'first'" in sources(site, notebook))
    # No user interface of jupyter-collaboration's makes forks; its front end has the calls.
    room = (
        "json:notebook:"
        + json.loads(
            site.http.put(
                f"api/collaboration/session/{notebook}", json={"format": "json", "type": "notebook"}
            ).text
        )["fileId"]
    )
    fork = site.http.put(f"api/collaboration/fork/{room}", json={"title": "apart"}).json()
    assert list(site.http.get(f"api/collaboration/fork/{room}").json()) == [fork["fork_roomid"]]
    merged = site.http.delete(
        f"api/collaboration/fork/{fork['fork_roomid']}", params={"merge": "true"}
    )
    assert merged.status_code == 200
    window.menu("Settings", "Theme", "JupyterLab Dark")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", "false")
    window.leave()
    window.return_to(notebook)
    expect(window.page.locator("body")).to_have_attribute("data-jp-theme-light", "false")
    window.menu("Settings", "Theme", "JupyterLab Light")
    expect(window.page.locator("body")).to_have_attribute("data-jp-theme-light", "true")
    outside = [url for url in asked if re.match("https?:", url) and not url.startswith(site.url)]
    assert not outside
    # It says these on its own server too.
    window.expect_problems("is duplicated", "Skipping {command", "failed to load for", "'schema'")
    window.expect_problems("statusBarTimeline")
    window.page.goto(f"{site.url}tree")
    expect(item(window, notebook)).to_be_visible()


def test_a_notebook_is_open_as_text_too(site, windows, notebook):
    window, typist = windows(notebook), windows(notebook)
    typist.expect_problems("Saving failed")
    item(typist, notebook).click(button="right")
    labels = typist.page.locator(".lm-Menu-itemLabel")
    labels.filter(has_text=re.compile("^Open With")).click()
    labels.filter(has_text=re.compile("^Editor")).last.click()
    text = typist.page.locator(".jp-FileEditor .cm-content")
    expect(text).to_contain_text('"cells"')
    assert typist.page.locator(".jp-Dialog").count() == 0
    window.write(1, "x = 1")
    line = text.locator(".cm-line", has_text="x = 1")
    line.click()
    typist.page.keyboard.press("End")
    typist.page.keyboard.press("ArrowLeft")
    typist.page.keyboard.type("23")
    expect(window.editor(1)).to_have_text("x = 123")
    window.wait_until(lambda: "x = 123" in sources(site, notebook))
    # Half a notebook is told when it is to be saved, and nobody else gets it.
    typist.page.keyboard.press("End")
    typist.page.keyboard.type(",,")
    typist.page.keyboard.press("Control+s")
    typist.expect_dialog().locator("button").click()
    toast = typist.page.locator(".Toastify__toast", has_text="the text is no valid notebook")
    expect(toast).to_be_visible()
    typist.picture("no-notebook")
    window.write(2, "y = 2")
    window.wait_until(lambda: "y = 2" in sources(site, notebook))
    line.click()
    typist.page.keyboard.press("End")
    typist.page.keyboard.press("Backspace")
    typist.page.keyboard.press("Backspace")
    expect(text).to_contain_text("y = 2")
    expect(toast).to_have_count(0)
    typist.page.keyboard.press("Control+s")
    typist.expect_saved()
    assert sources(site, notebook) == ["# title", "x = 123", "y = 2"]


def test_a_file_that_is_made_unreadable_is_told(site, windows, notebook):
    window = windows(notebook)
    window.write(1, "before")
    window.wait_until(lambda: "before" in sources(site, notebook))
    file = site.root_dir / notebook
    file.write_text("{ no notebook")
    toast = window.page.locator(".Toastify__toast", has_text="unreadable")
    expect(toast).to_be_visible()
    window.write(1, "typed since")
    other = windows(notebook)
    expect(other.editor(1)).to_have_text("typed since")
    expect(other.page.locator(".Toastify__toast", has_text="unreadable")).to_be_visible()
    window.picture("unreadable")
    assert file.read_text() == "{ no notebook"
    toast.locator("button", has_text="Overwrite").click()
    window.wait_until(lambda: file.read_text() != "{ no notebook")
    assert "typed since" in sources(site, notebook)
    assert file.with_name(f"{file.stem}-unreadable.ipynb").read_text() == "{ no notebook"
    for one in (window, other):
        expect(one.page.locator(".Toastify__toast", has_text="Another program made")).to_have_count(
            0
        )
    # What was no notebook from the start says why it does not open.
    (site.root_dir / "never.ipynb").write_text("{ no notebook")
    other.expect_problems("Bad request for never", "did not become ready")
    item(other, "never.ipynb").dblclick()
    other.expect_dialog().locator("button").click()
    reason = other.page.locator(".Toastify__toast", has_text="Unreadable Notebook: never.ipynb")
    expect(reason).to_be_visible()


def test_a_right_that_changes_under_an_open_window(site, enter, windows, notebook):
    people = site.http
    attempt = Path(notebook).stem.rpartition("-")[2]
    group, name = f"writers-{attempt}", f"eve-{attempt}"
    assert people.post("api/groups", json={"name": group}).status_code == 201
    owner = windows(notebook)
    eve, _ = person(site, enter, name, notebook, role="viewer")
    eve.expect_problems("40[34]", "Connection lost", "may read this kernel, but not execute it")
    eve.expect_problems("WebSocket connection to .*/channels")
    assert people.put(f"api/groups/{group}/members/{name}").status_code == 204
    grant = {"group": group, "path": notebook, "role": "editor"}
    for again in (False, True):  # it is given, taken and given again
        permission = people.post("api/permissions", json=grant)
        assert permission.status_code == 201, permission.text
        expect(eve.page.locator(".Toastify__toast", has_text="You may change")).to_be_visible()
        eve.run(1, "print(6 * 7)")
        for window in (eve, owner):
            window.expect_output(1, "42")
        if again:
            break
        eve.write(2, "written")
        expect(owner.editor(2)).to_have_text("written")
        assert people.delete(f"api/permissions/{permission.json()['id']}").status_code == 204
        told = eve.page.locator(".Toastify__toast", has_text="is read-only for you now")
        expect(told).to_be_visible()
        eve.editor(2).click()
        eve.page.keyboard.type("not mine")
        expect(eve.editor(2)).to_have_text("written")
        eve.page.keyboard.press("Control+s")
        said = eve.page.locator(".Toastify__toast", has_text="Save as")
        expect(said).to_be_visible()
        eve.picture("read-only")
        owner.write(1, "print(6 * 7) # by the owner")
        expect(eve.editor(1)).to_have_text("print(6 * 7) # by the owner")
    owner.wait_until(lambda: sources(site, notebook)[2] == "written")
    assert not eve.problems
    eve.close()


def test_undo_here_and_over_http_and_named_versions(site, enter, windows, notebook):
    ada = windows(notebook)
    bob, bobs = person(site, enter, "bob", notebook)
    name = site.http.put(
        f"api/collaboration/session/{notebook}", json={"format": "json", "type": "notebook"}
    ).json()["fileId"]
    document = f"api/documents/{name}"

    def both(*texts):
        for window in (ada, bob):
            for index, text in enumerate(texts, start=1):
                expect(window.editor(index)).to_have_text(text)

    ada.editor(1).click()
    ada.page.keyboard.type("ada ")
    both("ada ", "")
    bob.editor(1).click()
    bob.page.keyboard.press("End")
    bob.page.keyboard.type("bob")
    both("ada bob", "")
    assert site.http.post(f"{document}/versions", json={"name": "v1"}).status_code == 201
    ada.page.wait_for_timeout(700)  # or it would be one step with what she did before
    ada.editor(2).click()
    ada.page.keyboard.type("more")
    both("ada bob", "more")
    # Over HTTP, then with the window's own undo, whose stack still has it: no harm is done.
    assert site.http.post(f"{document}/undo").json()["done"] == 1
    both("ada bob", "")
    ada.page.keyboard.press("Control+z")
    ada.editor(1).click()
    ada.page.keyboard.press("Control+z")
    both("bob", "")
    # What the window took back is an edit of Ada's, which HTTP takes back in turn.
    assert site.http.post(f"{document}/undo").json()["done"] == 1
    both("ada bob", "")
    bob.editor(1).click()
    bob.page.keyboard.press("Control+z")
    both("ada ", "")
    assert site.http.post(f"{document}/restore", json={"name": "v1"}).status_code == 200
    both("ada bob", "")
    bob.page.wait_for_timeout(700)  # or it would be one step with what he did before
    bob.editor(2).click()
    bob.page.keyboard.type("since")
    both("ada bob", "since")
    ada.editor(1).click()
    ada.page.keyboard.press("Control+z")
    assert site.http.post(f"{document}/undo").json()["done"] == 1  # the restoring
    both("ada ", "since")
    assert bobs.post(f"{document}/undo").json()["done"] == 1
    both("ada ", "")
    assert bobs.post(f"{document}/redo").json()["done"] == 1
    both("ada ", "since")
    bob.close()
    assert not bob.problems
    ada.wait_until(lambda: sources(site, notebook) == ["# title", "ada ", "since"])


def test_shut_down_from_the_menu(make_site, enter):
    site = make_site()
    nbformat.write(new_notebook(cells=[new_code_cell("")]), site.root_dir / "last.ipynb")
    window = Window(enter(site), site, name="shut-down")
    window.page.goto(f"{site.url}lab/tree/last.ipynb?token={TOKEN}")
    window.cells.first.wait_for()
    window.expect_dialog().locator(".jp-mod-accept").click()  # which kernel
    window.write(0, "typed just before")
    window.menu("File", "Shut Down")
    window.expect_dialog().locator(".jp-mod-warn").click()
    expect(window.page.locator("body")).to_contain_text("You have shut down the Jupyter server")
    assert site.server.process.wait(60) == 0
    assert sources(site, "last.ipynb") == ["typed just before"]
    window.close()
