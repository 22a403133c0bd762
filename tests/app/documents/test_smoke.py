import json, uuid
import nbformat, pytest
from nbformat import v4
from app.contents.disk import Disk
from app.documents.store import DocumentStore
from app.settings import Settings


async def test_smoke(database, tmp_path):
    nb = v4.new_notebook(cells=[v4.new_code_cell("1+1\n2", outputs=[v4.new_output("stream", text="a\nb")]), v4.new_markdown_cell("# hi")])
    (tmp_path / "a.ipynb").write_text(nbformat.writes(nb))
    store = DocumentStore(database, Disk(tmp_path), Settings())
    await store.start()
    d = await store.open_notebook("a.ipynb", actor_id=None)
    assert (d.version, d.saved_version) == (1, 1)
    got = await store.notebook(d.id)
    assert got == json.loads(nbformat.writes(nb, split_lines=False))
    nb2 = json.loads(json.dumps(got))
    nb2["cells"][0]["source"] = "1+1\n3"
    nb2["cells"].insert(0, v4.new_code_cell("new"))
    d = await store.put_notebook("a.ipynb", nb2, actor_id=None)
    assert json.loads(json.dumps(nbformat.read(tmp_path / "a.ipynb", 4))) == nb2 == await store.notebook(d.id)
    other = DocumentStore(database, Disk(tmp_path), Settings())
    assert await other.notebook(d.id) == nb2
    await store.close()
