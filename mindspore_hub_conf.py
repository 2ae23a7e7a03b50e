"The entry that MindSpore Hub looks for, see nbs/23_hub.ipynb."
from ssd_nb.hub import create_network
