"""A kernel may send anything, validly signed: nothing ends the recorder or costs a neighbour."""
# ruff: noqa: E501 (code for a kernel)

import json

from sqlalchemy import select

from models import Kernel, Output
from tests.kernels import (
    execute,
    finished,
    read_notebook,
    run,
    start_kernel,
    text_of,
    until,
    write_notebook,
)

SEND = '''
import json
_kernel = get_ipython().kernel
def send(msg_type, content, parent=None, metadata={}, header={}):
    """Sign and send what may be rubbish; str and bytes go out as they are."""
    def packed(value):
        if isinstance(value, bytes): return value
        return json.dumps(value).encode()
    session = _kernel.session
    if parent is None: parent = _kernel.get_parent("shell")["header"]
    head = header if not isinstance(header, dict) else {**session.msg_header(msg_type), **header}
    session_pack = lambda v: json.dumps(v, default=str).encode()
    parts = [session_pack(head), json.dumps(parent, default=str).encode(), packed(metadata), packed(content)]
    import sys; sys.stdout.flush()
    _kernel.iopub_socket.send_multipart([b"x", b"<IDS|MSG>", session.sign(parts), *parts])
'''

ODD = """
odd = [None, 5, -1, True, 1.5, "", "\\0", "a\\0b", "\\ud800", "x", [], [1], ["\\0"], {}, {"\\0": ["\\0"]}, 10**30, 2**63, float("nan")]
fields = {
    "status": ["execution_state"],
    "execute_input": ["code", "execution_count"],
    "stream": ["name", "text"],
    "display_data": ["data", "metadata", "transient"],
    "update_display_data": ["data", "metadata", "transient"],
    "execute_result": ["data", "metadata", "execution_count", "transient"],
    "error": ["ename", "evalue", "traceback"],
    "clear_output_": ["wait"],
    "comm_open": ["comm_id", "target_name", "target_module", "data"],
    "comm_msg": ["comm_id", "data"],
    "comm_close": ["comm_id"],
    "input_request": ["prompt", "password"],
    "execute_reply": ["status", "execution_count"],
    "unheard_of": ["x"], "\\ud800": ["x"], "": ["x"],
}
good = {"name": "stdout", "text": "", "data": {}, "metadata": {}, "transient": {}, "comm_id": "c", "target_name": "t", "code": "1"}
def attack(number):
    for msg_type, names in fields.items():
        send(msg_type, {})
        for name in names:
            for value in odd:
                if (msg_type, name) == ("status", "execution_state") and value == "idle": continue
                send(msg_type, {**good, name: value})
        for value in odd:
            send(msg_type, value)                      # content of any type
            send(msg_type, good, parent=value)         # parent header of any type
            send(msg_type, good, metadata=value)
            send(msg_type, good, header={"msg_type": value})
            for name in ("msg_id", "msg_type", "session", "username"):
                if msg_type in ("execute_input", "stream", "input_request", "comm_open"):
                    send(msg_type, good, parent={"msg_type": "execute_request", "msg_id": f"foreign {number} {name}", name: value})
    for value in odd:
        send("stream", good, header=value)
        send("display_data", {"data": {"text/plain": value, str(value): value}, "transient": {"display_id": value}})
        send("update_display_data", {"data": {"text/plain": value}, "transient": {"display_id": value}})
    send("display_data", b'{"data": {"application/json": [' + b"9" * 400 + b', 1e999]}}')
    send("display_data", b'{"data": {"application/json": ' + b"9" * 5000 + b'}}')
    for depth in (90, 900, 50_000):
        send("display_data", b'{"data": {"application/json": ' + b"[" * depth + b"]" * depth + b'}}')
    send("display_data", {"data": {"application/k" + chr(0) + "+json": {"\\ud800": [float("inf"), float("nan"), 10**400]}}})
print("before")
attack(1)
print("after")
"""


async def rows(database, query):
    async with database.read() as tx:
        return (await tx.execute(query)).scalars().all()


