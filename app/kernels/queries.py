"""Kernels as rows."""

from sqlalchemy import Select, select

from models import Kernel


def living_kernels() -> Select[Kernel]:
    """Kernels that have not been shut down, oldest first; dead ones remain until then."""
    return select(Kernel).where(Kernel.ended_at.is_(None)).order_by(Kernel.created_at, Kernel.id)


def living_kernel(kernel_id: str) -> Select[Kernel]:
    """The kernel with this id, unless it has been shut down."""
    return living_kernels().where(Kernel.id == kernel_id)
