"""A figure's text form says its message."""

import matplotlib.pyplot as plt
import pytest
from IPython.core.formatters import PlainTextFormatter

from ftlib.course import plots
from ftlib.course.alt_text import describe, use_texts


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_title_and_axes_are_said():
    figure = plots.bars({"a": 1.0}, "Loss by\nrank", "nats per token", "rank")
    assert describe(figure) == "Figure: Loss by rank (rank; nats per token)."


def test_every_panel_is_said_once_and_a_colour_bar_not():
    figure, (left, right, third) = plt.subplots(1, 3)
    figure.suptitle("Two rates")
    left.set(title="Rows trained on", xlabel="epochs")
    right.set(title="Rows trained on", xlabel="epochs")
    figure.colorbar(third.imshow([[0, 1]]))
    third.set_title("Where", loc="left")
    assert describe(figure) == "Figure: Two rates. Rows trained on (epochs). Where."


def test_a_figure_without_a_title_says_so():
    figure, ax = plt.subplots()
    ax.plot([1, 2])
    assert describe(figure) == "Figure without a title."


def test_a_notebook_keeps_it_beside_the_picture():
    formatter = PlainTextFormatter()
    figure = plots.bars({"a": 1.0}, "Loss", "nats")
    assert "Figure size" in formatter(figure)  # matplotlib's own
    use_texts(formatter)
    assert formatter(figure) == "Figure: Loss (nats)."
