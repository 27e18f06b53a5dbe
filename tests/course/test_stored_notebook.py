"""A stored picture has few colours, and those of its lines among them."""

import base64
import io
import math

from PIL import Image, ImageColor, ImageDraw

from ftlib.course import stored_notebook
from ftlib.course.plots import COLOURS

CLOSEST = math.dist((0xD5, 0x5E, 0x00), (0xE6, 0x9F, 0x00))  # the two most alike of them: 67


def as_plotted() -> Image.Image:
    """Seven wavy lines with bands, in the course's colours; drawn four times as large and reduced,
    so that edges have shades as in a plot.
    """
    picture = Image.new("RGB", (2980, 1248), "white")
    draw = ImageDraw.Draw(picture, "RGBA")
    for i, name in enumerate(COLOURS):
        colour = ImageColor.getrgb(name)
        line = [(200 + 25 * x, 300 + 90 * i + 60 * math.sin(x / 9 + i)) for x in range(100)]
        band = [(x, y - 60) for x, y in line] + [(x, y + 60) for x, y in reversed(line)]
        draw.polygon(band, fill=(*colour, 38))
        draw.line(line, fill=(*colour, 255), width=9)
    return picture.resize((745, 312), Image.Resampling.LANCZOS)


def test_lines_of_two_colours_stay_told_apart():
    """Each colour has a stored one nearer to it than half of the distance between any two, 33."""
    out = io.BytesIO()
    as_plotted().save(out, "PNG")
    small = stored_notebook.small_png(base64.b64encode(out.getvalue()).decode())
    stored = Image.open(io.BytesIO(base64.b64decode(small)))
    palette = [colour for _, colour in stored.convert("RGB").getcolors()]
    assert len(palette) <= 128 and len(small) < len(base64.b64encode(out.getvalue())) / 3
    for name in COLOURS:
        colour = ImageColor.getrgb(name)
        assert min(math.dist(colour, other) for other in palette) < CLOSEST / 2, name
