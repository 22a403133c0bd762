// Shows in open documents what the server has decided about them: about cells by what it writes
// into their metadata, about the file by what it writes into the document's state, about what one
// may do here by messages beside the document. JupyterLab reads `trusted` when it makes a cell and
// never again; when the server runs a cell, its outputs are as trusted as those of a cell that the
// window runs itself.
// Written by hand as a module federation container: nothing needs to be built.
(() => {
  'use strict';
  let shared;

  // Null for a package that no extension brought.
  async function load(name) {
    if (!shared[name]) {
      return null;
    }
    const [version] = Object.keys(shared[name]);
    return (await shared[name][version].get())();
  }

  function trust(cell) {
    if (cell.isDisposed || cell.trusted || cell.type !== 'code' || !cell.getMetadata('trusted')) {
      return;
    }
    // Its outputs are shown anew, here only: other windows and the document have them already. They
    // are added again, since an output area follows a stream's text only from when it is added.
    cell.outputs.changed.disconnect(cell.onOutputsChange, cell);
    try {
      const outputs = cell.outputs.toJSON();
      cell.outputs.clear();
      cell.trusted = true;
      cell.outputs.fromJSON(outputs);
    } finally {
      cell.outputs.changed.connect(cell.onOutputsChange, cell);
    }
  }

  // An Output widget takes what the kernel says because of a request for itself, by a hook that
  // JupyterLab has for requests of this window alone. What the server asked for reaches hooks here.
  const hooked = new WeakSet();
  function hook(kernel) {
    if (!kernel || hooked.has(kernel) || !kernel.registerMessageHook || !kernel.iopubMessage) {
      return;
    }
    hooked.add(kernel);
    const hooks = new Map();
    const { registerMessageHook, removeMessageHook } = kernel;
    let ours = new Set(); // requests of this window, which get their hooks as ever
    kernel.anyMessage.connect((_, { direction, msg }) => {
      if (direction === 'send' && msg.channel === 'shell') {
        ours.add(msg.header.msg_id);
        if (ours.size > 10000) {
          ours = new Set([...ours].slice(-5000));
        }
      }
    });
    kernel.registerMessageHook = (msgId, callback) => {
      if (ours.has(msgId)) {
        registerMessageHook.call(kernel, msgId, callback);
      } else {
        hooks.set(msgId, [...(hooks.get(msgId) || []), callback]);
      }
    };
    kernel.removeMessageHook = (msgId, callback) => {
      removeMessageHook.call(kernel, msgId, callback);
      const rest = (hooks.get(msgId) || []).filter(other => other !== callback);
      if (rest.length) {
        hooks.set(msgId, rest);
      } else {
        hooks.delete(msgId);
      }
    };
    kernel.iopubMessage.connect((_, msg) => {
      // The last one is asked first, and each may keep it from those before.
      const asked = [...(hooks.get(msg.parent_header.msg_id) || [])].reverse();
      asked.every(callback => callback(msg) !== false);
    });
  }

  // A cell that the server added because the file had changed where the document had too.
  function isFromDisk(cell) {
    const noted = cell.getMetadata('datastore');
    return Boolean(noted && noted.conflict);
  }

  // Who may only read could type, into a copy that nobody else will ever see.
  function lockCells(panel, locked) {
    for (const widget of panel.content.widgets) {
      if (locked) {
        widget.syncEditable = false; // else the document would say it, for everyone
        widget.readOnly = true;
      } else {
        widget.readOnly = widget.model.getMetadata('editable') === false;
        widget.syncEditable = true;
      }
    }
  }

  function lockEditor(panel, locked) {
    panel.content.editor.setOption('readOnly', locked);
  }

  function isWritable(panel) {
    return panel.context.contentsModel?.writable !== false;
  }

  // Calls `take` with what the server says beside the document, and `came` when its room is
  // entered anew.
  function listen(panel, provider, take, came) {
    let socket = null;
    const hear = event => {
      const bytes = event.data instanceof ArrayBuffer ? new Uint8Array(event.data) : [];
      if (bytes[0] !== 2) {
        return;
      }
      let start = 1; // after the length, a number in groups of seven bits
      while (bytes[start] > 127) {
        start += 1;
      }
      take(JSON.parse(new TextDecoder().decode(bytes.slice(start + 1))));
    };
    const attach = () => {
      if (provider.wsProvider?.ws && provider.wsProvider.ws !== socket) {
        socket?.removeEventListener('message', hear);
        socket = provider.wsProvider.ws;
        socket.addEventListener('message', hear);
      }
    };
    const changed = ({ status }) => {
      if (status === 'connected') {
        attach();
        came();
      }
    };
    attach();
    const { wsProvider } = provider;
    wsProvider.on('status', changed);
    panel.disposed.connect(() => {
      socket?.removeEventListener('message', hear);
      wsProvider.off('status', changed);
    });
  }

  // What a person may do changes while the window is open: follow it, and say so.
  function followRights(app, panel, key, drive, lock, { Notification }) {
    const { context } = panel;
    let locked = false;
    const apply = () => {
      if (!panel.isDisposed && (locked || !isWritable(panel))) {
        locked = !isWritable(panel);
        lock(panel, locked);
      }
    };
    apply();
    const provider = drive?.providers.get(`${key}:${context.path}`);
    if (!provider?.wsProvider) {
      return apply;
    }
    const ask = async () => {
      const former = isWritable(panel);
      const options = { content: false };
      const model = await app.serviceManager.contents.get(context.path, options).catch(() => null);
      if (!model || panel.isDisposed || model.writable === former) {
        return;
      }
      // So the context learns of it, with all that asks it.
      drive.fileChanged.emit({ type: 'save', oldValue: null, newValue: model });
      apply();
      const { path } = context;
      if (model.writable) {
        Notification.info(`You may change ${path} again.`, { autoClose: 5000 });
        const kernel = context.sessionContext.session?.kernel;
        if (kernel && kernel.connectionStatus !== 'connected') {
          void kernel.reconnect();
        }
      } else {
        Notification.warning(`${path} is read-only for you now.`, { autoClose: 5000 });
      }
    };
    listen(
      panel,
      provider,
      message => {
        if (message.type === 'rights') {
          void ask();
        }
      },
      () => {
        if (!isWritable(panel)) {
          void ask();
        }
      }
    );
    return apply;
  }

  // Why the file does not get what is done in the window.
  function followProblems(app, panel, { Notification }, { ServerConnection }) {
    const { sharedModel } = panel.context.model;
    let shown = null;
    const overwrite = async () => {
      const settings = app.serviceManager.serverSettings;
      const id = encodeURIComponent(sharedModel.getState('document_id').split(':').pop());
      const url = `${settings.baseUrl}api/documents/${id}/overwrite`;
      const answer = await ServerConnection.makeRequest(url, { method: 'POST' }, settings);
      const { kept, message } = await answer.json();
      if (!answer.ok) {
        Notification.error(`${panel.context.path} is not overwritten: ${message}`);
      } else if (kept) {
        Notification.success(`What the file had is kept in ${kept}.`, { autoClose: 10000 });
      }
    };
    const look = () => {
      const told = sharedModel.getState('datastore');
      if (shown) {
        Notification.dismiss(shown);
        shown = null;
      }
      if (told?.problem && !panel.isDisposed) {
        const actions = told.unreadable
          ? [{ label: 'Overwrite, and keep a copy', callback: () => void overwrite() }]
          : [];
        // JupyterLab shows 140 characters.
        const { path } = panel.context;
        const message = told.unreadable
          ? `Another program made ${path} unreadable. What you do here is kept, but not in the file.`
          : `${path} is not saved: ${told.problem}`;
        shown = Notification.error(message, { autoClose: false, actions });
      }
    };
    sharedModel.changed.connect((_, change) => {
      if (change.stateChange?.some(({ name }) => name === 'datastore')) {
        look();
      }
    });
    panel.disposed.connect(look);
    look();
  }

  // A document that does not open closes by itself; ask the server why, and say it.
  function followOpening(app, panel, format, type, { Notification }, { ServerConnection }) {
    const { context } = panel;
    const { path } = context;
    panel.disposed.connect(async () => {
      if (context.isReady) {
        return;
      }
      const settings = app.serviceManager.serverSettings;
      const url = `${settings.baseUrl}api/collaboration/session/${encodeURIComponent(path)}`;
      const options = { method: 'PUT', body: JSON.stringify({ format, type }) };
      const answer = await ServerConnection.makeRequest(url, options, settings);
      const { message } = answer.ok ? await answer.json() : {};
      if (message) {
        Notification.error(message, { autoClose: false });
      }
    });
  }

  function files({ IEditorTracker }, drives, apputils, services) {
    return {
      id: '@jupyter-datastore/lab:files',
      description: 'Shows in open text files what the server says of them.',
      autoStart: true,
      optional: [IEditorTracker, ...(drives ? [drives.ICollaborativeContentProvider] : [])],
      activate: (app, tracker, drive) => {
        if (!tracker || !drive) {
          return;
        }
        const follow = async panel => {
          followOpening(app, panel, 'text', 'file', apputils, services);
          await panel.context.ready;
          if (!panel.isDisposed && panel.context.model.collaborative) {
            followProblems(app, panel, apputils, services);
            followRights(app, panel, 'text:file', drive, lockEditor, apputils);
          }
        };
        tracker.forEach(follow);
        tracker.widgetAdded.connect((_, panel) => void follow(panel));
      }
    };
  }

  function cells({ INotebookTracker }, drives, apputils, services) {
    const { Notification } = apputils;
    return {
      id: '@jupyter-datastore/lab:cells',
      description: 'Shows in open notebooks what the server has decided about cells.',
      autoStart: true,
      optional: [INotebookTracker, ...(drives ? [drives.ICollaborativeContentProvider] : [])],
      activate: (app, tracker, drive) => {
        if (!tracker) {
          return;
        }
        const follow = async panel => {
          if (drive) {
            followOpening(app, panel, 'json', 'notebook', apputils, services);
          }
          await panel.context.ready;
          if (panel.isDisposed) {
            return;
          }
          if (panel.context.model.collaborative) {
            followProblems(app, panel, apputils, services);
          }
          const lock = followRights(app, panel, 'json:notebook', drive, lockCells, apputils);
          hook(panel.sessionContext.session?.kernel);
          panel.sessionContext.kernelChanged.connect((_, { newValue }) => hook(newValue));
          const told = new Set();
          const look = cell => {
            trust(cell);
            if (isFromDisk(cell) && !told.has(cell.id)) {
              told.add(cell.id);
              const place = panel.content.model.sharedModel.cells.findIndex(
                other => other.getId() === cell.id
              );
              Notification.warning(
                `${panel.context.path} was changed by another program, too: ` +
                  `cell ${place + 1} is what the file had. Keep what you need of it and of the ` +
                  'cell before, and delete the rest.',
                { autoClose: false }
              );
            }
          };
          const watch = cell => {
            // Once the change has been taken in wholly, outputs included.
            cell.metadataChanged.connect(() => setTimeout(() => look(cell)));
            look(cell);
          };
          const { cells } = panel.content.model;
          for (const cell of cells) {
            watch(cell);
          }
          cells.changed.connect((_, change) => {
            change.newValues.forEach(watch);
            setTimeout(lock); // once there are widgets for them
          });
        };
        tracker.forEach(follow);
        tracker.widgetAdded.connect((_, panel) => void follow(panel));
      }
    };
  }

  const containers = (window._JUPYTERLAB = window._JUPYTERLAB || {});
  containers['@jupyter-datastore/lab'] = {
    init: scope => {
      shared = scope;
    },
    get: async () => {
      const apputils = await load('@jupyterlab/apputils');
      const services = await load('@jupyterlab/services');
      const drives = await load('@jupyter/collaborative-drive');
      const found = [
        cells(await load('@jupyterlab/notebook'), drives, apputils, services),
        files(await load('@jupyterlab/fileeditor'), drives, apputils, services)
      ];
      return () => ({ __esModule: true, default: found });
    }
  };
})();
