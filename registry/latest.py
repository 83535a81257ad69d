"""Which statements count where one signer says something about a digest more than once.

A later smoke result, or a later provenance, takes the place of an earlier one by the same signer, as it does when it is pushed:
so an earlier one in a tag that nobody can move is cured as any other. What is later is told by the times that were signed: when
the run began, when the build ended. It is never told by where a statement lies or when it came there: whoever may write to the
registry decides that, and could put an old one back. A signature, or an SBOM, says no time: all of them count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from oci import statement
from oci.attachments import Attached
from oci.statement import Statement
from registry import provenance, result
from registry.trust import Trust

# Whether a statement of this kind takes the place of another one: the new, the old.
_SUPERSEDES: dict[str, Callable[[dict[str, Any], dict[str, Any]], bool]] = {
    statement.PROVENANCE: provenance.supersedes,
    statement.SMOKE: result.supersedes,
}


def of(kind: str, signed: Sequence[tuple[Attached, Statement]], who: Trust) -> list[Statement]:
    """Those that no other one takes the place of; of two of one time both.

    Args:
        kind: of all of them.
        signed: about one digest, each by somebody who is trusted.
        who: is trusted. What one of them says takes no other one's word back.
    """
    supersedes = _SUPERSEDES.get(kind)
    if supersedes is None or len(signed) == 1:
        return [parsed for _, parsed in signed]
    said = [(parsed, who.signers(item)) for item, parsed in signed]

    def gone(old: Statement, by: frozenset[str]) -> bool:
        return any(
            by <= also and supersedes(new.predicate, old.predicate) and not supersedes(old.predicate, new.predicate)
            for new, also in said
        )

    return [old for old, by in said if not gone(old, by)]
