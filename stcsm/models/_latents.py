"""Latents of genes: encoded in bounded batches, joined over the sections of a tissue, compared between them."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stcsm.models._counts import GeneReader
from stcsm.models._module import GeneVAEModule
from stcsm.models._tissue import Tissue

logger = logging.getLogger(__name__)

ENCODE_BATCH = 512
"""Genes encoded together, at most; fixed by the model alone, so that results cannot depend on it."""
ENCODE_VALUES = 2**24
"""Genes x spots encoded together."""
COUNTS = 50
"""Genes with so many counts in both sections are compared."""
GENES, FEWEST = 1000, 20
"""At most so many genes are compared, those of most counts; fewer than 20 are no comparison."""
ALIKE = 0.4
"""Correlation below which two sections do not seem to be registered with one another."""


def encoder_inputs(module: GeneVAEModule, reader: GeneReader, samples: NDArray[np.integer]) -> Tensor:
    """Encoder inputs of samples, (n, S) or (n, 1, H, W), on the module's device."""
    device = module.device
    counts = torch.from_numpy(reader.profiles(samples)).to(device)
    totals = torch.from_numpy(reader.gene_totals[samples].astype(np.float32))[:, None].to(device)
    section = reader.section(samples)
    return module.transform(counts, totals, None if section is None else torch.from_numpy(section).to(device))


@torch.inference_mode()
def encode(
    module: GeneVAEModule, reader: GeneReader, samples: NDArray[np.integer], member: int
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means and variances (n, L) of samples; NaN for those without a count."""
    module.eval()
    encoder = module.member(member).encoder
    shape = (len(samples), module.n_latent)
    mean, var = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    seen = np.flatnonzero(reader.gene_totals[samples] > 0)
    step = int(np.clip(ENCODE_VALUES // reader.n_spots, 1, ENCODE_BATCH))
    for start in range(0, len(seen), step):
        part = seen[start : start + step]
        m, log_var = encoder.posterior(encoder_inputs(module, reader, samples[part]))
        mean[part], var[part] = m.cpu().numpy(), module.variance(log_var).cpu().numpy()
    return mean, var


def encode_genes(
    module: GeneVAEModule, tissue: Tissue, member: int, section: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means and variances (G, L) of all genes: in one section, or the mean over sections by counts."""
    if tissue.sections is None:
        return encode(module, tissue.samples, np.arange(tissue.reader.n_genes), member)
    if section is not None:
        return encode(module, tissue.samples, tissue.samples_of(section), member)
    mean, var = np.zeros((2, tissue.reader.n_genes, module.n_latent))
    totals = np.maximum(tissue.reader.gene_totals, 1)
    for b in range(len(tissue.sections.names)):
        samples = tissue.samples_of(b)
        share = (tissue.samples.gene_totals[samples] / totals)[:, None]
        m, v = encode(module, tissue.samples, samples, member)
        mean += np.where(share > 0, share * m, 0)
        var += np.where(share > 0, share**2 * v, 0)
    for out in (mean, var):
        out[tissue.reader.gene_totals == 0] = np.nan
    return mean.astype(np.float32), var.astype(np.float32)


def section_agreement(module: GeneVAEModule, tissue: Tissue) -> dict[tuple[str, str], float]:
    """Correlation of the latents of genes between every two sections: see ``GeneVAE.section_agreement``."""
    found: dict[tuple[str, str], float] = {}
    names = tissue.sections.names if tissue.sections is not None else ()
    for a, b in itertools.combinations(range(len(names)), 2):
        first, second = tissue.samples_of(a), tissue.samples_of(b)
        genes = _comparable(tissue.samples.gene_totals[first], tissue.samples.gene_totals[second])
        if len(genes) >= FEWEST:
            z_a, z_b = (encode(module, tissue.samples, samples[genes], 0)[0] for samples in (first, second))
            found[names[a], names[b]] = _correlation(z_a, z_b)
    return found


def _comparable(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.intp]:
    """Genes that two sections have many counts of, given the counts (G,) in each: at most 1,000, in order."""
    fewer = np.minimum(first, second)
    many = np.flatnonzero(fewer >= COUNTS)
    return np.sort(many[np.argsort(-fewer[many], kind="stable")[:GENES]])


def _correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Correlation of two sections' latents (n, L) of the same genes, over genes and latents together.

    Each latent is centred; latents that are not in use have no variance and so no weight.
    """
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-30))


def warn_of_disagreement(agreements: dict[tuple[str, str], float]) -> None:
    """Warn of sections that do not seem to be registered, given the agreement of each pair."""
    for (one, other), r in agreements.items():
        if r < ALIKE:
            logger.warning(
                f"genes lie elsewhere in latent space in section {one!r} than in {other!r} (correlation {r:.2f}): the "
                "sections do not seem to be registered, and their maps cannot be trusted; bring them into one frame "
                "(register them), or train a model for each"
            )
