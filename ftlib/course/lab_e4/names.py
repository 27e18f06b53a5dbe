"""What a student of lab E4 may learn from, and on whose text."""

ROWS_ALONE = "rows alone"
DRAWN = "teacher's answers"  # one drawn a question
FORWARD = "forward KL"
REVERSE = "reverse KL"
JSD = "JSD"  # in no experiment of the lab
SHUFFLED = "shuffled teacher"  # forward KL to it
OWN = ", half own text"
REVERSE_OWN = REVERSE + OWN
OWN_SHARE = 0.5  # of the steps on the student's own text
GIVEN = (ROWS_ALONE, DRAWN, FORWARD, SHUFFLED, REVERSE)  # on given text
ARMS = (*GIVEN, REVERSE_OWN)

# Second phases, after one of the forward KL.
AGAIN = "forward, forward"
THEN = "forward, reverse"
PHASES = (AGAIN, THEN)
