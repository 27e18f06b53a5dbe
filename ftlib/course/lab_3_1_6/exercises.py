"""Lab 3.1.6, data: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_3_1_6.clean_lines import CLEAN
from ftlib.course.lab_3_1_6.defuse import DEFUSE
from ftlib.course.lab_3_1_6.golden_overlap import OVERLAP
from ftlib.course.lab_3_1_6.group_of import GROUPS
from ftlib.course.lab_3_1_6.longer_share import LONGER
from ftlib.course.lab_3_1_6.luhn_sum import LUHN
from ftlib.course.lab_3_1_6.minhash_signature import MINHASH
from ftlib.course.lab_3_1_6.pack_rows import PACK
from ftlib.course.lab_3_1_6.shingle_jaccard import JACCARD
from ftlib.course.lab_3_1_6.to_messages import CONVERT

EXERCISES = [
    CONVERT,
    CLEAN,
    LUHN,
    JACCARD,
    MINHASH,
    OVERLAP,
    GROUPS,
    DEFUSE,
    PACK,
    LONGER,
]
