"Entries for `torch.hub.load`, see nbs/9_use/04_hub.ipynb."
dependencies = ['torch', 'numpy', 'cv2', 'PIL', 'matplotlib', 'pycocotools', 'safetensors', 'tqdm', 'yaml']
from ssd_nb.hub import detector, ssd300_mobilenet_v2, tiny
