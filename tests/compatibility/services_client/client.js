// A front end in miniature: what JupyterLab does, with JupyterLab's own client of the server.
//
// Each step is told on stdout as one line of JSON, {"step", "error"}; test_services_client.py
// runs this and reads them. SERVER_URL and SERVER_TOKEN say where the server is.

"use strict";

const assert = require("node:assert/strict");
const { PageConfig } = require("@jupyterlab/coreutils");
const services = require("@jupyterlab/services");

const WAIT_MILLISECONDS = 30_000;

const serverSettings = services.ServerConnection.makeSettings({
  baseUrl: process.env.SERVER_URL,
  wsUrl: process.env.SERVER_URL.replace(/^http/, "ws"),
  token: process.env.SERVER_TOKEN,
});

function within(promise, what, milliseconds = WAIT_MILLISECONDS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// The first value of a signal for which `check` holds.
function signalled(signal, check, what) {
  return within(
    new Promise((resolve) => {
      const slot = (_, value) => {
        if (check(value)) {
          signal.disconnect(slot);
          resolve(value);
        }
      };
      signal.connect(slot);
    }),
    what,
  );
}

async function run(kernel, code, options = {}) {
  const outputs = [];
  const future = kernel.requestExecute({ code, ...options.content }, false, options.metadata);
  future.onIOPub = (message) => outputs.push(message);
  if (options.onStdin) {
    future.onStdin = (message) => options.onStdin(future, message);
  }
  const reply = await within(future.done, code);
  const text = outputs
    .filter((message) => message.header.msg_type === "stream")
    .map((message) => message.content.text)
    .join("");
  return { reply, outputs, text };
}

async function answerOf(url) {
  return services.ServerConnection.makeRequest(url, {}, serverSettings);
}

const steps = {
  async kernelspecs({ manager }) {
    await manager.kernelspecs.ready;
    const { specs } = manager.kernelspecs;
    assert.equal(specs.default, "python3");
    assert.equal(specs.kernelspecs.python3.language, "python");
    const logo = specs.kernelspecs.python3.resources["logo-64x64"];
    const answer = await answerOf(new URL(logo, serverSettings.baseUrl).href);
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get("content-type"), /^image\/png/);
  },

  // UserManager itself wants a browser's localStorage.
  async user() {
    const answer = await answerOf(`${serverSettings.baseUrl}api/me`);
    assert.equal((await answer.json()).identity.username, "ada");
  },

  async contents({ manager }) {
    const { contents } = manager;
    const folder = await contents.newUntitled({ type: "directory" });
    const made = await contents.newUntitled({ path: folder.path, type: "file", ext: ".txt" });
    const told = signalled(contents.fileChanged, (change) => change.type === "save", "fileChanged");
    const body = { type: "file", format: "text", content: "é\n" };
    const saved = await contents.save(made.path, body);
    assert.equal((await told).newValue.path, made.path);
    const found = await contents.get(made.path, { content: true, hash: true });
    assert.equal(found.content, "é\n");
    assert.equal(found.mimetype, "text/plain");
    assert.equal(found.last_modified, saved.last_modified);
    assert.match(found.hash, /^[0-9a-f]{64}$/);
    const moved = await contents.rename(made.path, `${folder.path}/новый имя.txt`);
    assert.equal(moved.name, "новый имя.txt");
    const copied = await contents.copy(moved.path, folder.path);
    const listed = await contents.get(folder.path, { content: true });
    assert.deepEqual(
      listed.content.map((model) => model.path).sort(),
      [moved.path, copied.path].sort(),
    );
    const download = await answerOf(await contents.getDownloadUrl(moved.path));
    assert.equal(await download.text(), "é\n");
    for (const path of [copied.path, moved.path, folder.path]) {
      await contents.delete(path);
    }
    await assert.rejects(contents.get(folder.path), (error) => error.response.status === 404);
  },

  async checkpoints({ manager }) {
    const { contents } = manager;
    const notebook = await contents.newUntitled({ type: "notebook" });
    const cell = { cell_type: "code", id: "a", source: "1", metadata: {}, outputs: [] };
    const content = { nbformat: 4, nbformat_minor: 5, metadata: {} };
    const put = (source) =>
      contents.save(notebook.path, {
        type: "notebook",
        format: "json",
        content: { ...content, cells: [{ ...cell, execution_count: null, source }] },
      });
    const source = async () => (await contents.get(notebook.path)).content.cells[0].source;
    await put("first");
    const made = await contents.createCheckpoint(notebook.path);
    await put("second");
    assert.deepEqual(
      (await contents.listCheckpoints(notebook.path)).map((found) => found.id),
      [made.id],
    );
    assert.equal(await source(), "second");
    await contents.restoreCheckpoint(notebook.path, made.id);
    assert.equal(await source(), "first");
    await contents.deleteCheckpoint(notebook.path, made.id);
    assert.deepEqual(await contents.listCheckpoints(notebook.path), []);
    await contents.delete(notebook.path);
  },

  async sessions({ manager }) {
    const { contents, sessions } = manager;
    const notebook = await contents.newUntitled({ type: "notebook" });
    const session = await sessions.startNew({
      path: notebook.path,
      name: notebook.name,
      type: "notebook",
      kernel: { name: "python3" },
    });
    await within(session.kernel.info, "kernel_info");
    await sessions.refreshRunning();
    const running = Array.from(sessions.running()).find((model) => model.id === session.id);
    assert.equal(running.path, notebook.path);
    assert.equal((await sessions.findByPath(notebook.path)).id, session.id);
    const first = session.kernel.id;
    await session.changeKernel({ name: "python3" });
    assert.notEqual(session.kernel.id, first);
    assert.equal((await run(session.kernel, "print(6*7)")).text, "42\n");
    const renamed = await contents.rename(notebook.path, "renamed.ipynb");
    await session.setPath(renamed.path);
    await session.setName("another name");
    await session.setType("console");
    const again = await services.SessionAPI.getSessionModel(session.id, serverSettings);
    assert.deepEqual([again.path, again.name, again.type], [renamed.path, "another name", "console"]);
    // A second window on the same session.
    const other = sessions.connectTo({ model: again });
    assert.equal((await run(other.kernel, "print('from the other')")).text, "from the other\n");
    await session.shutdown();
    await sessions.refreshRunning();
    assert.equal(await sessions.findById(session.id), undefined);
    await contents.delete(renamed.path);
  },

  async execution({ manager }) {
    const kernel = await manager.kernels.startNew({ name: "python3" });
    const info = await within(kernel.info, "kernel_info");
    assert.equal(info.language_info.name, "python");

    const busy = signalled(kernel.statusChanged, (status) => status === "busy", "busy");
    const first = await run(kernel, "print('é'); 6*7", { metadata: { cellId: "cell-1" } });
    await busy;
    assert.equal(first.reply.content.status, "ok");
    assert.equal(first.text, "é\n");
    const result = first.outputs.find((message) => message.header.msg_type === "execute_result");
    assert.equal(result.content.data["text/plain"], "42");

    const failed = await run(kernel, "1/0");
    assert.equal(failed.reply.content.ename, "ZeroDivisionError");

    const asked = await run(kernel, "print('said', input('who? '))", {
      content: { allow_stdin: true },
      onStdin: (future, message) => {
        assert.equal(message.content.prompt, "who? ");
        future.sendInputReply({ status: "ok", value: "Ada" }, message.header);
      },
    });
    assert.match(asked.text, /said Ada/);

    const many = await run(kernel, "for i in range(2000): print(i, flush=True)");
    assert.equal(many.text, Array.from({ length: 2000 }, (_, i) => `${i}\n`).join(""));
    await kernel.shutdown();
  },

  async "kernel requests"({ manager }) {
    const kernel = await manager.kernels.startNew({ name: "python3" });
    await run(kernel, "import math\nvalue = 5");
    const completed = await kernel.requestComplete({ code: "math.sq", cursor_pos: 7 });
    assert.ok(completed.content.matches.some((match) => match.endsWith("sqrt")));
    const question = { code: "value", cursor_pos: 5, detail_level: 0 };
    const inspected = await kernel.requestInspect(question);
    assert.equal(inspected.content.found, true);
    const unfinished = await kernel.requestIsComplete({ code: "for i in x:" });
    assert.equal(unfinished.content.status, "incomplete");
    const history = await kernel.requestHistory({
      hist_access_type: "tail", n: 5, output: false, raw: true,
    });
    assert.ok(history.content.history.some((entry) => entry[2].includes("value = 5")));
    const comms = await kernel.requestCommInfo({});
    assert.deepEqual(comms.content.comms, {});
    const debug = { type: "request", seq: 1, command: "debugInfo", arguments: {} };
    const debugged = await within(kernel.requestDebug(debug).done, "debug_reply");
    assert.equal(debugged.content.success, true);
    await kernel.shutdown();
  },

  async comms({ manager }) {
    const kernel = await manager.kernels.startNew({ name: "python3" });
    await run(
      kernel,
      "def opened(comm, message):\n" +
        "    comm.on_msg(lambda m: comm.send(m['content']['data'], buffers=m['buffers']))\n" +
        "get_ipython().kernel.comm_manager.register_target('echo', opened)",
    );
    const comm = kernel.createComm("echo");
    const echoed = within(new Promise((resolve) => (comm.onMsg = resolve)), "comm_msg");
    await comm.open({}).done;
    comm.send({ n: 1 }, {}, [new Uint8Array([0, 255, 7]).buffer]);
    const message = await echoed;
    assert.deepEqual(message.content.data, { n: 1 });
    assert.deepEqual([...new Uint8Array(message.buffers[0].buffer ?? message.buffers[0])].slice(-3), [
      0, 255, 7,
    ]);
    await comm.close().done;
    await kernel.shutdown();
  },

  async "interrupt and restart"({ manager }) {
    const kernel = await manager.kernels.startNew({ name: "python3" });
    const other = manager.kernels.connectTo({ model: kernel.model });
    await within(other.info, "kernel_info");
    const future = kernel.requestExecute({ code: "print('on')\nimport time; time.sleep(60)" });
    await within(new Promise((resolve) => {
      future.onIOPub = (message) => message.header.msg_type === "stream" && resolve();
    }), "the first output");
    const sleeping = future.done;
    await kernel.interrupt();
    assert.equal((await within(sleeping, "KeyboardInterrupt")).content.ename, "KeyboardInterrupt");
    await run(kernel, "x = 1");
    // "restarting" would be taken for a restart that nobody asked for.
    const seen = signalled(other.statusChanged, (status) => status === "starting", "starting");
    await kernel.restart();
    await seen;
    await within(kernel.info, "kernel_info");
    const gone = await run(kernel, "x");
    assert.equal(gone.reply.content.ename, "NameError");
    await kernel.reconnect();
    assert.equal((await run(kernel, "print('back')")).text, "back\n");
    await kernel.shutdown();
    await manager.kernels.refreshRunning();
    assert.equal(await manager.kernels.findById(kernel.id), undefined);
  },

  async "a dead kernel restarts itself"({ manager }) {
    const kernel = await manager.kernels.startNew({ name: "python3" });
    await within(kernel.info, "kernel_info");
    const restarted = signalled(
      kernel.statusChanged, (status) => status === "autorestarting", "autorestarting",
    );
    kernel.requestExecute({ code: "import os; os._exit(1)" }).done.catch(() => {});
    await restarted;
    await signalled(kernel.statusChanged, (status) => status === "idle", "idle");
    assert.equal((await run(kernel, "print('here again')")).text, "here again\n");
    await kernel.shutdown();
  },

  async terminals({ manager }) {
    await manager.terminals.ready;
    assert.equal(manager.terminals.isAvailable(), true);
    const terminal = await manager.terminals.startNew();
    let said = "";
    const heard = within(new Promise((resolve) => {
      terminal.messageReceived.connect((_, message) => {
        if (message.type === "stdout") {
          said += message.content[0];
          if (said.includes("sum:42")) {
            resolve();
          }
        }
      });
    }), "the shell's answer");
    terminal.send({ type: "set_size", content: [30, 90, 600, 800] });
    terminal.send({ type: "stdin", content: ["echo sum:$((6*7))\r"] });
    await heard;
    await manager.terminals.refreshRunning();
    const names = Array.from(manager.terminals.running(), (model) => model.name);
    assert.ok(names.includes(terminal.name));
    await terminal.shutdown();
    await manager.terminals.refreshRunning();
    assert.deepEqual(Array.from(manager.terminals.running()), []);
  },

  async events({ manager }) {
    const schema = "https://events.jupyter.org/jupyter_server/contents_service/v1";
    const wanted = (event) => event.schema_id === schema && event.action === "save";
    let told = null;
    manager.events.stream.connect((_, event) => {
      told = told ?? (wanted(event) ? event : null);
    });
    // The socket may not be open yet: what was saved before is not told again.
    for (const start = Date.now(); told === null && Date.now() - start < WAIT_MILLISECONDS; ) {
      const body = { type: "file", format: "text", content: "x" };
      await manager.contents.save("told.txt", body);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    assert.equal(told?.path, "told.txt");
  },

  async config() {
    const section = await services.ConfigSection.create({ name: "notebook", serverSettings });
    await section.update({ Cell: { lineNumbers: true, wrap: null } });
    const again = await services.ConfigSection.create({ name: "notebook", serverSettings });
    assert.deepEqual(again.data.Cell, { lineNumbers: true });
  },

  async nbconvert({ manager }) {
    const formats = await manager.nbconvert.getExportFormats(true);
    assert.equal(formats.html.output_mimetype, "text/html");
  },

  async "a wrong token"() {
    const wrong = services.ServerConnection.makeSettings({ ...serverSettings, token: "wrong" });
    await assert.rejects(
      services.KernelAPI.listRunning(wrong), (error) => error.response.status === 403,
    );
  },
};

async function main() {
  PageConfig.setOption("terminalsAvailable", "true"); // as JupyterLab's page does
  const manager = new services.ServiceManager({ serverSettings, standby: "never" });
  await within(manager.ready, "the managers");
  for (const [step, work] of Object.entries(steps)) {
    let error = null;
    try {
      await within(work({ manager }), `the step: ${step}`, 2 * WAIT_MILLISECONDS);
    } catch (raised) {
      error = raised.stack ?? String(raised);
    }
    console.log(JSON.stringify({ step, error }));
  }
  manager.dispose();
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
