"""`GET /api/kernelspecs` and its records."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from jupyter_client.kernelspec import KernelSpecManager
from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert

from app.auth.access import allow
from app.auth.identity import Identity
from app.db.engine import Database, Transaction
from app.errors import NotFoundError
from models import Kernelspec

router = APIRouter()


@router.get("/api/kernelspecs")
async def list_kernelspecs(
    request: Request, _: Annotated[Identity, allow("read", "kernelspecs")]
) -> dict[str, Any]:
    """List what can be started, as Jupyter Server does, and record it."""
    database: Database = request.app.state.database
    default = request.app.state.kernels.default_name()
    specs = await _find(request)
    async with database.transaction(as_server=True) as tx:
        await _record(tx, specs, default)
    return {"default": default, "kernelspecs": specs}


@router.get("/api/kernelspecs/{name}")
async def get_kernelspec(
    name: str, request: Request, _: Annotated[Identity, allow("read", "kernelspecs")]
) -> dict[str, Any]:
    """Return one kernelspec; 404 when there is none with this name."""
    specs = await _find(request)
    if name.lower() not in specs:  # jupyter_client knows them in lower case
        raise NotFoundError(f"Kernel spec {name} not found")
    return specs[name.lower()]


async def _find(request: Request) -> dict[str, dict[str, Any]]:
    manager: KernelSpecManager = request.app.state.kernels.specs
    base_url = request.app.state.settings.base_url
    found = await asyncio.to_thread(manager.get_all_specs)
    return {
        name: {
            "name": name,
            "spec": entry["spec"],
            "resources": _resources(base_url, name, Path(entry["resource_dir"])),
        }
        for name, entry in found.items()
    }


def _resources(base_url: str, name: str, folder: Path) -> dict[str, str]:
    files = [folder / "kernel.js", folder / "kernel.css", *folder.glob("logo-*")]
    return {
        file.stem if file.name.startswith("logo-") else file.name: (
            f"{base_url}kernelspecs/{name}/{file.name}"
        )
        for file in files
        if file.exists()
    }


async def _record(tx: Transaction, specs: dict[str, dict[str, Any]], default: str) -> None:
    """Make the rows equal to what was found; unchanged rows are not written."""
    await tx.execute(delete(Kernelspec).where(Kernelspec.name.not_in(list(specs))))
    for name in sorted(specs):
        values = {
            "spec": specs[name]["spec"],
            "resources": specs[name]["resources"],
            "is_default": name == default,
        }
        statement = insert(Kernelspec).values(name=name, **values)
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["name"],
                set_=values,
                where=(Kernelspec.spec != statement.excluded.spec)
                | (Kernelspec.resources != statement.excluded.resources)
                | (Kernelspec.is_default != statement.excluded.is_default),
            )
        )
