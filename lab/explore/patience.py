"""Widgets that hear their kernel however busy the page was when they began."""

from anywidget import AnyWidget

# anywidget 0.11 gives a widget two seconds from its first message to the end of its script. One
# that took longer is drawn, but hears nothing of its kernel any more: a figure, which gets its
# points in a second message, stays empty for good; one of a page that was reloaded stands still.
ESM = """
const timeout = AbortSignal.timeout;
if (!timeout.patient) {
  const patiently = ms => timeout.call(AbortSignal, ms === 2000 ? 120_000 : ms);
  AbortSignal.timeout = Object.assign(patiently, { patient: true });
}

// What is there already was made with two seconds: all widgets of a page that is reloaded.
const late = error => String(error).includes("Failed to initialize model");
addEventListener("unhandledrejection", said => { if (late(said.reason)) said.preventDefault(); });

export default { async initialize({ model }) {
  const manager = model.widget_manager, version = model.get("_model_module_version");
  const AnyModel = await manager.loadClass("AnyModel", "anywidget", version);
  const hear = Object.getPrototypeOf(AnyModel.prototype)._handle_comm_msg;
  for (const made of Object.values(manager._models)) made.then(one => {
    if (!(one instanceof AnyModel && one.comm)) return;
    one.comm.on_msg((...said) => one._handle_comm_msg(...said).catch(error => {
      if (late(error)) return hear.apply(one, said);
      throw error;
    }));
  });
} };
"""


class Patience(AnyWidget):
    """Not to be seen. Widgets made after it have two minutes to begin, not two seconds; those of a
    page that was reloaded, which are made together, hear their kernel even if they began late.
    """

    _esm = ESM
