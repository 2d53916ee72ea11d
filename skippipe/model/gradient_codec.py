"""Parts of a gradient as bf16 or int8 for the sync of replicas; what rounding leaves out goes into the next one.

A node writes each number of its stage's gradient once in a sync: to the replica that sums it, or as the owner of its
shard the mean. So one number for each is all that must be kept (error feedback, Seide et al. 2014; both ways as in
DoubleSqueeze, Tang et al. 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor

from skippipe.config import SYNC_BLOCK, Encoding

LEAST_SCALE = torch.finfo(torch.float32).tiny
"""Scale of a block of zeros, and of numbers so small that their scale would be none or lose digits."""
OF_LARGEST = (1 - 2**-22) / 127
"""A block's scale over its largest magnitude: a little less than 1/127, so that fp32's largest number comes back."""


class GradientCodec:
    """How one replica writes its parts and reads those of others (all_reduce.PartFormat), and what it has left out.

    What an iteration leaves out counts once `commit` says that the iteration does: a dropped one changes nothing.
    """

    def __init__(self, encoding: Encoding, numbers: int) -> None:
        """For the gradient of a stage with so many parameters; encoding is bf16 or int8, fp32 needs no codec."""
        assert encoding != "fp32"
        self.encoding = encoding
        self.left_out = torch.zeros(numbers)
        """What the iterations that counted have left out: it is added to what is written next."""
        self.pending = torch.zeros(numbers)
        """What is left out if this iteration counts."""
        self.messages: dict[int, Tensor] = {}
        self.scratch = torch.empty(0)

    def shape(self, numbers: int) -> tuple[int, ...]:
        """Shape of the message of so many numbers: its bytes as fp32 words."""
        if self.encoding == "bf16":
            return (-(-numbers // 2),)
        return (-(-numbers // SYNC_BLOCK) - (-numbers // 4),)

    def write(self, begin: int, part: Tensor) -> Tensor:
        """The message of a part that begins at a place of the gradient; `part` then holds what its readers will read.

        The message stays as it is until the part is written again, in the next iteration.
        """
        if begin not in self.messages:
            self.messages[begin] = torch.zeros(self.shape(len(part)))
        message, place = self.messages[begin], slice(begin, begin + len(part))
        wanted = torch.add(part, self.left_out[place], out=self.pending[place])
        if self.encoding == "bf16":
            halves(message, len(part)).copy_(wanted)
        else:
            self.write_blocks(wanted, *blocks(message, len(part)))
        self.decode(message, part)
        wanted.sub_(part)
        return message

    def write_blocks(self, wanted: Tensor, scales: Tensor, signed: Tensor) -> None:
        """Fill the scales and the signed bytes of a message."""
        if len(self.scratch) < len(wanted):
            self.scratch = torch.empty(len(wanted))
        whole = len(wanted) // SYNC_BLOCK * SYNC_BLOCK
        # The last block may be shorter.
        for place, block in ((slice(0, whole), SYNC_BLOCK), (slice(whole, len(wanted)), len(wanted) - whole)):
            if place.start == place.stop:
                continue
            values, scratch = wanted[place].view(-1, block), self.scratch[place].view(-1, block)
            own = scales[place.start // SYNC_BLOCK :][: len(values)]
            torch.abs(values, out=scratch)
            torch.amax(scratch, 1, out=own)
            own.mul_(OF_LARGEST).clamp_(min=LEAST_SCALE)
            torch.mul(values, own.reciprocal()[:, None], out=scratch).round_()
            signed[place].view(-1, block).copy_(scratch)

    def read(self, message: Tensor, numbers: int) -> Tensor:
        """The part's fp32 numbers, in memory of their own."""
        part = torch.empty(numbers)
        self.decode(message, part)
        return part

    def decode(self, message: Tensor, part: Tensor) -> None:
        """Fill a part with the numbers of its message."""
        if self.encoding == "bf16":
            part.copy_(halves(message, len(part)))
            return
        scales, signed = blocks(message, len(part))
        part.copy_(signed)
        whole = len(part) // SYNC_BLOCK
        part[: whole * SYNC_BLOCK].view(-1, SYNC_BLOCK).mul_(scales[:whole, None])
        if whole < len(scales):
            part[whole * SYNC_BLOCK :].mul_(scales[whole])

    def regroup(self) -> None:
        """Forget the messages: other replicas, so other parts."""
        self.messages.clear()

    def commit(self) -> None:
        """Take what this iteration left out into the next one: its step was made."""
        self.left_out, self.pending = self.pending, self.left_out


def halves(message: Tensor, numbers: int) -> Tensor:
    """The bf16 numbers of a message."""
    return message.view(torch.bfloat16)[:numbers]


def blocks(message: Tensor, numbers: int) -> tuple[Tensor, Tensor]:
    """A scale for each block of SYNC_BLOCK numbers, and the numbers in units of it, of a message."""
    count = -(-numbers // SYNC_BLOCK)
    return message[:count], message[count:].view(torch.int8)[:numbers]
