"The entry that MindSpore Hub looks for, see nbs/9_use/04_hub.ipynb."
from ssd_nb.hub import create_network