async def test_rubbish_in_every_field_of_every_message(client, database, root_dir):
    (cell,) = write_notebook(root_dir / "a.ipynb", SEND + ODD)
    kernel = await start_kernel(client)
    record = await finished(client, await execute(client, kernel, path="a.ipynb", cell_id=cell))
    assert record["status"] == "ok", record["evalue"]
    assert text_of(record).startswith("before\n")
    assert text_of(record).endswith("after\n")
    displays = [o["data"] for o in record["outputs"] if o.get("output_type") == "display_data"]
    assert {"application/json": [int("9" * 400), float("inf")]} in displays, "as they were"
    strange = displays[-1]["application/k\0+json"]["\ud800"]
    assert (strange[0], strange[2]) == (float("inf"), 10**400)
    # The kernel goes on, in its own execution and in the next.
    after = await run(client, kernel, "print('next'); 1 + 1")
    assert text_of(after) == "next\n"
    assert after["outputs"][-1]["data"] == {"text/plain": "2"}
    listed = (await client.get("/api/executions", params={"limit": 1000})).json()["executions"]
    assert not [e for e in listed if e["client"] == "api" and not e["finished_at"]]
    assert (await rows(database, select(Kernel.execution_state))) == ["idle"]
    kept = await rows(database, select(Output.extra).where(Output.output_type == "unknown"))
    assert any((extra or {}).get("content", {}).get("text") == [1] for extra in kept)
    saved = await until(lambda: read_notebook(root_dir / "a.ipynb")["cells"][0]["outputs"])
    assert saved


async def test_a_reply_of_another_shape_still_ends_the_execution(client):
    """The reply's counts and extras cannot be stored: that it ended must be."""
    kernel = await start_kernel(client)
    code = """
from ipykernel.ipkernel import IPythonKernel
IPythonKernel.finish_metadata = lambda self, parent, metadata, reply: metadata
async def do_execute(self, code, silent, *args, **kwargs):
    return eval(code)
IPythonKernel.do_execute = do_execute
"""
    assert (await run(client, kernel, code))["status"] == "ok"
    for reply, status in [
        ("{}", "ok"),
        ("{'status': 'ok', 'execution_count': 10**30}", "ok"),
        ("{'status': 'ok', 'execution_count': '5', 'payload': 7}", "ok"),
        ("{'status': 5, 'user_expressions': [[['deep']]]}", "ok"),
        ("{'status': 'error', 'ename': ['x'], 'evalue': {}, 'traceback': 'no list'}", "error"),
        ("{'status': 'error', 'traceback': [1, {}, None]}", "error"),
        ("{'status': 'ok', 'payload': [{'a': chr(0)}], 'execution_count': -1}", "ok"),
        ("{'status': 'aborted', 'execution_count': True}", "aborted"),
    ]:
        record = await run(client, kernel, reply, silent=True)
        assert record["status"] == status, (reply, record)


async def test_a_reply_that_never_comes(client):
    """ipykernel sends none when its own code fails around the run, as it does for this code."""
    kernel = await start_kernel(client)
    body = json.dumps({"code": "x = '\ud800'", "stop_on_error": False})
    broken = (await client.post(f"/api/kernels/{kernel}/execute", content=body)).json()
    assert broken["code"] == "x = '\ud800'"
    break_it = """
from ipykernel.ipkernel import IPythonKernel
before = IPythonKernel.do_execute
async def do_execute(self, code, *args, **kwargs):
    if code == 'fail': raise KeyboardInterrupt
    return await before(self, code, *args, **kwargs)
IPythonKernel.do_execute = do_execute
"""
    after = await run(client, kernel, break_it)
    assert after["status"] == "ok"
    record = await finished(client, broken)
    assert record["status"] in ("error", "interrupted"), record
    lost = await run(client, kernel, "fail")
    assert (lost["status"], lost["reason"]) == (
        "interrupted",
        "the kernel ended it without a reply",
    )
    assert text_of(await run(client, kernel, "print(1)")) == "1\n"
