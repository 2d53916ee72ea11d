"""What somebody may try, without the secret or as a broken peer; each member is driven by one test (cases.py)."""

from __future__ import annotations

import math
from enum import unique
from typing import Any, Self

from tests.cases import Case, Layer

UP, STEP = "model.layers.2.mlp.up_proj.weight", "optimizer.step"
STRANGERS_SECRET = "it does not hold the cluster's secret"
TAG = "a record's tag does not verify"
SHORT, LONG = "frame 2, which is one record", "frame 5, which has parts"


def deep() -> object:
    """Lists within lists."""
    value: object = 1
    for _ in range(400):
        value = [value]
    return value


@unique
class Attack(Case):
    """Where it happens, a part of what it is refused with ("" for silence: all goes on), and what it is.

    Of a checkpoint, what it is are the fields that a stranger's file has in the place of ours; of its numbers, the
    stage, the tensor and the number that it begins with.
    """

    SILENT_STRANGERS = Layer.STRANGER, "", "200 silent connections come before the peer"
    STRANGERS_AGAIN = (
        Layer.STRANGER,
        "it did not introduce itself",
        "silent connections take all places, and come again whenever they are closed",
    )
    STRANGERS_KEEP_COMING = Layer.STRANGER, "", "silent connections come from a far peer's address all the time"
    OPENING_OVERHEARD = (
        Layer.STRANGER,
        "its opening was used before",
        "a far peer's opening is said again and again while the peer connects again",
    )
    NEWCOMERS_OPENING_OVERHEARD = (
        Layer.STRANGER,
        "its opening was used before",
        "the opening of a machine that was invited is said again",
    )
    LOG_FLOODED = Layer.STRANGER, "it does not speak our protocol", "600 strangers, each of them worth a line"
    WRONG_SECRET_THERE = Layer.STRANGER, "ignored a datagram without our secret", "a node that has another secret"
    SAYS_NOTHING = Layer.STRANGER, "", "a connection that says nothing"
    HALF_AN_OPENING = Layer.STRANGER, "", "a connection that says half an opening"
    OPENING_WITHOUT_TAG = Layer.STRANGER, "", "a connection that says an opening without its tag"
    OPENING_OF_ZEROS = Layer.STRANGER, STRANGERS_SECRET, "an opening whose tag is zeros"
    RANDOM_OPENING = Layer.STRANGER, STRANGERS_SECRET, "our protocol's name, and random bytes"
    BROWSER = Layer.STRANGER, "it does not speak our protocol", "a request of another protocol"
    HUGE_LENGTH = Layer.STRANGER, "it does not speak our protocol", "lengths as published DecCom obeys them"
    MORE_THAN_AN_OPENING = Layer.STRANGER, STRANGERS_SECRET, "an opening whose tag is zeros, and a proof at once"
    RANDOM_BYTES = Layer.STRANGER, "closed a connection from", "random bytes of any number"

    WRONG_SECRET = Layer.HANDSHAKE, STRANGERS_SECRET, "a client with another secret"
    NO_SECRET = Layer.HANDSHAKE, STRANGERS_SECRET, "a client that proves nothing"
    ANOTHER_RUN = Layer.HANDSHAKE, "another schedule or configuration", "a client of another configuration"
    ANOTHER_RUN_ID = Layer.HANDSHAKE, "another run of the same configuration", "a client of another run"
    ANOTHER_NODE = Layer.HANDSHAKE, "it looks for another node", "an opening that was meant for another node"
    REPLAYED_OPENING = Layer.HANDSHAKE, STRANGERS_SECRET, "an opening of an earlier connection, and its proof"
    REFLECTED = Layer.HANDSHAKE, STRANGERS_SECRET, "the server's own answer for a proof"
    SERVER_WITHOUT_SECRET = Layer.HANDSHAKE, STRANGERS_SECRET, "a server that proves nothing"
    REPLAYED_ANSWER = Layer.HANDSHAKE, STRANGERS_SECRET, "a server's answer of an earlier connection"
    CHANGED_OPENING = Layer.HANDSHAKE, "it does not ", "any bit of an opening is changed"
    CHANGED_ANSWER = Layer.HANDSHAKE, STRANGERS_SECRET, "any bit of an answer is changed"
    CHANGED_PROOF = Layer.HANDSHAKE, STRANGERS_SECRET, "any bit of a proof is changed"

    NEWCOMER_WITHOUT_SECRET = Layer.INVITATION, STRANGERS_SECRET, "a newcomer with another secret"
    NEWCOMER_OVERHEARD = Layer.INVITATION, STRANGERS_SECRET, "an opening of an earlier newcomer, and its proof"
    WISH_ELSEWHERE = Layer.INVITATION, "a wish for 2 files, some of which there are not", "a file that is not offered"
    WISH_ABOVE = Layer.INVITATION, "a wish for 1 files, some of which there are not", "a path out of the folder"
    WISH_A_PATH = Layer.INVITATION, "a wish for 1 files, some of which there are not", "a file of the system"
    WISH_TWICE = Layer.INVITATION, "a wish for 2 files, some of which there are not", "the same file twice"
    WISH_NO_TEXT = Layer.INVITATION, "a wish for 1 files, some of which there are not", "bytes that are no name"
    WISH_EMPTY = Layer.INVITATION, "a wish for 2 files, some of which there are not", "names that are empty"
    WISH_LONG = Layer.INVITATION, "a wish for 1 files, some of which there are not", "a name that is too long"

    EARLIER_RUN = Layer.DATAGRAM, "", "datagrams of an earlier run of the same configuration"
    ANOTHER_ADDRESS = Layer.DATAGRAM, "", "datagrams sent again that name another address"
    CHANGED_DATAGRAM = Layer.DATAGRAM, "", "datagrams with one bit changed"
    DATAGRAM_WITHOUT_SECRET = Layer.DATAGRAM, "", "datagrams under another secret"
    DATAGRAM_OF_ANOTHER_RUN = Layer.DATAGRAM, "", "content of a run of another configuration"
    RANDOM_DATAGRAM = Layer.DATAGRAM, "", "random bytes"

    SHORT_REPLAYED = Layer.RECORD, TAG, f"the record of {SHORT}, is said again"
    LONG_REPLAYED = Layer.RECORD, TAG, f"the last record of {LONG}, is said again"
    SHORT_LEFT_OUT = Layer.RECORD, TAG, f"the record of {SHORT}, is missing"
    LONG_LEFT_OUT = Layer.RECORD, TAG, f"the last record of {LONG}, is missing"
    SHORT_HEAD = Layer.RECORD, TAG, f"a bit of the length of {SHORT}"
    LONG_HEAD = Layer.RECORD, TAG, f"a bit of a length of {LONG}"
    SHORT_FIRST_BYTE = Layer.RECORD, TAG, f"a bit of the first byte of {SHORT}"
    LONG_FIRST_BYTE = Layer.RECORD, TAG, f"a bit of the first byte of a part of {LONG}"
    SHORT_LAST_BYTE = Layer.RECORD, TAG, f"a bit of the tag of {SHORT}"
    LONG_LAST_BYTE = Layer.RECORD, TAG, f"a bit of a tag of {LONG}"
    SHORT_END = Layer.RECORD, TAG, f"a bit of the last byte before the tag of {SHORT}"
    LONG_END = Layer.RECORD, TAG, f"a bit of the last byte before a tag of {LONG}"
    ANOTHER_KEY = Layer.RECORD, TAG, "all records under another key"
    LONGEST_LENGTH = Layer.RECORD, "a record of kind 2 and 16777215 bytes", "a length as long as can be written"
    LENGTH_BEYOND = Layer.RECORD, "a record of kind 2 and 524289 bytes", "a length one byte too long"

    FRAME_WITHOUT_START = Layer.FRAME, "a frame that begins with 5 bytes", "a frame that says nothing of itself"
    FRAME_SKIPPED = Layer.FRAME, "frame 2 after frame 0", "the second frame before the first"
    FRAME_ZERO = Layer.FRAME, "frame 0 after frame 0", "a frame before the first"
    FRAME_TOO_SHORT = Layer.FRAME, "a frame of 10 bytes", "a frame that holds no header"
    FRAME_TOO_LONG = Layer.FRAME, "a frame of 9223372036854775808 bytes", "a frame beyond all memory"
    FRAME_NOT_BEGUN = Layer.FRAME, "goes on at byte 70, where it did not end", "the rest of a frame that never began"
    FRAME_OVERFULL = Layer.FRAME, "a frame of 64 bytes", "more at once than a frame says that it has"
    PART_OF_NOTHING = Layer.FRAME, "10 bytes more than a frame has", "a part without a frame"
    PART_TOO_LONG = Layer.FRAME, "101 bytes more than a frame has", "a part beyond its frame's end"
    WRONG_WAY = Layer.FRAME, "a record of kind STATE from the end that connected", "what only the other end says"

    FORGED_SENDER = Layer.STRANGER, "node 0 sends as node 1", "a peer's message in another node's name"
    MESSAGE_OF_ANOTHER = Layer.MESSAGE, "node 8 has no ACTIVATION 0 to send", "another node's message"
    MESSAGE_UNKNOWN = Layer.MESSAGE, "node 7 has no ACTIVATION 1 to send", "a microbatch that does not come here"
    MESSAGE_KIND = Layer.MESSAGE, "node 7 has no GRADIENT 0 to send", "a gradient from the node before"
    MESSAGE_TOO_EARLY = Layer.MESSAGE, "iteration 2 is not 0 or the next", "a message of a far iteration"

    PART_KIND = Layer.COLLECTIVE, "node 4 has no HIDDEN 1.0 to send", "another kind"
    PART_OF_ANOTHER = Layer.COLLECTIVE, "node 5 has no SHARD 1.0 to send", "another node's part"
    PART_ELSEWHERE = Layer.COLLECTIVE, "node 4 has no SHARD 7.0 to send", "a collective that is none"
    PART_BEYOND = Layer.COLLECTIVE, "node 4 has no SHARD 1.2 to send", "a part too many"
    PART_SIZE = Layer.COLLECTIVE, "SHARD 1.0 has shape [3], expected [2]", "a part of another size"
    PART_TOO_EARLY = Layer.COLLECTIVE, "iteration 2 is not 0 or the next", "a part of a far iteration"
    PART_OF_OURS = Layer.COLLECTIVE, "node 2 has no SHARD 1.0 to send", "a part in the receiver's own name"

    ITERATION_TEXT = Layer.CHECKPOINT, "iteration must be a whole number", {"iteration": "4"}
    ITERATION_HUGE = Layer.CHECKPOINT, "iteration must be at most", {"iteration": 10**15}
    ITERATION_NEGATIVE = Layer.CHECKPOINT, "iteration must lie between 1 and", {"iteration": -1}
    STAGES_HUGE = Layer.CHECKPOINT, "stages must lie between 1 and 10000", {"stages": 10**9}
    STAGES_TRUE = Layer.CHECKPOINT, "stages must be a whole number", {"stages": True}
    STAGES_FEWER = Layer.CHECKPOINT, "stage 1 of 1", {"stages": 1}
    STAGE_TEXT = Layer.CHECKPOINT, "holds another stage than its name says", {"stage": "1"}
    VOCABULARY_HUGE = Layer.CHECKPOINT, "vocabulary must lie between", {"vocabulary": 10**10}
    SETTING_LONG = Layer.CHECKPOINT, "setting has 10000 characters", {"setting": "x" * 10_000}
    SETTING_DEEP = Layer.CHECKPOINT, "setting must be text", {"setting": deep()}
    RUN_A_PATH = Layer.CHECKPOINT, "run must be at most 64 hexadecimal digits", {"run": "../../etc"}
    TEXT_A_PATH = Layer.CHECKPOINT, "text must be at most 64 hexadecimal digits", {"text": "/etc/passwd"}
    POSITIONS_TWO = Layer.CHECKPOINT, "positions must be three numbers for each part", {"positions": [[0, 1]]}
    POSITIONS_NEGATIVE = Layer.CHECKPOINT, "positions must be three numbers for", {"positions": [[0, 1, -1]]}
    POSITIONS_TEXT = Layer.CHECKPOINT, r"positions\[0\]\[2\] must be a whole number", {"positions": [[0, 1, "a"]]}
    POSITIONS_MANY = (
        Layer.CHECKPOINT,
        "not a checkpoint|positions must be three",
        {"positions": [[0, 1, 2]] * 10_001},
    )
    UNKNOWN_FIELD = Layer.CHECKPOINT, "no field pickle", {"pickle": "gASVAAAA"}
    MODEL_HUGE = Layer.CHECKPOINT, "d_model must be at most", {"config": {"model": {"d_model": 10**9, "heads": 1}}}
    MODEL_OTHER = Layer.CHECKPOINT, "expected", {"config": {"model": {"d_model": 1024, "heads": 2}}}
    META_LONG = Layer.CHECKPOINT, "not a checkpoint of SkipPipe", {"setting": "x" * 200_000}
    NO_MAPPING = Layer.CHECKPOINT, "config must be a section of fields", {"config": [1]}

    WEIGHT_NAN = Layer.NUMBERS, r"model\.layers\.2\.mlp.*not finite", (2, UP, math.nan)
    MOMENT_INFINITE = Layer.NUMBERS, r"exp_avg\.model\.layers\.2\.mlp.*not finite", (2, f"exp_avg.{UP}", math.inf)
    SQUARE_NEGATIVE = Layer.NUMBERS, "a mean of squares is negative", (2, f"exp_avg_sq.{UP}", -1e-9)
    STEP_NAN = Layer.NUMBERS, "nan steps in 4 iterations", (0, STEP, math.nan)
    STEP_NEGATIVE = Layer.NUMBERS, "-1 steps in 4 iterations", (0, STEP, -1.0)
    STEP_BROKEN = Layer.NUMBERS, "2.5 steps in 4 iterations", (0, STEP, 2.5)
    STEP_LATE = Layer.NUMBERS, "5 steps in 4 iterations", (0, STEP, 5.0)

    @property
    def outcome(self) -> str:
        """A part of what it is refused with."""
        outcome: str = self.value[1]
        return outcome

    @property
    def what(self) -> Any:
        """What is tried."""
        return self.value[2]

    @classmethod
    def at(cls, layer: Layer) -> list[Self]:
        """The members of a layer."""
        return [attack for attack in cls if attack.layer is layer]
