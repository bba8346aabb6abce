"""What can go wrong in `prep`, split by whose fault it is.

A `PrepError` is the user's to mend, and the CLI shows it as one line without a traceback. A `Reject` is expected bad
data: a value that travels into the ledger or the summary, while the work goes on.
"""

from dataclasses import dataclass


class PrepError(Exception):
    """Something the user can mend; the message names what, where and how."""


@dataclass(frozen=True)
class Reject:
    """Why one input is left out. `reason` is a short slug such as "no_notes"; `detail` is for a person."""

    reason: str
    detail: str = ""
