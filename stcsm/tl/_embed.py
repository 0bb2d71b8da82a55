"""Gene embedding: the latent mean of every gene, into ``.varm``."""

from __future__ import annotations

import re
from importlib.metadata import version

from anndata import AnnData

from stcsm import _keys
from stcsm.models import GeneVAE
from stcsm.tl._store import write_entry


def embed_genes(adata: AnnData, model: GeneVAE) -> None:
    """Embed every gene with a trained model.

    Parameters
    ----------
    adata
        The AnnData that the model was trained on, or one with the same spots and genes.
    model
        A trained :class:`stcsm.models.GeneVAE`.

    Writes
    ------
    ``adata.varm["X_stcsm"]``, ``adata.varm["X_stcsm_var"]``
        Posterior mean and variance, (G, L); NaN for genes without a count. Further members of the ensemble:
        ``X_stcsm_1``, ``X_stcsm_1_var``, ...
    ``adata.uns["stcsm"]["model"]``
        Settings of the model, versions, numbers of genes.

    Raises
    ------
    ValueError
        If the model is not trained, or was trained on other spots or genes.
    """
    check_fits(adata, model)
    arrays = {}
    for member in range(model.n_members):
        mean, var = model.get_latent_representation(give_var=True, member=member)
        arrays[_keys.embedding(member)] = mean
        arrays[_keys.embedding_var(member)] = var
    for key, array in arrays.items():
        adata.varm[key] = array
    # Members that an earlier, larger ensemble left behind; other keys that begin alike are the user's.
    for key in [k for k in adata.varm if re.fullmatch(rf"{_keys.EMBEDDING}(_\d+)?(_var)?", k) and k not in arrays]:
        del adata.varm[key]
    write_entry(adata, "model", {**model.describe(), "stcsm": version("stcsm"), "scvi-tools": version("scvi-tools")})
    write_entry(adata, "embedding_model", {"fingerprint": model.fingerprint()})


def check_fits(adata: AnnData, model: GeneVAE) -> None:
    """Refuse a model that is not trained or does not belong to this AnnData.

    Raises
    ------
    TypeError
        If ``model`` is no GeneVAE.
    ValueError
        As above.
    """
    if not isinstance(model, GeneVAE):
        raise TypeError(f"Expected a stcsm.models.GeneVAE, found {type(model).__name__}")
    if not model.is_trained:
        raise ValueError("Expected a trained model, found one that is not; call model.train() first")
    for axis, mine, theirs in (
        ("spots", adata.obs_names, model.spot_names),
        ("genes", adata.var_names, model.gene_names),
    ):
        if mine.equals(theirs):
            continue
        common = len(mine.intersection(theirs))
        if common == len(mine) == len(theirs):
            found = f"the same {axis} in another order; put them back: adata[model.spot_names, model.gene_names]"
        else:
            found = (
                f"{len(mine)} {axis}, {common} of them the model's; the AnnData was subset or renamed after the "
                "model was made: take the whole one, or train a model on this one"
            )
        raise ValueError(f"Expected the model's {len(theirs)} {axis}, found {found}")
