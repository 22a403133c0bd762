// Shows in open notebooks what the server has decided about cells, by what it writes into their
// metadata. JupyterLab reads `trusted` when it makes a cell and never again; when the server runs
// a cell, its outputs are as trusted as those of a cell that the window runs itself.
// Written by hand as a module federation container: nothing needs to be built.
(() => {
  'use strict';
  let shared;

  async function load(name) {
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

  function plugin({ INotebookTracker }, { Notification }) {
    return {
      id: '@jupyter-datastore/lab:cells',
      description: 'Shows in open notebooks what the server has decided about cells.',
      autoStart: true,
      optional: [INotebookTracker],
      activate: (app, tracker) => {
        if (!tracker) {
          return;
        }
        const follow = async panel => {
          await panel.context.ready;
          if (panel.isDisposed) {
            return;
          }
          // Who may only read could type, into a copy that nobody else will ever see.
          const lock = () => {
            if (!panel.isDisposed && panel.context.contentsModel?.writable === false) {
              for (const widget of panel.content.widgets) {
                widget.syncEditable = false; // else the document would say it, for everyone
                widget.readOnly = true;
              }
            }
          };
          lock();
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
      const found = plugin(await load('@jupyterlab/notebook'), await load('@jupyterlab/apputils'));
      return () => ({ __esModule: true, default: found });
    }
  };
})();
