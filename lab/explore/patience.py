"""Time for widgets to begin on a page that is busy."""

from anywidget import AnyWidget

# Of anywidget 0.11: a widget whose script has not run two seconds after its first message never
# hears its kernel again. A figure gets its points in a second message, so it stayed empty.
ESM = """
const timeout = AbortSignal.timeout;
if (!timeout.patient) {
  const patiently = ms => timeout.call(AbortSignal, ms === 2000 ? 120_000 : ms);
  AbortSignal.timeout = Object.assign(patiently, { patient: true });
}
export default {};
"""


class Patience(AnyWidget):
    """Not to be seen: widgets made after it have two minutes to begin, not two seconds."""

    _esm = ESM
