"""Ready data: real tissues fetched with pooch, simulated tissues and faces with known truth."""

import lazy_loader as _lazy

# lazy, so that faces need no AnnData and tissues no image library
__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "_bulb": ["simulated_bulb"],
        "_faces": ["FACE_ATTRIBUTES", "simulated_faces"],
        "_mob": ["fetch_mob", "mouse_olfactory_bulb"],
    },
)
