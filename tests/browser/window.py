"""A browser's window with JupyterLab in it, and what a person does there."""

import os
import re
import time
from pathlib import Path

from playwright.sync_api import BrowserContext, Locator, expect

FLAGS = [
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 30_000  # milliseconds; the machine may be crowded
expect.set_options(timeout=PATIENCE)


class Window:
    """One window of a person's; it notes all that a browser complains about."""

    def __init__(self, context: BrowserContext, site, *, name: str) -> None:
        self.site = site
        self.name = re.sub(r"\W+", "-", name)
        self.problems: list[str] = []
        self._expected: list[re.Pattern[str]] = []
        self.context = context
        self.page = self.context.new_page()
        self._listen()

    def _listen(self) -> None:
        page = self.page
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._note(f"page error: {error}"))
        page.on(
            "response",
            lambda answer: (
                self._note(f"{answer.status} {answer.request.method} {answer.url}")
                if answer.status >= 400
                else None
            ),
        )

    def _console(self, message) -> None:
        if message.type in ("error", "warning"):
            self._note(f"console {message.type}: {message.text} ({message.location.get('url')})")

    # What JupyterLab says on its own server too: a kernel tells every window of a comm that one of
    # them opened; a machine is slow; and what Chromium says where there is no graphics card.
    _KNOWN = re.compile(r"Comm not found for comm id|ms to activate|GPU stall due to ReadPixels")

    def _note(self, problem: str) -> None:
        if not any(pattern.search(problem) for pattern in (self._KNOWN, *self._expected)):
            self.problems.append(problem)

    def expect_problems(self, *patterns: str) -> None:
        """Let problems pass that these regular expressions find, from now on."""
        self._expected += [re.compile(pattern) for pattern in patterns]

    # coming and going

    def go(self, path: str = "", *, workspace: str | None = None) -> None:
        workspace = workspace or f"w-{self.name}"[:60]
        tree = f"/tree/{path}" if path else ""
        self.page.goto(f"{self.site.url}lab/workspaces/{workspace}{tree}")
        self.page.locator("#jp-main-dock-panel").wait_for()
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")
        if path.endswith(".ipynb"):
            self.ready()

    def leave(self) -> None:
        """Close the window for a while; `return_to` opens another with the same cookies."""
        self.page.close()

    def return_to(self, path: str) -> None:
        self.page = self.context.new_page()
        self._listen()
        self.go(path)

    def close_when_said(self, title: str) -> None:
        """Close the dialog of this title whenever it is in the way."""
        dialog = self.page.locator(".jp-Dialog", has_text=title)
        close = dialog.locator("button.jp-mod-reject")
        self.page.add_locator_handler(dialog, lambda _: close.click())

    def close(self) -> None:
        self.page.close()

    def picture(self, name: str) -> None:
        folder = os.environ.get("DATASTORE_SCREENSHOTS")
        if folder and not self.page.is_closed():
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f"{folder}/{self.name}-{name}.png")

    def wait_until(self, check, seconds: float = 30):
        """Return what `check` returns once it is true; the browser goes on meanwhile."""
        deadline = time.monotonic() + seconds
        while not (found := check()):
            assert time.monotonic() < deadline, "waited in vain"
            if self.page.is_closed():
                time.sleep(0.05)
            else:
                self.page.wait_for_timeout(50)
        return found

    # the notebook

    @property
    def notebook(self) -> Locator:
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")

    @property
    def cells(self) -> Locator:
        return self.notebook.locator(".jp-Notebook .jp-Cell")

    def ready(self) -> None:
        """Wait until the notebook is shown and its kernel idle."""
        self.cells.first.wait_for()
        self.notebook.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for()
        # The indicator says so before there is a kernel; the status bar does not.
        self.page.locator(".jp-StatusBar-Widget", has_text="| Idle").wait_for()

    def editor(self, index: int) -> Locator:
        return self.cells.nth(index).locator(".cm-content")

    def write(self, index: int, text: str) -> None:
        """Replace a cell's text."""
        self.editor(index).click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)

    def run(self, index: int, text: str | None = None) -> None:
        if text is not None:
            self.write(index, text)
        else:
            self.editor(index).click()
        self.page.keyboard.press("Control+Enter")

    def output(self, index: int) -> Locator:
        return self.cells.nth(index).locator(".jp-Cell-outputArea")

    def prompt(self, index: int) -> Locator:
        return self.cells.nth(index).locator(".jp-InputPrompt")

    def expect_output(self, index: int, text) -> None:
        expect(self.output(index)).to_contain_text(text)

    def expect_saved(self) -> None:
        """Expect the tab to say that the file has what is shown."""
        current = ".lm-TabBar-tab.jp-mod-current.jp-mod-dirty"
        expect(self.page.locator(f"#jp-main-dock-panel {current}")).to_have_count(0)

    def expect_prompt(self, index: int, text: str) -> None:
        expect(self.prompt(index)).to_have_text(f"[{text}]:")

    # the rest of JupyterLab

    def menu(self, *items: str) -> None:
        self.page.locator(f'.lm-MenuBar-itemLabel:text-is("{items[0]}")').click()
        for item in items[1:]:
            label = self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{item}"))
            label.first.click()

    def command(self, command: str, **arguments) -> None:
        """Run a command by the palette's search."""
        self.page.keyboard.press("Control+Shift+C")
        self.page.locator("#modal-command-palette input").fill(command)
        self.page.locator("#modal-command-palette .lm-CommandPalette-item").first.click()

    def expect_dialog(self) -> Locator:
        dialog = self.page.locator(".jp-Dialog")
        dialog.wait_for()
        return dialog
