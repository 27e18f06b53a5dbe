"""Exact and near duplicates, and copies of the golden set.

Near duplicates: Broder's MinHash (1997) with locality-sensitive hashing finds candidates, exact
Jaccard similarity decides. So no pair below the threshold is ever reported; a pair above it is
missed with a probability that `NearIndex.recall` states.
"""

from __future__ import annotations

import hashlib
import tempfile
import unicodedata
import zlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from datasketch import MinHash
from tqdm import tqdm

from ftlib.core.checks import check_positive_integer
from ftlib.core.errors import DataError
from ftlib.data.texts import row_parts, row_text, tokens

Groups = list[list[int]]
RECALL = 0.99  # of pairs exactly at the threshold, by the choice of bands
SHORT = 6  # a text of fewer tokens says too little to be found again inside another
CLOSE = 0.66  # Jaccard similarity from which a text with tokens put in is looked for
SPOOL = 64_000_000  # bytes of text that `NearIndex` holds in memory; more go to a temporary file
FIRST_SLOTS = 1024  # of its hash table, which grows by four when each holds two entries


def normalise(text: str) -> str:
    """Composed Unicode (NFC), lower case, one space for any white space:
    texts that agree in this are the same for `exact_duplicates`."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def exact_key(row: dict) -> bytes:
    """16 bytes (BLAKE2b) of the row's roles and normalised texts in order. What is not text, such
    as `family`, does not count.
    """
    digest = hashlib.blake2b(digest_size=16)
    for role, text in row_parts(row):
        digest.update(f"{role}\0{normalise(text)}\0".encode("utf-8", "surrogatepass"))
    return digest.digest()


def exact_duplicates(rows: Iterable[dict]) -> Groups:
    """Groups of rows that say the same in the same roles, case and white space aside:
    indices in order, the first is the one to keep."""
    places: dict[bytes, list[int]] = {}
    for i, row in enumerate(rows):
        places.setdefault(exact_key(row), []).append(i)
    return [group for group in places.values() if len(group) > 1]


def shingles(text: list[str], size: int) -> set[str]:
    """The runs of `size` tokens of a text, or the whole of a shorter one."""
    count = max(1, len(text) - size + 1)
    return {" ".join(text[start : start + size]) for start in range(count)}


def jaccard(a: set, b: set) -> float:
    """|A ∩ B| / |A ∪ B|."""
    both = len(a & b)
    return both / (len(a) + len(b) - both)


def lsh_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """(bands, hashes a band): as many hashes a band as leave a pair at the threshold found with
    probability RECALL or more.

    More hashes a band mean fewer candidates to verify. DataError where not even one hash a band is
    enough.
    """
    for size in range(num_perm, 0, -1):
        bands = num_perm // size
        if band_recall(threshold, bands, size) >= RECALL:
            return bands, size
    raise DataError(
        f"num_perm={num_perm} hashes find pairs at threshold={threshold} less than {RECALL:.0%} "
        "of the time: raise one of them"
    )


def band_recall(similarity: float, bands: int, size: int) -> float:
    """Probability that two texts of this Jaccard similarity s share a bucket: 1 - (1 - s^r)^b for
    b bands of r hashes (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4).
    """
    return 1 - (1 - similarity**size) ** bands


def inserted(a: list[str], b: list[str]) -> int | None:
    """How many tokens the longer text has more than the shorter one, if it is that one with tokens
    put in; None if it is not.
    """
    shorter, longer = sorted((a, b), key=len)
    rest = iter(longer)
    for token in shorter:
        if token not in rest:  # `in` reads on from where the last token was found
            return None
    return len(longer) - len(shorter)


def _crc32(piece: str) -> int:
    """The 32-bit hash that MinHash permutes."""
    return zlib.crc32(piece.encode("utf-8", "surrogatepass"))


class NearIndex:
    """Texts seen so far, to be asked which of them are near a new one. The same seed gives the same
    answers.

    MinHash signatures come from datasketch. The buckets are a hash table in three arrays of 4-byte
    numbers: `table` has the last entry of each slot, and for each text and band `before` has the
    entry before it, `tags` the bits that tell keys of one slot apart. That is some 12 bytes an
    entry, about a tenth of a dict of buckets; what is found is the same. The texts, read again only
    when a candidate is verified, are in a temporary file once they are more than SPOOL bytes:
    memory does not grow with their length.
    """

    def __init__(
        self, threshold: float = 0.8, shingle: int = 3, num_perm: int = 128, seed: int = 1
    ):
        if not 0 < threshold <= 1:
            raise DataError(f"threshold={threshold}: a Jaccard similarity above 0, at most 1")
        check_positive_integer("shingle", shingle, DataError)
        check_positive_integer("num_perm", num_perm, DataError)
        self.threshold = threshold
        self.shingle = shingle
        self.bands, self.size = lsh_bands(threshold, num_perm)
        self._minhash = MinHash(num_perm, seed, hashfunc=_crc32)
        generator = np.random.default_rng(seed)
        shape = (self.bands, self.size)
        factors = generator.integers(0, 2**64, shape, dtype=np.uint64)
        self._factors = factors | np.uint64(1)  # (bands, hashes a band), odd: none loses bits
        self._offsets = generator.integers(0, 2**64, self.bands, dtype=np.uint64)
        # Open as long as the index lives.
        self._texts = tempfile.SpooledTemporaryFile(SPOOL)  # noqa: SIM115
        self._ends = array("q", [0])  # where each text ends in that file
        self._table = array("i", [-1]) * FIRST_SLOTS
        self._before = array("i")
        self._tags = array("I")

    def recall(self, similarity: float) -> float:
        """Probability that a pair of this Jaccard similarity becomes a candidate
        (`band_recall`).
        """
        return band_recall(similarity, self.bands, self.size)

    def sketch(self, text: str) -> tuple[str, set[str], list[int]]:
        """(tokens joined, shingles, one 64-bit key a band) of a text."""
        found = tokens(text)
        pieces = shingles(found, self.shingle)
        self._minhash.clear()
        self._minhash.update_batch(pieces)
        used = self._minhash.hashvalues[: self.bands * self.size]
        signature = used.reshape(self.bands, self.size).astype(np.uint64)
        keys = (signature * self._factors).sum(1) + self._offsets  # (bands,), modulo 2^64
        return " ".join(found), pieces, keys.tolist()

    def candidates(self, keys: list[int]) -> list[int]:
        """Texts that share a bucket, in order."""
        found = set()
        slots = len(self._table)
        for key in keys:
            tag = key >> 32
            entry = self._table[tag % slots]
            while entry >= 0:
                if self._tags[entry] == tag:
                    found.add(entry // self.bands)
                entry = self._before[entry]
        return sorted(found)

    def text(self, i: int) -> list[str]:
        """The tokens of text i."""
        start = self._ends[i]
        end = self._ends[i + 1]
        self._texts.seek(start)
        said = self._texts.read(end - start)
        return said.decode("utf-8", "surrogatepass").split(" ")

    def similarity(self, i: int, pieces: set[str]) -> float:
        """Exact Jaccard similarity of text i to a set of shingles."""
        return jaccard(shingles(self.text(i), self.shingle), pieces)

    def _store(self, text: str) -> None:
        said = text.encode("utf-8", "surrogatepass")
        try:
            self._texts.seek(self._ends[-1])
            self._texts.write(said)
            self._texts.flush()
        except OSError as error:
            raise DataError(
                f"the texts seen so far do not fit into {tempfile.gettempdir()}: {error.strerror}; "
                "set TMPDIR to a folder with more room"
            ) from error
        self._ends.append(self._ends[-1] + len(said))

    def insert(self, text: str, keys: list[int]) -> int:
        """Put a sketched text into the index; its number. DataError where there is no room."""
        self._store(text)
        self._tags.extend(key >> 32 for key in keys)
        if len(self._tags) > 2 * len(self._table):
            self._table = array("i", [-1]) * (4 * len(self._table))
            self._before = array("i")
        # The new text's entries, or after growth all of them.
        for entry in range(len(self._before), len(self._tags)):
            slot = self._tags[entry] % len(self._table)
            self._before.append(self._table[slot])
            self._table[slot] = entry
        return len(self._ends) - 2


class Union:
    """Disjoint sets of 0..n-1; the root of each is its least member."""

    def __init__(self, count: int):
        self.parent = list(range(count))

    def root(self, i: int) -> int:
        """The least member of i's set."""
        while self.parent[i] != i:
            grandparent = self.parent[self.parent[i]]
            self.parent[i] = grandparent  # halves the way for those who ask later
            i = grandparent
        return i

    def join(self, i: int, j: int) -> None:
        """Make one set of i's and j's."""
        a = self.root(i)
        b = self.root(j)
        self.parent[max(a, b)] = min(a, b)

    def groups(self) -> Groups:
        """All sets, also those of one, in the order of their first members."""
        found: dict[int, list[int]] = {}
        for i in range(len(self.parent)):
            found.setdefault(self.root(i), []).append(i)
        return list(found.values())


