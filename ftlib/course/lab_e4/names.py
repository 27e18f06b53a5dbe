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
AT_ROWS = ", rows' rate"  # at the rate that was chosen for rows alone
FORWARD_AT_ROWS = FORWARD + AT_ROWS
ARMS = (*GIVEN, REVERSE_OWN, FORWARD_AT_ROWS)

# Second phases, after one of the forward KL.
AGAIN = "forward, forward"
THEN = "forward, reverse"
PHASES = (AGAIN, THEN)
