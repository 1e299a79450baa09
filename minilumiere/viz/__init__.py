"""Look at it: clips, then what the layers of a net make of them. Read clips, features, explorer."""

from minilumiere.viz.clips import filmstrip, save_video, show_video, space_time_slice
from minilumiere.viz.explorer import feature_explorer
from minilumiere.viz.features import record_features

__all__ = ["feature_explorer", "filmstrip", "record_features", "save_video", "show_video", "space_time_slice"]
