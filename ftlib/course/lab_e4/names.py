"""What a student of lab E4 may learn from, and on whose text."""

ROWS_ALONE = "rows alone"
DRAWN = "teacher's answers"  # one drawn a question
FORWARD = "forward KL"
REVERSE = "reverse KL"
SHUFFLED = "shuffled teacher"  # forward KL to it
OWN = ", own text"
FORWARD_OWN = FORWARD + OWN
REVERSE_OWN = REVERSE + OWN
ARMS = (ROWS_ALONE, DRAWN, FORWARD, SHUFFLED, REVERSE, FORWARD_OWN, REVERSE_OWN)
