"""A real ipywidgets slider: its state is in the tables and survives whoever shows it."""

import json

from sqlalchemy import select

from models import CommMessage, Output
from tests.app.comms.conftest import ending, received
from tests.kernels import read_notebook, run, start_kernel, text_of, until, write_notebook

SLIDER = """
from ipywidgets import IntSlider
slider = IntSlider(value=3, min=0, max=100)
def moved(change): print('moved to', change['new'])
slider.observe(moved, 'value')
"""


async def slider_of(client, kernel):
    """The record of the kernel's slider."""
    comms = (
        await client.get(f"/api/kernels/{kernel}/comms", params={"target_name": "jupyter.widget"})
    ).json()
    (found,) = [c for c in comms if c["data"]["state"]["_model_name"] == "IntSliderModel"]
    return found


async def value_is(client, comm, value):
    async def reached():
        record = (await client.get(f"/api/comms/{comm['id']}")).json()
        return record if record["data"]["state"]["value"] == value else None

    return await until(reached)


async def move(client, comm, value):
    body = {"data": {"method": "update", "state": {"value": value}, "buffer_paths": []}}
    response = await client.post(f"/api/comms/{comm['id']}/messages", json=body)
    assert response.status_code == 202, response.text
    return response.json()["msg_id"]


async def test_a_slider_survives_its_client(client, database, root_dir):
    kernel = await start_kernel(client)
    (cell,) = write_notebook(root_dir / "a.ipynb", SLIDER)
    created = await run(client, kernel, "", path="a.ipynb", cell_id=cell)
    assert created["status"] == "ok", created["evalue"]
    comm = await slider_of(client, kernel)
    assert comm["execution_id"] == created["id"]
    assert comm["metadata"]["version"].startswith("2.")
    assert comm["data"]["state"]["value"] == 3

    # A client moves it over plain HTTP; the kernel's word is recorded after the client's.
    msg_id = await move(client, comm, 42)
    comm = await value_is(client, comm, 42)
    messages = (await client.get(f"/api/comms/{comm['id']}/messages")).json()["messages"]
    told = [(m["direction"], m["data"].get("method")) for m in messages]
    assert told[:3] == [("kernel", None), ("client", "update"), ("kernel", "echo_update")]
    assert messages[1]["msg_id"] == msg_id
    assert messages[2]["data"]["state"] == {"value": 42}
    assert text_of(await run(client, kernel, "print(slider.value)")) == "42\n"

    # Another moves it over a websocket and goes away without a word.
    channel = await client.connect(f"/api/comms/{comm['id']}/channel?after={messages[-1]['id']}")
    await channel.send(json.dumps({"data": {"method": "update", "state": {"value": 55}}}))
    assert (await received(channel))["direction"] == "client"
    channel.transport.abort()
    comm = await value_is(client, comm, 55)
    assert text_of(await run(client, kernel, "print(slider.value)")) == "55\n"

    # The kernel moves it while nobody looks; it keeps to its limits.
    await run(client, kernel, "slider.value = 77")
    await value_is(client, comm, 77)
    await move(client, comm, 1000)
    await value_is(client, comm, 100)
    # What is no attribute of the slider has no effect there, nor here.
    await client.post(
        f"/api/comms/{comm['id']}/messages",
        json={"data": {"method": "update", "state": {"value": 8, "nonsense": 1}}},
    )
    comm = await value_is(client, comm, 8)
    assert "nonsense" not in comm["data"]["state"]

    # What the callback printed belongs to the execution that made the slider, in no cell.
    record = (await client.get(f"/api/executions/{created['id']}")).json()
    assert text_of(record) == "".join(f"moved to {n}\n" for n in (42, 55, 100, 8))
    async with database.read() as tx:
        outputs = (await tx.execute(select(Output).order_by(Output.id))).scalars().all()
    said = [o for o in outputs if o.comm_id is not None]
    assert {(o.comm_id, o.cell_id) for o in said} == {(comm["comm_id"], None)}
    assert "moved to 77" in "".join(o.text for o in outputs if o.comm_id is None)
    assert read_notebook(root_dir / "a.ipynb")["cells"][0]["outputs"] == []

    # The comm ends with its kernel's process, for everybody.
    channel = await client.connect(f"/api/comms/{comm['id']}/channel?after=0")
    assert (await received(channel))["data"]["state"]["value"] == 3
    await client.post(f"/api/kernels/{kernel}/restart")
    last, _, _ = await ending(channel)
    assert (last["msg_type"], last["reason"]) == ("comm_close", "the kernel was restarted")
    closed = (await client.get(f"/api/comms/{comm['id']}")).json()
    assert (closed["state"], closed["reason"]) == ("closed", "the kernel was restarted")
    assert (await client.get(f"/api/kernels/{kernel}/comms")).json() == []
    async with database.read() as tx:
        assert (await tx.execute(select(CommMessage))).scalars().all() == []


async def test_a_callback_clears_only_what_callbacks_said(client):
    kernel = await start_kernel(client)
    code = SLIDER + "from IPython.display import clear_output\nprint('made')"
    code = code.replace("print('moved", "clear_output(wait=True); print('moved")
    created = await run(client, kernel, code)
    comm = await slider_of(client, kernel)
    for value in (10, 20, 30):
        await move(client, comm, value)

    async def cleared():
        record = (await client.get(f"/api/executions/{created['id']}")).json()
        return text_of(record) == "made\nmoved to 30\n"

    await until(cleared)


async def test_a_client_opens_a_widget(client):
    """The front end's way to make a widget: a comm_open with the state it shall have."""
    kernel = await start_kernel(client)
    await run(client, kernel, "import ipywidgets")
    response = await client.post(
        f"/api/kernels/{kernel}/comms",
        json={
            "target_name": "jupyter.widget",
            "data": {
                "state": {
                    "_model_name": "IntSliderModel",
                    "_model_module": "@jupyter-widgets/controls",
                    "_model_module_version": "2.0.0",
                    "_view_name": "IntSliderView",
                    "_view_module": "@jupyter-widgets/controls",
                    "_view_module_version": "2.0.0",
                    "value": 12,
                }
            },
            "metadata": {"version": "2.1.0"},
        },
    )
    assert response.status_code == 201, response.text
    comm = response.json()
    assert response.headers["location"] == f"/api/comms/{comm['id']}"
    code = (
        f"import ipywidgets\nprint(ipywidgets.widgets.widget._instances['{comm['comm_id']}'].value)"
    )
    assert text_of(await run(client, kernel, code)) == "12\n"
    await move(client, comm, 13)
    await value_is(client, comm, 13)
    assert (await client.delete(f"/api/comms/{comm['id']}")).status_code == 204
    assert (await client.get(f"/api/comms/{comm['id']}")).json()["state"] == "closed"
    code = f"print('{comm['comm_id']}' in get_ipython().kernel.comm_manager.comms)"
    assert text_of(await run(client, kernel, code)) == "False\n"
