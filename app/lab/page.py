"""The front ends' pages: their configuration, and the wheels' templates filled in with it.

The configuration has what JupyterLab with its own server has (jupyterlab_server's `LabHandler`),
but no token: a page acts with the browser's cookie.
"""

import json
import logging
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from jupyter_server import version_info as jupyter_server_version
from jupyter_server.services.kernels.kernelmanager import MappingKernelManager
from jupyterlab_server.config import LabConfig, get_federated_extensions, get_page_config

from app.lab.assets import Assets
from app.settings import Settings

log = logging.getLogger(__name__)

# Without collaboration these stay out, and what they replace comes back.
_COLLABORATION = frozenset(
    {
        "@jupyter/collaboration-extension",
        "@jupyter/docprovider-extension",
        "@datalayer/jupyter-server-nbmodel",
        "@jupyter-ai-contrib/server-documents",
    }
)
_DOCUMENT_PROVIDER = "@jupyter/docprovider-extension"


class Pages:
    """Renders pages; its methods read the disk, so call them in a thread."""

    def __init__(self, assets: Assets, settings: Settings) -> None:
        self._assets = assets
        self._settings = settings
        self._environments: dict[Path, Environment] = {}

    def lab(
        self,
        *,
        workspace: str,
        tree: str,
        document: bool,
        own: dict[str, Any],
        unknown: str | None = None,
    ) -> str:
        """Return JupyterLab's page on a workspace and a path; `unknown`: a path that is none.

        `own` is what the page says to this person alone.
        """
        assert self._assets.lab is not None
        config = self._config("JupyterLab", "lab", own)
        config |= {
            "mode": "single-document" if document else "multiple-document",
            "workspace": workspace,
            "treePath": tree,
        }
        if unknown is not None:
            config["notFoundUrl"] = unknown
        return self._render(self._assets.lab / "static", "index.html", config)

    def notebook(self, template: str, *, tree: str = "") -> str:
        """Return one of Jupyter Notebook's pages."""
        assert self._assets.notebook is not None
        base_url = self._settings.base_url
        config = self._config("Jupyter Notebook", "notebook", {})
        config |= {
            "frontendUrl": base_url,
            "nbclassic_enabled": False,
            "treePath": tree,
        }
        return self._render(self._assets.notebook / "templates", template, config)

    def _render(self, folder: Path, template: str, config: dict[str, Any]) -> str:
        environment = self._environments.setdefault(
            folder, Environment(loader=FileSystemLoader(folder), autoescape=True)
        )
        return environment.get_template(template).render(
            page_config=config, base_url=self._settings.base_url, ws_url="", custom_css=False
        )

    def _config(self, name: str, namespace: str, own: dict[str, Any]) -> dict[str, Any]:
        settings, lab = self._settings, self._assets.lab
        base_url = settings.base_url
        config = _urls(base_url)
        config |= {
            "allow_hidden_files": settings.allow_hidden,
            "appName": name,
            "appNamespace": namespace,
            "appVersion": version("jupyterlab" if namespace == "lab" else namespace),
            "baseUrl": base_url,
            "buildAvailable": False,
            "buildCheck": False,
            "cacheFiles": True,
            "copyAbsolutePath": False,
            "delete_to_trash": settings.delete_to_trash,
            "devMode": False,
            "exposeAppInBrowser": False,
            "extensionManager": {
                "name": "read-only",
                "can_install": False,
                "install_path": None,
            },
            "fullStaticUrl": f"{base_url}static/{namespace}",
            "ignorePlugins": [],
            "news": {"disabled": True},
            "notebookStartsKernel": True,
            "notebookVersion": json.dumps(jupyter_server_version[:3]),
            "preferredPath": "/",
            "quitButton": True,
            "rootUri": settings.root_dir.as_uri() if settings.root_dir.is_absolute() else "",
            "serverRoot": _from_home(settings.root_dir),
            "store_id": 0,
            "terminalsAvailable": settings.terminals_enabled,
            "token": "",
            # What a kernel does for these does not make it busy: it may be stopped in a debugger.
            "untracked_message_types": _untracked(),
            "wsUrl": "",
        }
        installed = get_page_config(
            self._assets.extension_paths, str(lab / "settings") if lab else None, logger=log
        )
        config |= installed
        self._collaborate(config)
        config |= own | settings.page_config
        # A window that runs cells itself would write into the shared document what they say, too.
        if not config["disableRTC"]:
            config["serverSideExecution"] = True
        return config

    def _collaborate(self, config: dict[str, Any]) -> None:
        """Have the server run cells where the front end follows documents, or take both out."""
        found = {extension["name"] for extension in config["federated_extensions"]}
        wanted = self._settings.collaboration and _DOCUMENT_PROVIDER in found
        config["disableRTC"] = not wanted
        config["serverSideExecution"] = wanted
        if wanted:
            return
        config["federated_extensions"] = [
            extension
            for extension in config["federated_extensions"]
            if extension["name"] not in _COLLABORATION
        ]
        replaced: set[str] = set()
        for name, data in get_federated_extensions(self._assets.extension_paths).items():
            if name in _COLLABORATION:
                replaced.update(data["jupyterlab"].get("disabledExtensions", []))
        disabled = config["disabledExtensions"]
        config["disabledExtensions"] = [name for name in disabled if name not in replaced]


def _untracked() -> list[str]:
    """Return the types of messages whose `status` says nothing of whether a kernel is busy."""
    trait: Any = MappingKernelManager.class_traits()["untracked_message_types"]
    types: list[str] = trait.make_dynamic_default()
    return types


def _urls(base_url: str) -> dict[str, Any]:
    """Return the addresses of the front ends' parts, bare and below the base URL."""
    lab = LabConfig(licenses_url="/lab/api/licenses")
    urls: dict[str, Any] = {}
    for name in lab.trait_names():
        if name.endswith("_url"):
            camel = _camel(name)
            path = "/" + getattr(lab, name).strip("/")
            urls[camel] = path
            urls[f"full{camel[0].upper()}{camel[1:]}"] = base_url + path.lstrip("/")
    return urls


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def _from_home(folder: Path) -> str:
    home = Path.home()
    if folder.is_relative_to(home):
        return f"~/{folder.relative_to(home).as_posix()}".removesuffix("/.")
    return os.fspath(folder)
