"""What the front ends ask about the installation: languages, licences, extensions. It blocks."""

import traceback
from pathlib import Path
from typing import Any

from jupyterlab_server.config import get_federated_extensions, get_page_config
from jupyterlab_server.licenses_handler import LicensesManager
from jupyterlab_server.translation_utils import (
    SYS_LOCALE,
    get_language_pack,
    get_language_packs,
    is_valid_locale,
)

from app.errors import BadRequestError
from app.lab.assets import Assets


def language_packs(display_locale: str) -> dict[str, Any]:
    """Return the languages that are installed, with their names in `display_locale`."""
    data, message = get_language_packs(display_locale=display_locale)
    return {"data": data, "message": message}


def language_pack(locale: str) -> dict[str, Any]:
    """Return the texts of a language; without any, the message says why."""
    wanted = SYS_LOCALE if locale in ("", "default") else locale
    try:
        data, message = get_language_pack(wanted)
    except Exception:  # noqa: BLE001 (the front end starts without texts, not without an answer)
        return {"data": {}, "message": traceback.format_exc()}
    if not data and not message and locale not in ("", "default"):
        problem = "not installed" if is_valid_locale(wanted) else "not valid"
        message = f"Language pack '{wanted}' {problem}!"
    return {"data": data, "message": message}


class _Licenses(LicensesManager):
    """jupyterlab_server's report, of what is installed here."""

    def __init__(self, assets: Assets) -> None:
        super().__init__()
        self._assets = assets

    @property
    def federated_extensions(self) -> dict[str, Any]:
        found: dict[str, Any] = get_federated_extensions(self._assets.extension_paths)
        return found

    def app_static_info(self) -> tuple[Path | None, str | None]:
        if self._assets.lab is None:
            return None, None
        return self._assets.lab / "static", "@jupyterlab/application-top"


def licences(assets: Assets, *, form: str, bundles: str, full_text: bool) -> tuple[str, str]:
    """Return a report of third-party licences as json, csv or markdown, and its media type."""
    try:
        report, media_type = _Licenses(assets).report(form, bundles, full_text)
    except ValueError as error:  # a form that there is not, or no regular expression
        raise BadRequestError(str(error)) from error
    return report, media_type


def installed_extensions(assets: Assets) -> list[dict[str, Any]]:
    """Return the prebuilt extensions as the extension manager lists them."""
    settings = str(assets.lab / "settings") if assets.lab else None
    disabled = set(get_page_config(assets.extension_paths, settings)["disabledExtensions"])
    return [
        {
            "name": name,
            "description": data["description"],
            "homepage_url": data["url"],
            "pkg_type": "prebuilt",
            "allowed": True,
            "approved": False,
            "companion": None,
            "core": False,
            "enabled": name not in disabled,
            "install": data.get("install", {}),
            "installed": True,
            "installed_version": data["version"],
            "latest_version": data["version"],
            "status": "ok",
            "author": None,
            "license": None,
            "bug_tracker_url": None,
            "documentation_url": None,
            "package_manager_url": None,
            "repository_url": data.get("repository", {}).get("url"),
        }
        for name, data in sorted(get_federated_extensions(assets.extension_paths).items())
    ]
