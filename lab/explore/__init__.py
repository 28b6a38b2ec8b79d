"""Explorers: one setting changed by hand, its effect seen at once, with two faces each.

Live in JupyterLab an explorer is ipywidgets around a model that stays in memory; in a batch run,
where no kernel will stand behind the page, it is a plotly figure whose frames hold every setting of
its sliders. Both are drawn from the same numbers by the same functions.

To add one, write a class with the three methods of :class:`lab.explore.faces.Explorer` in a module
of its own; a notebook calls :func:`lab.explore.faces.show` on it.
"""
