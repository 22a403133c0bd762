"""What is said within `with Output():` is the widget's, as in a front end that runs the cell."""

import json

from sqlalchemy import select

from models import Output
from tests.kernels import read_notebook, run, start_kernel, until, write_notebook

CODE = """
from IPython.display import clear_output, display
from ipywidgets import Output
out, inner = Output(), Output()
print('before')
with out:
    print('inside')
    clear_output(wait=True)
    print('again')
    with inner:
        print('deeper')
    display('shown')
    raise ValueError('caught by the widget')
print('after')
"""
INTERACT = """
from ipywidgets import interact
print('kept')
interact(lambda x: x * x, x=4);
"""


async def said_on_comms(database):
    """The texts of the rows that no cell shows, by comm, in the order of the comms' first."""
    async with database.read() as session:
        query = select(Output).where(Output.comm_id.is_not(None)).order_by(Output.id)
        rows = (await session.execute(query)).scalars().all()
    assert all(row.cell_id is None for row in rows)
    found = {}
    for row in rows:
        if row.cleared_at is None:
            said = row.text or row.evalue or row.data["text/plain"]
            found.setdefault(row.comm_id, []).append(said)
    return list(found.values())


async def cell_outputs(root_dir, wanted):
    async def saved():
        (cell,) = read_notebook(root_dir / "a.ipynb")["cells"]
        return cell["outputs"] if wanted in json.dumps(cell["outputs"]) else None

    return await until(saved)


async def test_an_output_widget_takes_what_is_said_within_it(client, database, root_dir):
    kernel = await start_kernel(client)
    (cell,) = write_notebook(root_dir / "a.ipynb", CODE)
    record = await run(client, kernel, "", path="a.ipynb", cell_id=cell)
    assert record["status"] == "ok"
    assert await said_on_comms(database) == [
        ["again\n", "'shown'", "caught by the widget"],
        ["deeper\n"],
    ]
    (output,) = await cell_outputs(root_dir, "after")
    assert "".join(output["text"]) == "before\nafter\n"
    # Later in another cell: `out` is a widget still.
    record = await run(client, kernel, "with out: print('later')\nprint('mine')")
    assert [o["text"] for o in record["outputs"]] == ["mine\n"]
    assert (await said_on_comms(database))[0][-1] == "later\n"


async def test_interact_clears_its_own_outputs_alone(client, database, root_dir):
    kernel = await start_kernel(client)
    (cell,) = write_notebook(root_dir / "a.ipynb", INTERACT)
    record = await run(client, kernel, "", path="a.ipynb", cell_id=cell)
    assert record["status"] == "ok"
    outputs = await cell_outputs(root_dir, "widget-view")
    assert [output["output_type"] for output in outputs] == ["stream", "display_data"]
    assert "".join(outputs[0]["text"]) == "kept\n"
    assert await said_on_comms(database) == [["16"]]