def near_duplicates(
    rows: list[dict],
    threshold: float = 0.8,
    shingle: int = 3,
    num_perm: int = 128,
    seed: int = 1,
    text: Callable[[dict], str] = row_text,
) -> Groups:
    """Groups of rows whose texts are alike: connected components of the pairs with Jaccard
    similarity ≥ threshold.

    The similarity is of sets of `shingle` consecutive tokens: words in lower case and marks of
    punctuation. Indices are in order, the first is the row to keep. In a group A, C may be less
    alike than the threshold if some B is near both. A pair at the threshold is missed with
    probability 0.0017 (21 bands of 6 hashes, at the defaults), a closer one more rarely. Three
    tokens at 0.8 suit short rows: of the 6,280 embedded training rows, many of one form, no two
    that ask different things are grouped, where runs of five characters at 0.8 would group ten such
    pairs and single words 157.
    """
    index = NearIndex(threshold, shingle, num_perm, seed)
    union = Union(len(rows))
    first: dict[str, int] = {}  # the row that was the first to say each text
    places: list[int] = []  # the row of each text in the index
    for i, row in enumerate(tqdm(rows, desc="near duplicates", unit=" rows", delay=2)):
        joined, pieces, keys = index.sketch(text(row))
        if joined in first:
            union.join(first[joined], i)
            continue
        first[joined] = i
        for j in index.candidates(keys):
            is_joined = union.root(places[j]) == union.root(i)
            if not is_joined and index.similarity(j, pieces) >= threshold:
                union.join(places[j], i)
        index.insert(joined, keys)
        places.append(i)
    return [group for group in union.groups() if len(group) > 1]


