"""The critical-difference diagram says what the ranks say, and fits into its figure."""

from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lab import plotting
from lab.stats import across

pytestmark = pytest.mark.usefixtures("a_style_of_its_own")


def values(settings=5, datasets=12, step=1.0, name="setting {}"):
    rng = np.random.default_rng(0)
    return pd.DataFrame([
        {"setting": name.format(i), "dataset": f"data {j}", "value": step * i + rng.normal()}
        for i in range(settings) for j in range(datasets)
    ])  # fmt: skip


def bars(ax):
    """The ends of every bar below the axis."""
    colour = mpl.colors.to_rgb(plotting.COLOURS[0])
    found = [line for line in ax.lines if mpl.colors.to_rgb(line.get_color()) == colour]
    return [(min(line.get_xdata()), max(line.get_xdata())) for line in found]


def test_the_names_stand_in_the_order_of_their_ranks_with_them():
    ax = plotting.critical_difference(values())
    ranks = across.ranks(values()).mean
    shown = [text.get_text().strip() for text in ax.texts][:5]
    assert shown == [f"{name}  {rank:.1f}" for name, rank in ranks.items()]
    heights = [text.get_position()[1] for text in ax.texts][:5]
    assert heights == sorted(heights, reverse=True)


def test_a_bar_covers_two_settings_exactly_where_they_are_not_separable():
    ax, found = plotting.critical_difference(values()), across.ranks(values())
    assert found.separable
    for a, b in combinations(found.mean.index, 2):
        together = any(low <= found.mean[a] and found.mean[b] <= high for low, high in bars(ax))
        assert together == ((a, b) not in found.separable)


def test_the_critical_difference_is_drawn_to_scale():
    ax, found = plotting.critical_difference(values()), across.ranks(values())
    (drawn,) = ax.containers[0].lines[2]
    (start, _), (end, _) = drawn.get_segments()[0]
    assert end - start == pytest.approx(found.critical_difference)
    assert f"critical difference {found.critical_difference:.1f}" in ax.texts[-1].get_text()
    assert ax.get_xlim()[1] >= end


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (values(), "5 of 10 pairs separable"),
        (values(step=0), "nothing separable"),
        (values(3, 2), "no ranks could be separable"),
    ],
)
def test_the_title_says_friedman_s_p_and_what_can_be_told(table, said):
    title = plotting.critical_difference(table).get_title(loc="right")
    found = across.ranks(table)
    assert f"Friedman p {found.friedman_p:.2g}\nNemenyi at 0.05: {said}" in title
    assert f"{len(found.mean)} settings on {found.n} data sets" in title


def test_where_lower_is_better_the_order_turns_round():
    up, down = (
        plotting.critical_difference(values(), lower_is_better=lower) for lower in (False, True)
    )
    names = [[text.get_text().split("  ")[0] for text in ax.texts[:5]] for ax in (up, down)]
    assert names[0] == names[1][::-1]


@pytest.mark.parametrize("width", ["page", "column"])
def test_twelve_long_names_stay_inside_the_figure(width):
    plotting.use_style(width)
    name = "bidirectional / cross attention, {:>2}"
    ax = plotting.critical_difference(values(12, 6, name=name + "x" * (35 - len(name) + 2)))
    figure = ax.figure
    figure.draw_without_rendering()
    whole = figure.bbox
    boxes = [text.get_window_extent() for text in [*ax.texts, ax._right_title]]
    for box in boxes:
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1
        assert whole.y0 <= box.y0 and box.y1 <= whole.y1
    for one, two in combinations(boxes[:12], 2):
        assert not one.overlaps(two)


def test_a_dollar_sign_in_a_name_starts_no_formula():
    ax = plotting.critical_difference(values(name="${}"))
    assert all(text.get_text().startswith(r"\$") for text in ax.texts[:5])


def test_a_figure_that_was_given_keeps_its_size_and_is_saved_with_its_table(tmp_path):
    figure, given = plt.subplots(figsize=(5, 4))
    table = values()
    assert plotting.critical_difference(table, ax=given) is given
    assert tuple(figure.get_size_inches()) == (5, 4)
    saved = plotting.save(
        figure, table, tmp_path, "ranks", alt="average ranks of five settings on twelve data sets"
    )
    assert saved.path.exists()


def test_two_settings_or_a_missing_cell_are_refused():
    with pytest.raises(ValueError, match="three settings or more; got 2"):
        plotting.critical_difference(values(2))
    with pytest.raises(ValueError, match="1 of 60 cells are missing"):
        plotting.critical_difference(values().iloc[1:])
    with pytest.raises(LookupError, match="no column named 'setting'"):
        plotting.critical_difference(values().rename(columns={"setting": "design"}))
