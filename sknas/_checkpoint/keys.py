"""The keys of a checkpoint: every name under which a search keeps a value.

=====================  ============================================  ==========
key                    value                                         written by
=====================  ============================================  ==========
seed                   seed of the search                            estimator
score-seconds          seconds of a call of the scorer               estimator
batch:I                size and proposals of batch I                 recorder
trial:N                trial N without arrays                        recorder
networks:N             networks and predictions of trial N           recorder
done:I                 numbers of the trials of batch I              recorder
end:I                  stop reason, where there is no batch I        recorder
cohort:RUNG:N,N,...    trial states of a group at the end of a rung  trainers
cohort:promoted:N:I    members promoted by halving I of a cohort     trainers
supernet               results of a search by gradient               strategies
supernet-state:B       supernet in training with batches of B rows   strategies
refit:SEED:STOP        a network trained on all rows                 ensemble
=====================  ============================================  ==========
"""

from __future__ import annotations

from collections.abc import Iterable

SEED = "seed"
SCORE_SECONDS = "score-seconds"
COHORT = "cohort"  # prefix of the states that are dropped when a batch is done
SUPERNET = "supernet"
SUPERNET_STATE = "supernet-state"  # prefix, dropped after the training


def batch(index: int) -> str:
    """Return the key of a batch of proposals."""
    return f"batch:{index}"


def trial(number: int) -> str:
    """Return the key of a trial without its arrays."""
    return f"trial:{number}"


def networks(number: int) -> str:
    """Return the key of the networks and predictions of a trial."""
    return f"networks:{number}"


def done(index: int) -> str:
    """Return the key of the trial numbers of a finished batch."""
    return f"done:{index}"


def end(index: int) -> str:
    """Return the key of the stop reason of a search that ended before a batch."""
    return f"end:{index}"


def group(rung: int, numbers: Iterable[int]) -> str:
    """Return the key of a group of networks at the end of a rung."""
    return f"{COHORT}:{rung}:{','.join(map(str, numbers))}"


def promoted(first_number: int, n_halvings: int) -> str:
    """Return the key of the members of a cohort that are promoted by a halving."""
    return f"{COHORT}:promoted:{first_number}:{n_halvings}"


def supernet_state(batch_size: int) -> str:
    """Return the key of a supernet in training."""
    return f"{SUPERNET_STATE}:{batch_size}"


def refit(seed: int, stop: float) -> str:
    """Return the key of a network trained on all rows."""
    return f"refit:{seed}:{stop}"
