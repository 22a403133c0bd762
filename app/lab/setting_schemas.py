"""The schemas of JupyterLab's plugins, as jupyterlab_server reads them from the wheels.

A person's own settings are rows (`app/lab/settings_routes.py`); here they are only held against
the schema. Everything here blocks.
"""

import logging
import threading
import time
from typing import Any

import json5
from jsonschema import Draft7Validator, ValidationError
from jupyterlab_server.settings_utils import _get_overrides, get_settings
from jupyterlab_server.translation_utils import (
    DEFAULT_LOCALE,
    PSEUDO_LANGUAGE,
    SYS_LOCALE,
    is_valid_locale,
    translator,
)
from tornado.web import HTTPError

from app.errors import BadRequestError, NotFoundError
from app.lab.assets import Assets

log = logging.getLogger(__name__)

LOCALE_SCHEMA = "@jupyterlab/translation-extension:plugin"
# How long what was read is kept: reading all takes a tenth of a second.
_KEEP_SECONDS = 10.0
_LANGUAGES_KEPT = 8
# A folder of user settings that is never there: those of this server are rows.
_NO_FOLDER = "/nonexistent/user-settings"
# This server fetches neither news nor versions from elsewhere, so nobody is asked about them.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
}

Plugin = dict[str, Any]


class SettingSchemas:
    """Every plugin's schema with the defaults and overrides of this installation, by its id."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets
        # jupyterlab_server's translator has one locale for the process.
        self._lock = threading.Lock()
        self._read: dict[str, tuple[float, dict[str, Plugin]]] = {}

    def plugins(self, locale: str = DEFAULT_LOCALE) -> dict[str, Plugin]:
        """Return all plugins, in jupyterlab_server's order; do not change what is returned."""
        with self._lock:
            known = self._read.get(locale)
            if known and time.monotonic() - known[0] < _KEEP_SECONDS:
                return known[1]
            found = self._list(locale)
            if len(self._read) > _LANGUAGES_KEPT:
                self._read.clear()
            self._read[locale] = (time.monotonic(), found)
            return found

    def plugin(self, schema_id: str, locale: str = DEFAULT_LOCALE) -> Plugin:
        """Return one plugin; NotFoundError (404) when no such plugin has a schema."""
        found = self.plugins(locale).get(schema_id)
        if found is None:
            raise NotFoundError(f"There is no setting {schema_id!r}")
        return found

    def parse(self, schema_id: str, raw: str) -> dict[str, Any]:
        """Return the settings in a person's JSON5; BadRequestError where the schema forbids them.

        NotFoundError (404) for an unknown plugin.
        """
        schema = self.plugin(schema_id)["schema"]
        try:
            settings = json5.loads(raw)
        except (ValueError, RecursionError) as error:
            raise BadRequestError(f"Failed parsing settings: {error}") from error
        try:
            Draft7Validator(schema).validate(settings)
        except (ValidationError, RecursionError) as error:
            raise BadRequestError(f"Failed validating input: {error}") from error
        if not isinstance(settings, dict):
            raise BadRequestError("Settings are a JSON object")
        return settings

    def fits(self, plugin: Plugin, settings: dict[str, Any]) -> bool:
        """Tell whether stored settings fit the schema, which may be newer than they are."""
        error = next(Draft7Validator(plugin["schema"]).iter_errors(settings), None)
        if error is not None:
            log.warning("settings of %s do not fit its schema: %s", plugin["id"], error.message)
        return error is None

    def _list(self, locale: str) -> dict[str, Plugin]:
        lab = self._assets.lab
        if lab is None:
            return {}
        translator.set_locale(locale)
        overrides, problem = _get_overrides(str(lab / "settings"))
        if problem:
            log.warning("Failed loading overrides: %s", problem)
        for plugin, defaults in _DEFAULTS.items():
            overrides[plugin] = defaults | overrides.get(plugin, {})
        try:
            result, warnings = get_settings(
                str(lab / "settings"),
                str(lab / "schemas"),
                _NO_FOLDER,
                overrides=overrides,
                labextensions_path=self._assets.extension_paths,
                translator=translator.translate_schema,
            )
        except HTTPError as error:
            raise NotFoundError(error.log_message or "The settings cannot be read") from error
        for warning in filter(None, warnings):
            log.warning("%s", warning)
        return {plugin["id"]: plugin for plugin in result["settings"]}


def usable_locale(wanted: Any) -> str:
    """Return a locale to translate to: the one that a person set, or this machine's."""
    locale = wanted if isinstance(wanted, str) and wanted not in ("", "default") else SYS_LOCALE
    if locale == PSEUDO_LANGUAGE or is_valid_locale(locale):
        return locale
    return str(DEFAULT_LOCALE)
