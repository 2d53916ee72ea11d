"""What may go wrong without anybody's bad will, and what must follow; each member is driven by one test (cases.py)."""

from __future__ import annotations

from enum import unique
from typing import Self

from tests.cases import Case, Layer

GOES_ON, ENDS = True, False


@unique
class Fault(Case):
    """Where it happens, whether the run goes on, a part of the line that the user reads ("" for none), and what it is.

    A line of a run that goes on is a warning in a log, or what is told to whoever may not take part.
    """

    SLOW_LINK = Layer.LINK, GOES_ON, "", "12 MB take six seconds, twice as long as a peer may be silent"
    VERY_SLOW_LINK = Layer.LINK, GOES_ON, "", "64 KB take longer than a peer may be silent"
    SLOW_WAY_BACK = Layer.LINK, GOES_ON, "", "1000 bytes a second are left to acknowledgements"
    FLIPPED_BIT = Layer.LINK, GOES_ON, "a record's tag does not verify", "a bit changes on the way"
    FLIPPED_BIT_BACK = (
        Layer.LINK,
        GOES_ON,
        "link to node 1 broke (a record's tag does not verify); connecting again",
        "a bit of an acknowledgement changes on the way back",
    )
    SKEWED_SENDER = Layer.LINK, GOES_ON, "", "the sender's clock is a million seconds ahead"
    SKEWED_RECEIVER = Layer.LINK, GOES_ON, "", "the receiver's clock is a million seconds ahead"
    SLOW_SENDER = Layer.LINK, GOES_ON, "", "the sender's clock is a thousand seconds behind"
    SUSPENDED_SENDER = Layer.LINK, GOES_ON, "", "the sender's machine has slept for an hour"
    SUSPENDED_RECEIVER = Layer.LINK, GOES_ON, "", "the receiver's machine has slept for an hour"
    NO_DESCRIPTORS = (
        Layer.LINK,
        GOES_ON,
        "can't accept a connection (Too many open files); going on",
        "the receiver has no file descriptor left, for a while",
    )
    SECOND_LAUNCHER = (
        Layer.LINK,
        GOES_ON,
        "runs the same under another launcher of node 0; end one of the two",
        "another launcher of node 0 comes to the same addresses",
    )
    SECOND_PROCESS = (
        Layer.LINK,
        GOES_ON,
        "this node is part of the run already; does another launcher run it under the same name?",
        "another process connects in the name of a node that is there",
    )
    SECOND_NAME = (
        Layer.LINK,
        GOES_ON,
        "introduces itself as a node that is at",
        "another process introduces itself to discovery in the name of a node that is there",
    )
    REFUSED_FRAME = (
        Layer.LINK,
        ENDS,
        "iteration 5 is not 0 or the next",
        "a message that the receiver must refuse, again and again",
    )
    HUNG_EXECUTOR = Layer.LINK, ENDS, "node 0 hangs: F7 of iteration 3 has taken", "the torch thread stands still"
    OTHER_FIELD = (
        Layer.LINK,
        ENDS,
        "runs something else; it differs in: optimizer.learning_rate (0.",
        "two nodes of different learning rates",
    )

    CUT_AGAIN_AND_AGAIN = Layer.PEER, GOES_ON, "link to node 1 broke (", "connections are cut in the middle of frames"
    PEER_GONE = Layer.PEER, ENDS, "node 1 can't be reached for", "the peer ends"
    PEER_NEVER_COMES = Layer.PEER, ENDS, "node 1 can't be reached for", "the peer never starts"
    PEERS_PEER_LOST = Layer.PEER, ENDS, "node 3 failed on its machine, says node", "a peer knows of a node that failed"

    CALLBACK_RAISES = Layer.NETWORK, ENDS, "the network thread failed: IndexError", "a mistake of the program"
    SENDING_RAISES = Layer.NETWORK, ENDS, "sending to node 1 failed: TypeError", "a mistake of the program, in a task"
    TOO_BUSY = (
        Layer.NETWORK,
        ENDS,
        "peers.connect_seconds: the links of node 3 did not open in 0.1 s;",
        "a machine that has no time to open links",
    )

    BOOTSTRAP_KILLED = Layer.RUN, GOES_ON, "", "node 0"
    ORIGIN_KILLED = Layer.RUN, GOES_ON, "", "node 1"
    RELAY_KILLED = Layer.RUN, GOES_ON, "", "node 3"
    STAGE_KILLED = Layer.RUN, GOES_ON, "", "nodes 2 and 3"
    ORIGINS_KILLED = Layer.RUN, ENDS, "no living node holds stage 0", "nodes 0 and 1"
    STOPPED_FOR_8_S = Layer.RUN, GOES_ON, "", "node 2"
    ALL_STOPPED_FOR_10_S = Layer.RUN, GOES_ON, "", "nodes 0, 1, 2, 3, 4 and 5"
    LINK_CUT_FOR_5_S = Layer.RUN, GOES_ON, "", "the cable between two machines, for a while"
    LINK_CUT = Layer.RUN, ENDS, "no living node holds stage 0", "the cable between two machines"
    CUT_OFF = Layer.RUN, GOES_ON, "node 5 lost in iteration", "the cable to a machine without which each stage lives"
    MACHINE_LOST = Layer.RUN, ENDS, "of 6 nodes can be reached, no majority", "the machine with most of the nodes"
    KILLED_WITH_NODE_0 = Layer.RUN, GOES_ON, "node 1 lost in iteration", "node 1"
    KILLED_FAR_FROM_NODE_0 = Layer.RUN, GOES_ON, "node 5 lost in iteration", "node 5"

    DATA_CHILD_KILLED = (
        Layer.LAUNCH,
        ENDS,
        "error: data: preparing it was killed by SIGKILL",
        "the child that prepares the data",
    )
    DATA_INTERRUPTED = Layer.LAUNCH, ENDS, "stopped by SIGINT", "Ctrl-C while a child prepares the data"
    DATA_ORPHANED = Layer.LAUNCH, ENDS, "", "the launcher is killed while a child prepares the data"
    CHILD_FAILS_EARLY = (
        Layer.LAUNCH,
        ENDS,
        "error: node 3 ended with exit code 2",
        "a node's process fails before it can do anything",
    )
    SECOND_CTRL_C = Layer.LAUNCH, ENDS, "stopped by SIGINT; every node was stopped", "Ctrl-C again and again"
    SIGTERM_TO_ONE = (
        Layer.LAUNCH,
        ENDS,
        " and its machine were told to stop (SIGTERM)",
        "one of two launchers is told to stop",
    )
    SIGTERM_WITHOUT_SHARED_DISK = (
        Layer.LAUNCH,
        ENDS,
        "go on with --resume",
        "one of two launchers is told to stop, and each saves on a disk of its own",
    )
    LOST_AT_THE_START = (
        Layer.LAUNCH,
        ENDS,
        "node 5 failed on its machine, says node",
        "a node fails while those of another machine wait for it",
    )
    PORT_TAKEN = (
        Layer.LAUNCH,
        ENDS,
        "error: peers.first_port: node 2 can't listen on 127.0.0.1:",
        "another program listens on a node's port",
    )

    HANGS_IN_TASK = Layer.HANG, GOES_ON, r"[FLB]\d+ of iteration \d", "TASK"
    HANGS_IN_SYNC = Layer.HANG, GOES_ON, "the sync of iteration 1", "SYNC"
    HANGS_IN_VALIDATION = Layer.HANG, GOES_ON, r"the validation after iteration \d", "VALIDATION"
    HANGS_IN_SAVING = Layer.HANG, GOES_ON, r"saving the checkpoint of iteration \d+", "SAVING"
    STOPPED_JOINING = (
        Layer.HANG,
        GOES_ON,
        "node 2 was to join and gives no sign of life: its process is ended",
        "JOINING",
    )
    SLOW = Layer.HANG, GOES_ON, "node 2 is slow from iteration 4 on: its tasks take ", "SLOW"

    FULL_PREPARING = Layer.DISK, ENDS, "can't be written (", "no file can have more than 20,000 bytes"
    FULL_SAVING = Layer.DISK, ENDS, "can't be saved (", "no file can have more than 300,000 bytes"

    OTHER_RATE = Layer.MACHINES, ENDS, "optimizer.learning_rate (0.0123 here)", "optimizer.learning_rate=0.0123"
    OTHER_SEED = Layer.MACHINES, ENDS, "seed (7 here)", "seed=7"
    OTHER_TEXT = Layer.MACHINES, ENDS, "data.validation_fraction (0.2 here)", "data.validation_fraction=0.2"
    OTHER_CLOCK = Layer.MACHINES, GOES_ON, "", "a machine's clock is a million seconds ahead"
    BACK_WITHOUT_NODE_0 = Layer.MACHINES, GOES_ON, "", "a node of such a machine comes back when node 0 is gone"
    SAME_FOLDER_TWICE = Layer.MACHINES, GOES_ON, "another launcher runs node 2", "two launchers of a node in a folder"
    SAME_NODES_TWICE = Layer.MACHINES, GOES_ON, "part of the run already", "another machine starts the same nodes"

    STAGE_ON_NO_DISK = (
        Layer.NO_SHARED_DISK,
        ENDS,
        "error: --resume: no checkpoint is complete over all machines: of iteration {} nobody has stage 1",
        "a file is gone from the one disk that it was on",
    )
    NEVER_FINITE = (
        Layer.NO_SHARED_DISK,
        ENDS,
        "the last 2 iterations were dropped",
        "weights give no finite numbers, and every machine has some of them on its disk",
    )

    STAGE_TRUNCATED = Layer.CHECKPOINT, ENDS, "truncated or no safetensors file", "its last 100 bytes are missing"
    STAGE_EMPTY = Layer.CHECKPOINT, ENDS, "truncated or no safetensors file", "it has no bytes"
    STAGE_HEADER_CUT = Layer.CHECKPOINT, ENDS, "truncated or no safetensors file", "it ends in its header"
    STAGE_OF_ANOTHER_ITERATION = Layer.CHECKPOINT, ENDS, "from another run or iteration", "it was saved before"
    STAGE_OF_ANOTHER_NUMBER = Layer.CHECKPOINT, ENDS, "holds another stage than its name says", "a file was renamed"

    FEEDBACK_MISSING = Layer.FEEDBACK, GOES_ON, "no such file", "it was never saved"
    FEEDBACK_TRUNCATED = Layer.FEEDBACK, GOES_ON, "truncated or no safetensors file", "its last bytes are missing"
    FEEDBACK_OF_ANOTHER_NODE = Layer.FEEDBACK, GOES_ON, "of other replicas", "a file was renamed"
    FEEDBACK_OF_ANOTHER_ITERATION = Layer.FEEDBACK, GOES_ON, "from another run or iteration", "it was saved before"
    FEEDBACK_NOT_FINITE = Layer.FEEDBACK, GOES_ON, "holds numbers that are not finite", "one number is a nan"
    FEEDBACK_OF_ANOTHER_SIZE = Layer.FEEDBACK, GOES_ON, "left_out is not of the stage's size", "a number is missing"
    FEEDBACK_FOREIGN = Layer.FEEDBACK, GOES_ON, "not a checkpoint of SkipPipe", "it says something else of itself"

    @property
    def goes_on(self) -> bool:
        """Whether the run does."""
        goes_on: bool = self.value[1]
        return goes_on

    @property
    def line(self) -> str:
        """A part of what the user reads."""
        line: str = self.value[2]
        return line

    @property
    def what(self) -> str:
        """What goes wrong."""
        what: str = self.value[3]
        return what

    @classmethod
    def at(cls, layer: Layer, goes_on: bool | None = None) -> list[Self]:
        """The members of a layer, or those after which the run goes on, or ends."""
        return [fault for fault in cls if fault.layer is layer and goes_on in (None, fault.goes_on)]
