"""Members of an ensemble on threads of their own: they share nothing but their inputs.

Arrays of a batch of genes are too small for two processor cores to share one operation, but not too small for each core
to have a member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from stcsm.models._module import GeneVAEModule

T = TypeVar("T")
SMALL = 2**19
"""Values of a batch (genes x spots) up to which one thread does the work of a fully connected model.

Two gain a quarter at most on an idle machine; on a busy one they wait for each other, spinning, and take four times and
more as long (docs/start.md). And what is learned does not depend on how many cores there are.
"""


class SideBySide:
    """Threads that work on members, forwards and backwards.

    Parameters
    ----------
    n_workers
        Threads.
    """

    def __init__(self, n_workers: int):
        # A member stays on its thread: autograd adds gradients up in the order in which the thread has made the nodes,
        # so that with members that change threads the rounding would change from run to run.
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=f"stcsm-member-{i}") for i in range(n_workers)]
        self._cuts: list[tuple[Tensor, Tensor]] = []

    @staticmethod
    def fits(like: Tensor) -> bool:
        """Whether a step may be split: it trains on the CPU, in one process, in the precision of its weights.

        Threads of our own know neither the autocast of the calling one nor how processes share gradients.
        """
        return (
            torch.is_grad_enabled()
            and like.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and not (torch.distributed.is_available() and torch.distributed.is_initialized())
        )

    def each(self, work: Callable[[int], T], n: int) -> list[T]:
        """What ``work`` gives for each member, in their order."""
        waiting = [self._threads[m % len(self._threads)].submit(work, m) for m in range(n)]
        return [answer.result() for answer in waiting]

    def cut(self, losses: list[Tensor]) -> list[Tensor]:
        """The losses as leaves, so that the backward pass of what is made of them ends there; see `backward`."""
        leaves = [loss.detach().requires_grad_() for loss in losses]
        self._cuts = list(zip(losses, leaves, strict=True))
        return leaves

    def backward(self) -> None:
        """Go on behind the leaves, with the gradients that they were given."""
        cuts, self._cuts = self._cuts, []

        def behind(m: int) -> None:
            loss, leaf = cuts[m]
            if leaf.grad is not None:
                loss.backward(leaf.grad)

        if cuts:
            self.each(behind, len(cuts))

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # A copy of a module that trains (weight averaging, a process that is spawned) works without threads.
        return type(None), ()

    def close(self) -> None:
        """End the threads."""
        for thread in self._threads:
            thread.shutdown(cancel_futures=True)


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Let torch use ``n`` threads meanwhile."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(n)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def side_by_side(module: GeneVAEModule, small: bool = False) -> Iterator[None]:
    """Train the members of ``module`` on threads of their own, where torch may use several.

    Each gets its share of torch's threads, so that there are no more of them than before; one where batches are
    ``small``.
    """
    threads = torch.get_num_threads()
    n_workers = min(len(module.members), threads)
    with torch_threads(1 if small else threads // n_workers):
        if n_workers < 2:
            yield
            return
        module.workers = workers = SideBySide(n_workers)
        try:
            yield
        finally:
            module.workers = None
            workers.close()
