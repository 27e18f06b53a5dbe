"""Handles redraw the figure that is shown, and a figure remains without them."""

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from ftlib.course.explorable import Explorable, choice, slider, switch


def made(drawn: list) -> Explorable:
    def draw(beta, reward, ideal):
        drawn.append((beta, reward, ideal))
        return f"figure {len(drawn)}"

    def headline(beta, reward, ideal):
        return f"beta {beta}"

    return Explorable(
        draw,
        headline,
        beta=slider("beta", (1.0, 0.1, 0.5), 0.2),
        reward=choice("reward", ("manners", "facts"), "facts"),
        ideal=switch("ideal policy", True),
    )


def test_a_moved_handle_redraws_the_figure_that_is_shown():
    InteractiveShell.instance()
    drawn = []
    figure = made(drawn)
    with capture_output() as shown:
        figure._ipython_display_()
        figure.controls["beta"].value = 1.0
        figure.controls["reward"].value = "manners"
    assert drawn == [(0.2, "facts", True), (1.0, "facts", True), (1.0, "manners", True)]
    texts = [output.data.get("text/plain", "") for output in shown.outputs]
    assert "VBox" in texts[0] and "figure 1" in texts[1]
    assert figure.headline.value == "<b>beta 1.0</b>"
    assert repr(figure) == "Explorable(beta=1.0, reward='manners', ideal=True)"


def test_nothing_is_drawn_before_it_is_shown_and_a_slider_has_its_steps_in_order():
    drawn = []
    figure = made(drawn)
    assert drawn == []
    assert list(figure.controls["beta"].options) == [0.1, 0.2, 0.5, 1.0]
    assert list(figure.controls["reward"].options) == ["manners", "facts"]