# --- rules of the pipeline ------------------------------------------------------------------------
# Each sees a row and its number, and gives the reason to drop it, or None.
@dataclass(frozen=True)
class ExactDuplicates:
    """Drops a row that says what a kept row says (`exact_duplicates`). Opposite labels are a
    contradiction, not a duplicate.

    State: 16-byte hashes in a dict, some 0.15 kB a kept row.
    """

    name: str = "exact duplicates"

    def begin(self) -> Callable[[dict, int], str | None]:
        """The check of one run, which remembers the rows it has seen."""
        # A row's number by its texts, for labelled rows by texts and label.
        seen: dict[bytes | tuple[bytes, object], int] = {}

        def check(row: dict, number: int) -> str | None:
            text_key = exact_key(row)
            key = (text_key, row["label"]) if "label" in row else text_key
            first = seen.setdefault(key, number)
            return None if first == number else f"same text as row {first}"

        return check


@dataclass(frozen=True)
class NearDuplicates:
    """Drops a row that is as near as `threshold` to a kept one (settings of `near_duplicates`; rows
    of one label among themselves).

    In a short text a word more breaks a good part of its shingles: with "Please:" before it, a
    question of eight tokens has a similarity of 6/8 = 0.75 to itself. So a row also goes if it is a
    kept one with up to `insertions` tokens put in, or the other way round; texts of fewer than
    SHORT tokens aside, and found from a similarity of CLOSE on. 0: by similarity alone. Rows are
    compared with kept rows, not with dropped ones, so no chain of small steps can lose a row unlike
    all that is kept.
    """

    threshold: float = 0.8
    shingle: int = 3
    num_perm: int = 128
    seed: int = 1
    text: Callable[[dict], str] = row_text
    insertions: int = 2
    name: str = "near duplicates"

    def _kept(self) -> tuple[NearIndex, array]:
        """An empty index, and the array for the row numbers of its texts."""
        threshold = min(self.threshold, CLOSE) if self.insertions else self.threshold
        return NearIndex(threshold, self.shingle, self.num_perm, self.seed), array("q")

    def _near(self, index: NearIndex, i: int, joined: str, pieces: set[str]) -> str | None:
        """How near a text is to text i of the index; None where it is not near enough."""
        similarity = index.similarity(i, pieces)
        if similarity >= self.threshold:
            return f"{similarity:.2f} like"
        if not self.insertions or similarity < CLOSE:
            return None
        known = index.text(i)
        new = joined.split(" ")
        if min(len(known), len(new)) < SHORT:
            return None
        more = inserted(known, new)
        if more is None or more > self.insertions:
            return None
        return f"{more} tokens more or less than"

    def begin(self) -> Callable[[dict, int], str | None]:
        """The check of one run, which remembers the rows it has let pass."""
        kept_by_label: defaultdict = defaultdict(self._kept)

        def check(row: dict, number: int) -> str | None:
            index, places = kept_by_label[row.get("label")]
            joined, pieces, keys = index.sketch(self.text(row))
            for i in index.candidates(keys):
                near = self._near(index, i, joined, pieces)
                if near is not None:
                    return f"{near} row {places[i]}"
            index.insert(joined, keys)
            places.append(number)
            return None

        return check
