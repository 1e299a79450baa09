"""Look at it: clips, then what the layers of a net make of them.

Read clips, files (and animation), panels; features, words, layers; compare, path, patching, correspondence; explorer.
"""

from minilumiere.viz.clips import filmstrip, show_video, space_time_slice
from minilumiere.viz.explorer import feature_explorer
from minilumiere.viz.features import patch_features, record_features
from minilumiere.viz.files import save_video

__all__ = ["feature_explorer", "filmstrip", "patch_features", "record_features", "save_video", "show_video", "space_time_slice"]
