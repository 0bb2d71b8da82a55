"""Network layers and networks that both halves (tissues and faces) use."""

from stcsm.nets._affine import AffineFunction
from stcsm.nets._conv import Conv2dSame, conv2d_same
from stcsm.nets._conv_transpose import ConvTranspose2dSame
from stcsm.nets._grid import SpotGrid
from stcsm.nets._grid_nets import GridDecoder, GridEncoder, halvings, padded_side
from stcsm.nets._keras import (
    KerasLayer,
    copy_all,
    from_keras,
    keras_targets,
    load_keras_layers,
    read_keras_layers,
)
from stcsm.nets._mlp import SpatialFilter, SpotDecoder, SpotEncoder
from stcsm.nets._one_channel import Conv2dSameToOne
from stcsm.nets._published import (
    HIDDEN,
    SIZE,
    BatchNormOfAny,
    PublishedDecoder,
    PublishedEncoder,
    keras_initialise,
)
from stcsm.nets._settings import own_settings

__all__ = [
    "HIDDEN",
    "SIZE",
    "AffineFunction",
    "BatchNormOfAny",
    "Conv2dSame",
    "Conv2dSameToOne",
    "ConvTranspose2dSame",
    "GridDecoder",
    "GridEncoder",
    "KerasLayer",
    "PublishedDecoder",
    "PublishedEncoder",
    "SpatialFilter",
    "SpotDecoder",
    "SpotEncoder",
    "SpotGrid",
    "conv2d_same",
    "copy_all",
    "from_keras",
    "halvings",
    "keras_initialise",
    "keras_targets",
    "load_keras_layers",
    "own_settings",
    "padded_side",
    "read_keras_layers",
]
