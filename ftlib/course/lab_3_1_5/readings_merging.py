"""What merging into different weights is to show in lab 3.1.5, with a reading for whatever comes
out.
"""

from __future__ import annotations

from ftlib.course.lab_3_1_5.readings import NATS
from ftlib.course.records.experiment import Claim, within

SLOWEST = "a quarter"
FASTEST = "best rate"
MERGING = (
    Claim(
        name="slow",
        text="golden loss at a quarter of the rate, in NF4 again − beside",
        contrast=within(SLOWEST, "again", "beside"),
        expected="above",
        above=(
            "A small update does not survive the second rounding: the dequantised weights lie on "
            "the grid, and what moves a weight by less than half a step is undone. Whether the "
            "updates of another run are small against its grid, that run itself must tell, by "
            "their size over the rounding error or by its loss after merging; a run like the "
            "next one says nothing about it."
        ),
        below=(
            "The second rounding lowers the loss, which it has no reason to do. Suspect the "
            "merge before you believe it: is the adapter added twice?"
        ),
        none=(
            "Even a small update survives. Then the grid is finer than the update, contrary to "
            "what the share that is left says; look at both before you merge into four bits."
        ),
        unit=NATS,
    ),
    Claim(
        name="fast",
        text="golden loss at the best rate, in NF4 again − beside",
        contrast=within(FASTEST, "again", "beside"),
        expected="above",
        above=(
            "It does harm even here. The figure shows how large this update is, in units of the "
            "rounding error, and how much of it is left: the smaller, the worse."
        ),
        below=(
            "The second rounding comes out ahead, though it can only take away from the update "
            "or add noise to it. That it helps would need a reason; the figure shows what was "
            "left of the update, and a little regularisation is one guess."
        ),
        none=(
            "No damage that ten seeds could show, against what one reads about merging into four "
            "bits. The reason to look for is the size of the update, in the figure: what is as "
            "large as the rounding error or larger survives. Do not carry this over to a run "
            "whose rate is lower."
        ),
        unit=NATS,
    ),
    Claim(
        name="once",
        text="golden loss at a quarter of the rate, original in NF4 once − in NF4 again",
        contrast=within(SLOWEST, "once", "again"),
        expected="below",
        above=(
            "Going through the original base is worse, although it is rounded once only. The "
            "adapter had learnt around NF4's errors, and they are not the same after the second "
            "rounding."
        ),
        below=(
            "The same update, the same type, and a much smaller loss; what differs is that the "
            "original weights do not lie on the grid. Each sits somewhere between two levels, so "
            "a small update tips a few of them over to the next level, and on average about as "
            "many as its size asks for, as dithering does; the line on way 4 below says how much "
            "of the update is left. So merge into the 16-bit base and quantise that."
        ),
        none=(
            "Both lose equally, so being off the grid does not help here. Then the rounding "
            "error of the weights dominates, and neither way is good; keep the adapter beside "
            "its base."
        ),
        unit=NATS,
    ),
    Claim(
        name="original",
        text="golden loss at the best rate, original base − beside",
        contrast=within(FASTEST, "original", "beside"),
        expected="none",
        above=(
            "The adapter misses the errors that it was trained beside: a little of what it "
            "learnt was their repair. The interval says how little; it is the price of serving "
            "from 16 bits."
        ),
        below=(
            "Over the base that it never saw the adapter is even better. It is tempting to say "
            "that a base without rounding errors is worth more. Way 4 puts that to a test, since "
            "its base is rounded to NF4 too: the lines on way 4 below compare it with both."
        ),
        none=(
            "No difference that ten seeds could show: the adapter has learnt the task and not "
            "the repair of its base's errors. Merging into the 16-bit original is safe here."
        ),
        unit=NATS,
    ),
    Claim(
        name="shrunken",
        text="golden loss at a quarter of the rate, as much of the update unrounded − in NF4 again",
        contrast=within(SLOWEST, "shrunken", "again"),
        expected="none",
        above=(
            "The rounded update is worth more than its share suggests: what is left of it along "
            "its own direction, taken alone and without rounding, does worse. Two explanations "
            "are open. Within a matrix, the weights that jump are those that were pushed hardest "
            "against their step. Or between the layers: one factor shrinks all of them alike, "
            "while rounding may keep more where more counts. The curvature of the loss has a part "
            "in both, since a few large steps and many small ones of the same sum differ in what "
            "they gain. This run does not tell them apart."
        ),
        below=(
            "The rounded update is worth less than its share suggests: what rounding adds at "
            "right angles to the update is noise that does harm of its own."
        ),
        none=(
            "What is left along the update's own direction explains the loss: the rest, at right "
            "angles to it, neither helps nor harms measurably."
        ),
        unit=NATS,
    ),
)
